"""Optional cleaning of a segmentation."""

from __future__ import annotations

import numpy as np

from ica_unet_jax.labels import STRUCTURES
from ica_unet_jax.metrics.components import largest_component


def largest_components(labels: np.ndarray) -> np.ndarray:
    """The largest 6-connected component of each structure in a label volume (s, h, w); the rest is background."""
    kept = np.zeros_like(labels)
    for label in STRUCTURES.values():
        kept[largest_component(labels == label)] = label
    return kept
