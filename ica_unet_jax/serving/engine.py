"""The network behind a server, ready for frames of a geometry; what was made ready once is kept for the next session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ica_unet_jax.data.orientation import Turn
from ica_unet_jax.errors import UserError
from ica_unet_jax.inference import options, segmenters, turning
from ica_unet_jax.runs.trained import Trained, find
from ica_unet_jax.streaming.segmenter import StreamingSegmenter

Shape, Spacing = tuple[int, int, int], tuple[float, float, float]
KEPT = 8  # geometries; at one more all are forgotten


class Engine:
    """Gives the segmenter of a stream for frames of a geometry.

    Args:
      make: (shape (s, h, w), spacing (dz, dy, dx) in mm) -> a `StreamingSegmenter`, or what has its methods.
      forget: lets go of what else was made for geometries.
      codes: axis letters that frames are turned to; "" where they stay as they are.
      known: axis letters of the training patients.
    """

    def __init__(
        self,
        make: Callable[[Shape, Spacing], Any],
        codes: str = "",
        known: frozenset[str] = frozenset(),
        forget: Callable[[], None] = lambda: None,
    ):
        self._make, self._codes, self._known, self._forget = make, codes, known, forget
        self._ready: dict[tuple, Any] = {}

    def ready(self, shape: Shape, spacing: Spacing) -> Any:
        """The segmenter for such frames, at the beginning of a cine. Made on first use, which takes seconds."""
        key = shape, tuple(round(step, 3) for step in spacing)
        if key not in self._ready:
            if len(self._ready) == KEPT:
                self._ready.clear()
                self._forget()
            self._ready[key] = self._make(shape, spacing)
        segmenter = self._ready[key]
        segmenter.reset()
        return segmenter

    def ready_for(self, path: Path) -> None:
        """Makes ready what frames as those of a NIfTI file need. Raises UserError as `turning.read` does."""
        cine = turning.read(path, self._codes)
        self.ready(cine.frames.shape[1:], cine.spacing)

    def turn(self, codes: str) -> Turn:
        """The way of a frame with these axis letters ("" where it has none) to those of the training, and back.

        Raises UserError where frames are to be turned, and nothing tells from what.
        """
        if self._codes and not codes:
            raise UserError(
                "The images do not tell how they lie in the patient, so that --reorient cannot turn them: write their true directions into "
                "the headers."
            )
        return Turn(codes, self._codes)

    def remark(self, codes: str) -> str:
        """What is to be said of frames that lie so; "" where the training patients did, or nobody knows."""
        if not codes or not self._known or codes in self._known or self._codes:
            return ""
        return (
            f"the images lie otherwise in the patient ({codes}) than those of the training ({', '.join(sorted(self._known))}): "
            "--reorient turns them"
        )


def load(network: str | Path | Trained, **given: Any) -> Engine:
    """The engine of a trained network. Keywords: `options.STREAM`; `runtime` is auto unless given. Raises UserError as `stream` does."""
    chosen = options.choose(options.STREAM, options.REAL_TIME | given)
    trained = find(network)
    segmenter = segmenters.load_as(trained, chosen)
    window = chosen.seen_through(segmenter.config.data)
    codes = turning.codes_for(trained, segmenter.config.data, chosen)
    known = frozenset(filter(None, trained.orientation.codes))

    def make(shape: Shape, spacing: Spacing) -> StreamingSegmenter:
        return StreamingSegmenter(segmenter, shape, spacing, window=window)

    return Engine(make, codes, known, segmenter.forget_grids)
