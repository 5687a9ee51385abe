"""Segments a stream with a network that answers whole snippets: the labels of all their frames come after the last one."""

from __future__ import annotations

import jax
import numpy as np

from ica_unet_jax.streaming.segmenter import Result, StreamingSegmenter, _Frame


class SnippetStream(StreamingSegmenter):
    """As `StreamingSegmenter`, but `push` and `flush` give a list: nothing, or a result for every frame of a snippet.

    `compute_ms` is the call that gave the snippet's results, for each of them: the last frame's encoding, one pass of the
    network with its unmixing, and all labels. A frame's `arrival_to_mask_ms` has the wait for the rest of its snippet in it.
    """

    by_snippets = True

    def reset(self) -> None:
        super().reset()
        self._frames: list[_Frame] = []

    def push(self, frame: np.ndarray, time_stamp: float | None = None, number: int | None = None) -> list[Result]:
        began = self._clock()
        current = self._arrive(frame, began, time_stamp, number)
        self._find(current)
        self._encode(current)
        self._frames.append(current)
        if len(self._frames) < self.segmenter.decoded:
            jax.block_until_ready(current.features)  # the next call's clock is its own
            return []
        return self._answer_snippet(began)

    def flush(self) -> list[Result]:
        """Ends the cine: the results of a snippet that has begun, filled up with its last frame."""
        began = self._clock()
        results = self._answer_snippet(began) if self._frames else []
        self.reset()
        return results

    def _answer_snippet(self, began: float) -> list[Result]:
        frames, self._frames = self._frames, []
        filled = frames + frames[-1:] * (self.segmenter.decoded - len(frames))
        answers = self.segmenter.decode(*(frame.features for frame in filled))
        placement = frames[0].placement  # of all: the window moves between snippets alone
        labels = jax.device_get([self.segmenter.to_labels(placement, windows) for windows in answers[: len(frames)]])
        answered = self._clock()
        return [self._result(frame, found, began, answered) for frame, found in zip(frames, labels, strict=True)]
