"""Where the heart lies on a frame, by its labels."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ica_unet_jax.data.geometry import Placement


def middle(labels: np.ndarray, placement: Placement) -> tuple[float, float] | None:
    """The offset of the median row and column of what is labelled in (..., s, h, w); None of nothing."""
    plane = np.count_nonzero(labels, axis=tuple(range(labels.ndim - 2)))
    if not plane.any():
        return None
    found = []
    for counts, step in zip((plane.sum(1), plane.sum(0)), placement.spacing[1:], strict=True):
        where = np.searchsorted(np.cumsum(counts), counts.sum() / 2)
        found.append(float(where - (len(counts) - 1) / 2) * step / placement.target_spacing)
    return found[0], found[1]


def on_heart(placement: Placement, truths: Iterable[np.ndarray]) -> Placement:
    """The placement whose window is centred on what is labelled in these volumes (s, h, w); itself where nothing is."""
    truths = list(truths)
    centre = middle(np.stack(truths), placement) if truths else None
    return placement.at(*centre) if centre else placement
