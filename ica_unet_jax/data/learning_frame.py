"""One training sample: a frame among its neighbours. No file is read here, so that networks may import it."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass
class LearningFrame:
    """One frame of a case on the canvas: all slices, in-plane voxels of `spacing`, round the image centre.

    `frames` is float16 (2 * reach + 1, s, Hc, Wc): the frames t - reach ... t + reach, each z-scored alone, 0 outside the
    image, memory-mapped.
    `labels` is uint8 (s, Hc, Wc), `UNLABELLED` all over where the frame has no ground truth; `valid` is bool (s, Hc, Wc):
    true inside the image. `time` is the 0-based frame number.
    """

    case_name: str
    time: int
    frames: np.ndarray
    labels: np.ndarray
    valid: np.ndarray
    labelled: bool = True
