"""The figures of a training as TensorBoard events."""

from __future__ import annotations

import time
from pathlib import Path

from ica_unet_jax.runtime import packages


def require() -> None:
    """Raises UserError where tensorboardX is not installed."""
    packages.require("--tensorboard", "tensorboard", ("tensorboardX",), "leave the flag out (curves.png shows the same)")


class Events:
    """An events file of a process that goes on from step `first`; TensorBoard drops what earlier ones said beyond it.

    Written by the calling thread: tensorboardX's SummaryWriter writes in another one, which a full disk ends unseen,
    and then waits for it for ever.
    """

    def __init__(self, folder: Path, first: int):
        require()
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        self.event = Event
        self.writer = EventsWriter(str(folder / "events"), f".{first}")
        start = SessionLog(status=SessionLog.START)
        self.writer.write_event(Event(wall_time=time.time(), step=first + 1, session_log=start))

    def write(self, step: int, **values: float) -> None:
        """A scalar for each value. Raises OSError where it cannot be written."""
        from tensorboardX.summary import scalar

        for name, value in values.items():
            self.writer.write_event(self.event(wall_time=time.time(), step=step, summary=scalar(name, float(value))))
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()
