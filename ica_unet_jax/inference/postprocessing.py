"""Optional cleaning of a segmentation."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ica_unet_jax.labels import STRUCTURES


def largest_components(labels: np.ndarray) -> np.ndarray:
    """The largest 6-connected component of each structure in a label volume (s, h, w); the rest is background."""
    kept = np.zeros_like(labels)
    for label in STRUCTURES.values():
        components, count = ndimage.label(labels == label)
        if count:
            kept[components == 1 + np.bincount(components.flat)[1:].argmax()] = label
    return kept
