"""How slices that carry their own position lie together: their order, their distance, and the letters of the axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import nibabel as nib
import numpy as np

from ica_unet_jax.data import orientation
from ica_unet_jax.errors import UserError

_TO_RAS = np.diag([-1.0, -1.0, 1.0])
_SAME = 0.01  # mm; slices nearer than this lie at one place


class Lie(NamedTuple):
    """How the slices of a frame lie."""

    order: list[int]  # of the slices as they were given
    spacing: tuple[float, float, float]  # (dz, dy, dx) in mm
    codes: str  # axis letters (x, y, slices); "" where the directions do not tell


def letters(along_x: Sequence[float], along_y: Sequence[float], slices: Sequence[float]) -> str:
    """The axis letters of directions in LPS, the last from slice to slice; "" where they are none."""
    affine = np.eye(4)
    with np.errstate(all="ignore"):
        affine[:3, :3] = _TO_RAS @ np.array([along_x, along_y, slices], float).T
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-3:
        return ""
    codes = "".join(letter or "" for letter in nib.aff2axcodes(affine))
    return codes if orientation.is_codes(codes) else ""


def lie(
    positions: np.ndarray, along_x: Sequence[float], along_y: Sequence[float], normal: Sequence[float], size: tuple[float, float, float]
) -> Lie:
    """How slices lie whose centres (n, 3) are given in mm, LPS, with the directions along x, y and from slice to slice.

    They are ordered along the normal; where they all lie at one place, or nothing says where, as they were given. `size` is that of
    a voxel (dz, dy, dx) in mm, the first for a slice that lies alone.

    Raises UserError where a voxel has no size, or two slices lie at one place.
    """
    order, thick = list(range(len(positions))), size[0]
    with np.errstate(all="ignore"):
        along = positions.astype(float) @ np.array(normal, float)
    if len(order) > 1 and np.isfinite(along).all() and np.ptp(along) > _SAME:
        order = np.argsort(along, kind="stable").tolist()
        steps = np.diff(along[order])
        if steps.min() < _SAME:
            raise UserError("Two slices of a frame lie at one place: the frame is left out.")
        thick = float(np.median(steps))
    spacing = (thick, size[1], size[2])
    if not all(0.01 <= step <= 100 for step in spacing):
        raise UserError(f"The header says that a voxel has {' x '.join(f'{step:g}' for step in spacing)} mm: the frame is left out.")
    return Lie(order, spacing, letters(along_x, along_y, normal))
