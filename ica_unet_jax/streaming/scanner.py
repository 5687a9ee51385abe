"""A scanner to try a segmenter on: it hands frames over by its own clock and waits for nobody."""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ica_unet_jax.config import Config
from ica_unet_jax.data.phantom.beating_heart import simulate
from ica_unet_jax.errors import UserError
from ica_unet_jax.inference import turning

Shot = tuple[float, np.ndarray]  # seconds after the start, frame
SLICE_MM = 10.0  # of the phantom


class Source(NamedTuple):
    """One beat, to be repeated."""

    frames: np.ndarray  # (t, s, h, w)
    spacing: tuple[float, float, float]  # (dz, dy, dx) in mm


def open_source(source: str | Path, config: Config, rate: float, *, larger: bool = False, codes: str = "") -> Source:
    """A 4D NIfTI file, or for "phantom" a beating heart on the model's own grid, made beforehand, 60 beats a minute.

    Frames with NaN are played as they are. A `larger` phantom has twice the grid's height and width. With `codes` the file's axes
    are turned to these letters, and so are the masks.

    Raises:
      UserError: no readable 4D file; BadData: voxels of no size, or axes in another order.
    """
    if str(source) == "phantom":
        spacing = (SLICE_MM, config.data.spacing, config.data.spacing)
        d, h, w = config.model.crop
        shape = (d, 2 * h, 2 * w) if larger else (d, h, w)
        return Source(simulate(0, 0, shape, max(2, round(rate)), spacing).frames, spacing)
    cine = turning.read(Path(source), codes, whole=False)
    if len(cine.frames) < 2:
        raise UserError(f"--input={source} is a single frame: name a 4D cine, or phantom.")
    return Source(cine.frames, cine.spacing)


def at_rate(frames: np.ndarray, rate: float, seconds: float) -> Iterator[Shot]:
    """Frames (t, s, h, w) at `rate` a second for `seconds`, from the start again whenever they are used up."""
    for i in range(max(1, round(rate * seconds))):
        yield i / rate, frames[i % len(frames)]


def with_faults(shots: Iterable[Shot], rate: float) -> Iterator[Shot]:
    """The same with the faults of a scanner, one in five seconds, in turn.

    A frame with a NaN; a frame of another size; a stall of half a second, at whose end all that was held up comes at once.
    """
    every, end = max(4, round(5 * rate)), 0.0
    for i, (due, frame) in enumerate(shots):
        turn, place = i // every % 3, i % every
        if place == every // 2 and turn == 0:
            frame = np.array(frame, np.float32)
            frame.flat[0] = np.nan
        elif place == every // 2 and turn == 1:
            frame = frame[..., :-1]
        elif place == every // 2 and turn == 2:
            end = due + 0.5
        yield max(due, end), frame


class Handover(NamedTuple):
    """A frame on its way."""

    number: int  # from 1
    time_stamp: float  # s of the scanner's clock: when it was due
    frame: np.ndarray
    origin: Any = None  # what else came with it, for whoever sends the answer back


class FrameQueue:
    """At most `size` frames that wait; one more pushes out the oldest, or, with `patient`, has to wait until there is room.

    Iterating takes them until `close`.
    """

    def __init__(self, size: int, patient: bool = False):
        self.size, self.patient, self.dropped = size, patient, 0
        self._waiting: collections.deque[Handover] = collections.deque()
        self._closed = False
        self._changed = threading.Condition()

    def put(self, handover: Handover) -> None:
        with self._changed:
            if self.patient:
                self._changed.wait_for(lambda: len(self._waiting) < self.size or self._closed)
            elif len(self._waiting) == self.size:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append(handover)
            self._changed.notify_all()

    def close(self) -> None:
        """Nothing more will come; what waits may still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Handover]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                handover = self._waiting.popleft()
                self._changed.notify_all()
            yield handover


class Scanner(threading.Thread):
    """Puts each shot into the queue when it is due, numbered from 1; closes the queue at the end, or when it is `stopped`.

    A frame's time stamp is when it was due, so that a thread that comes too late counts against us, not for us. What
    goes wrong here is raised in the thread that calls `finish`.
    """

    def __init__(
        self, shots: Iterable[Shot], queue: FrameQueue, clock: Callable[[], float] = time.perf_counter, stopped: threading.Event | None = None
    ):
        super().__init__(name="scanner", daemon=True)
        self.frames = 0  # handed over so far
        self._shots, self._queue, self._clock = shots, queue, clock
        self._stopped = stopped or threading.Event()
        self._error: Exception | None = None

    def run(self) -> None:
        try:
            start = self._clock()
            for number, (due, frame) in enumerate(self._shots, start=1):
                if self._stopped.wait(max(0.0, start + due - self._clock())):
                    return
                self.frames = number
                self._queue.put(Handover(number, start + due, frame))
        except Exception as error:
            self._error = error
        finally:
            self._queue.close()

    def finish(self) -> None:
        """Stops it if it still runs, and raises what went wrong in it."""
        self._stopped.set()
        self.join()
        if self._error:
            raise self._error
