"""Segments a stream: frames in, labels out, each frame encoded once, nothing compiled on the way."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8

from ica_unet_jax.data.geometry import Placement
from ica_unet_jax.errors import UserError
from ica_unet_jax.inference import roi
from ica_unet_jax.inference.segmenters import Segmenter
from ica_unet_jax.inference.way import Features
from ica_unet_jax.metrics.clinical import volumes_ml
from ica_unet_jax.runtime import compilation


@dataclasses.dataclass(frozen=True)
class Result:
    """The labels of one frame, and when they came."""

    number: int  # of the frame, from 1
    labels: UInt8[np.ndarray, "s h w"]  # on the native grid, read-only
    volumes_ml: dict[str, float]  # of RV, MYO and LV
    arrived: float  # s, time stamp of the frame
    answered: float  # s, when the labels were on the host
    compute_ms: float  # the call that gave this result, from a frame that is there to labels on the host
    placement: Placement  # of the window through which it was seen

    @property
    def arrival_to_mask_ms(self) -> float:
        """From the hand-over of the frame to its labels; the wait for the later frames that the answer needs is in it."""
        return 1e3 * (self.answered - self.arrived)


Answer = tuple[np.ndarray, Result]  # a frame (s, h, w) as it came, and its result


@dataclasses.dataclass
class _Frame:
    number: int
    arrived: float
    image: Any  # as it came, where it is worked on
    placement: Placement | None = None  # of the window that the features are of
    features: Features = dataclasses.field(default_factory=list)


class StreamingSegmenter:
    """A trained model on a stream of frames of one geometry.

    `push` each frame as it arrives; it gives a list: what this frame completes. With `neighbours=both` the answer to frame t
    comes with frame t+1, and with `flush` for the last; with `past`, `two_past` and `none` at once. A network that answers
    snippets gives nothing until the last frame of a snippet, then a result for each of its frames; `flush` fills the last
    snippet up with its last frame. A missing neighbour is the frame itself, as everywhere.

    Each frame is encoded once. What is kept from call to call are the features of the frames that are still needed, on JAX's
    device or in another runtime; what crosses between host and device is the frame in and the labels out. Everything is compiled and has run once
    when the constructor returns, and compiled functions are kept on disk (`compilation.keep_on_disk`).

    With `window="follow"` the model's window is put on the heart, and follows it: frames larger than the window cost what
    the window does. The first frame is searched for the heart, which takes as long as a dozen frames or two. When the
    window moves, the frames that are still needed are encoded again, as features of two windows cannot be compared.

    Not for calls from several threads at once.

    Args:
      segmenter: the trained model, as `segmenters.load` gives it; its compiled functions are used where frames fit its grid.
      shape: (s, h, w) of every frame.
      spacing: (dz, dy, dx) in mm.
      window: "centre" of the image, or "follow" the heart; see `roi`.
      clock: seconds; all time stamps are its.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        shape: tuple[int, int, int],
        spacing: tuple[float, float, float],
        *,
        window: str = "centre",
        clock: Callable[[], float] = time.perf_counter,
    ):
        compilation.keep_on_disk()
        self.segmenter, self.shape, self.spacing = segmenter, tuple(shape), tuple(spacing)
        self._clock = clock
        self._centre = segmenter.place(self.shape, self.spacing)
        self.way = segmenter.way(self._centre)
        self._kind = "centre"
        self.reset()
        # Compiles, and the memory that an answer needs is asked for once.
        noise = np.random.default_rng(0).standard_normal(self.shape, np.float32)
        for _ in range(2 + segmenter.config.model.answered):
            self.push(noise)
        if window != "centre":
            self.way.look(self._centre, self.way.put(noise))
        self._kind = window
        self.flush()

    def reset(self) -> None:
        """Forgets all frames: the next is the first of a new cine, number 1, and where the heart was."""
        self._number = 0
        self._waiting: list[_Frame] = []  # for their answers
        self._past: deque[_Frame] = deque(maxlen=-min(self.segmenter.config.model.frames, default=0))
        self._window = roi.open_window(self._kind, self._centre)

    def push(self, frame: np.ndarray, time_stamp: float | None = None, number: int | None = None) -> list[Result]:
        """Takes a frame; gives the results that it completes.

        Args:
          frame: (s, h, w), any real type. May be overwritten after the call.
          time_stamp: when the scanner handed it over, in seconds of `clock`; by default now.
          number: of the frame; by default one more than the last one's.

        Raises:
          UserError: it has another shape, is not finite or constant. The stream goes on as if it had been dropped.
        """
        began = self._clock()
        current = self._arrive(frame, began, time_stamp, number)
        self._waiting.append(current)
        self._find()
        self._encode(current)
        if len(self._waiting) > self.segmenter.config.model.waits:
            return self._answer(began)
        jax.block_until_ready(current.features)  # the next call's clock is its own
        return []

    def flush(self) -> list[Result]:
        """Ends the cine: the results of the frames that wait for their successors. The next `push` starts anew."""
        began, results = self._clock(), []
        if self._waiting:
            self._find()
            results = self._answer(began)
        self.reset()
        return results

    def _find(self) -> None:
        """Searches the frame that is answered next for the heart, where the window has lost that."""
        if self._window.lost:
            image = self._waiting[0].image
            self._window.search(lambda placement: self.way.look(placement, image))

    def _answer(self, began: float) -> list[Result]:
        """The results of one run of the network, of the frames that have waited longest."""
        kept, start = [*self._past, *self._waiting], len(self._past) - self.segmenter.first
        group = [kept[min(max(i, 0), len(kept) - 1)] for i in range(start, start + self.segmenter.decoded)]
        for frame in group:
            self._encode(frame)
        count = self.segmenter.config.model.answered
        asked, self._waiting = self._waiting[:count], self._waiting[count:]
        placement = asked[0].placement  # of all: the window moves between runs alone
        labels = self.way.labels(placement, [frame.features for frame in group], len(asked))
        answered = self._clock()
        self._past.extend(asked)
        return [self._result(frame, volume, began, answered) for frame, volume in zip(asked, labels, strict=True)]

    def _result(self, frame: _Frame, labels: np.ndarray, began: float, answered: float) -> Result:
        self._window.saw(labels)
        volumes = {name: float(volume) for name, volume in volumes_ml(labels, self.spacing).items()}
        return Result(frame.number, labels, volumes, frame.arrived, answered, 1e3 * (answered - began), frame.placement)

    def _arrive(self, frame: np.ndarray, began: float, time_stamp: float | None, number: int | None) -> _Frame:
        """A frame of `push`; a UserError where it is bad."""
        self._number = self._number + 1 if number is None else number
        return _Frame(self._number, began if time_stamp is None else time_stamp, self.way.put(self._checked(frame)))

    def _encode(self, frame: _Frame) -> None:
        """Its features through the window as it lies now, if they are not there yet."""
        if frame.placement != self._window.placement:
            frame.placement = self._window.placement
            frame.features = self.way.encode(frame.placement, frame.image)

    def _checked(self, frame: Any) -> np.ndarray:
        """The frame as float32, or a UserError."""
        frame = np.asarray(frame)
        reason = ""
        if frame.shape != self.shape:
            reason = f"has the shape {frame.shape}, the stream {self.shape}"
        elif frame.dtype.kind not in "biuf":
            reason = f"holds {frame.dtype} values, not real numbers"
        else:
            with np.errstate(over="ignore"):  # beyond float32 is infinite, which is told
                frame = np.array(frame, np.float32, order="C")  # a copy: the caller's buffer is free after the call
            low, high = frame.min(), frame.max()  # NaN wins in both
            if not (np.isfinite(low) and np.isfinite(high)):
                reason = "holds NaN or infinite values"
            elif low == high:
                reason = f"is constant ({low:g}), so it shows nothing"
        if reason:
            raise UserError(f"Frame {self._number} {reason}: it is left out; send it again or go on with the next.")
        return frame
