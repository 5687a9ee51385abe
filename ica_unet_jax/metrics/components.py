"""Connected components of a mask."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def largest_component(mask: np.ndarray) -> np.ndarray:
    """The largest 6-connected component of a mask (s, h, w); nothing of an empty one."""
    components, count = ndimage.label(mask)
    return components == 1 + np.bincount(components.flat)[1:].argmax() if count else np.zeros_like(mask)
