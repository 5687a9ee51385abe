"""A session: one client's frames are read in a thread of their own, segmented in this one, and answered at once."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ica_unet_jax.errors import UserError
from ica_unet_jax.serving.engine import Engine, Spacing
from ica_unet_jax.serving.wire import Ended, Wire
from ica_unet_jax.streaming.scanner import FrameQueue, Handover
from ica_unet_jax.streaming.segmenter import Result
from ica_unet_jax.streaming.session import Show
from ica_unet_jax.streaming.tally import Tally, percentiles

DEADLINE_MS = 50.0  # as `stream` has it
SAME_SIZE = 1e-3  # mm


@dataclasses.dataclass(frozen=True)
class Frame:
    """A whole frame, as a protocol gives it."""

    pixels: np.ndarray  # (s, h, w)
    spacing: Spacing  # mm
    codes: str  # axis letters (x, y, slices), "" where nothing says how it lies
    cine: Any  # frames with another one begin anew
    arrived: float  # s, when its last bytes had come
    origin: Any = None  # what the answer needs

    def continues(self, other: Frame) -> bool:
        """Whether it is of the same cine and lies in the same way; scanners round their numbers, not always alike."""
        same = (self.pixels.shape, self.codes, self.cine) == (other.pixels.shape, other.codes, other.cine)
        return same and np.allclose(self.spacing, other.spacing, rtol=0, atol=SAME_SIZE)


@runtime_checkable
class Talk(Protocol):
    """What a protocol does in one session. Methods raise Ended."""

    left_out: int  # frames that lacked a slice, so far

    def frames(self) -> Iterator[Frame]:
        """The frames that come, until the client says that there are no more."""

    def answer(self, frame: Frame, result: Result) -> None:
        """Sends the labels (s, h, w) of a frame."""

    def refuse(self, text: str) -> None:
        """Says that a frame gets no labels, and why."""

    def end(self) -> None:
        """Says that nothing more will come."""


class Session:
    """Runs a client's session to its end.

    Args:
      queue: frames that may wait; the oldest is dropped for one more. 0: none is dropped, the client has to wait.
      show: see `Show`; called when an answer has been sent.
    """

    def __init__(self, wire: Wire, talk: Talk, engine: Engine, queue: int = 0, show: Show = lambda tally, answers, spacing: None):
        self.tally, self.why, self.remark = Tally(DEADLINE_MS), "", ""
        self._wire, self._talk, self._engine, self._show = wire, talk, engine, show
        self._queue = FrameQueue(queue or 1, patient=not queue)
        self._waiting: dict[int, Frame] = {}  # for their answers, by number
        self._stream: Any = None
        self._begun: Frame | None = None  # the first of the cine
        self._fault: Exception | None = None  # of the reading thread

    def run(self) -> None:
        """Afterwards `why` says what ended it: "" where the client did."""
        reader = threading.Thread(target=self._read, name="reader", daemon=True)
        reader.start()
        try:
            for handover in self._queue:
                if self.why:
                    break
                self._segment(handover)
            if self._fault:
                raise self._fault
            if not self.why:
                self._flush()
                self._talk.end()
        except Ended as error:
            self.why = self.why or str(error)
        finally:
            self._wire.close()
            self._queue.close()
            reader.join()
            self.tally.dropped = self._queue.dropped

    def _read(self) -> None:
        try:
            for frame in self._talk.frames():
                self.tally.frames += 1
                self._queue.put(Handover(self.tally.frames, frame.arrived, frame.pixels, frame))
        except Ended as error:
            self.why = self.why or str(error)
        except Exception as error:  # raised again in the thread of `run`
            self._fault = error
        finally:
            self._queue.close()

    def _segment(self, handover: Handover) -> None:
        frame: Frame = handover.origin
        results: Sequence[Result] = []
        try:
            turn = self._engine.turn(frame.codes)
            pixels = turn.forth(frame.pixels)
            if not (self._begun and frame.continues(self._begun)):
                self._flush()
                self._stream = self._engine.ready(pixels.shape, turn.sizes(frame.spacing))
                self._begun, self.remark = frame, self._engine.remark(frame.codes)
            self._waiting[handover.number] = frame
            results = self._stream.push(pixels, handover.time_stamp, handover.number)
        except UserError as error:
            self._waiting.pop(handover.number, None)
            self.tally.refuse(error)
            self._talk.refuse(str(error))
            self._show(self.tally, [], frame.spacing)
        self._answer(results)

    def _flush(self) -> None:
        """The end of a cine."""
        if self._stream:
            self._answer(self._stream.flush())
        self._stream = self._begun = None

    def _answer(self, results: Sequence[Result]) -> None:
        for result in results:
            self.tally.add(result)
            frame = self._waiting.pop(result.number)
            turned = dataclasses.replace(result, labels=self._engine.turn(frame.codes).back(result.labels))
            self._talk.answer(frame, turned)
            self.tally.dropped = self._queue.dropped
            self._show(self.tally, [(frame.pixels, turned)], frame.spacing)

    def describe(self) -> str:
        """The session in a line, without anything of a patient."""
        tally = self.tally
        counts = f"{tally.frames} frames, {tally.answered} answered, {tally.dropped} dropped, {tally.refused} refused"
        if self._talk.left_out:
            counts += f", {self._talk.left_out} left out as they lacked a slice"
        if tally.answered:
            times = (f"{percentiles(values)[name]:.1f}" for values in (tally.compute_ms, tally.arrival_to_mask_ms) for name in ("p50", "p99"))
            counts += ", compute {} ms (p99 {}), arrival to mask {} (p99 {})".format(*times)
        return f"{counts}; " + (f"ended: {self.why}" if self.why else "ended by the client")


def now() -> float:
    """The clock of all time stamps, that of `StreamingSegmenter`."""
    return time.perf_counter()
