"""Distances between the surfaces of two masks.

The surface is the mask minus its erosion by the 6-connected cross (4-connected in 2D); what lies beyond the
array's border counts as outside. Distances run from voxel centre to voxel centre. "Directed" from a to b: of
every surface voxel of a to the nearest surface voxel of b.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from ica_unet_jax.errors import UserError


class SurfaceDistances(NamedTuple):
    """In the unit of the spacing. Both masks empty: NaN; one empty: inf."""

    hd: float  # Hausdorff distance: the larger of the two directed maxima
    hd95: float  # the larger of the two directed 95th percentiles (linear interpolation)
    assd: float  # mean of the two directed means


def surface_distances(a: np.ndarray, b: np.ndarray, spacing: Sequence[float]) -> SurfaceDistances:
    """HD, HD95 and ASSD of two masks of one shape, with one positive spacing per axis; symmetric in a and b.

    Raises UserError where the shapes differ or the spacing does not fit them.
    """
    a, b = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    if a.shape != b.shape:
        raise UserError(f"Masks of shapes {a.shape} and {b.shape} cannot be compared: bring them to one grid.")
    if len(spacing) != a.ndim or not all(math.isfinite(step) and step > 0 for step in spacing):
        raise UserError(f"Spacing {tuple(spacing)} does not fit {a.ndim} axes: give one positive number per axis.")
    if not a.any() or not b.any():
        return SurfaceDistances(*[math.inf if a.any() or b.any() else math.nan] * 3)

    box = ndimage.find_objects(a | b, max_label=1)[
        0
    ]  # outside it both masks are empty, so the crop changes no distance
    surface_a, surface_b = (_surface(mask[box]) for mask in (a, b))
    a_to_b = ndimage.distance_transform_edt(~surface_b, sampling=spacing)[surface_a]
    b_to_a = ndimage.distance_transform_edt(~surface_a, sampling=spacing)[surface_b]
    directed = (a_to_b, b_to_a)
    return SurfaceDistances(
        hd=max(float(distances.max()) for distances in directed),
        hd95=max(float(np.percentile(distances, 95)) for distances in directed),
        assd=sum(float(distances.mean()) for distances in directed) / 2,
    )


def _surface(mask: np.ndarray) -> np.ndarray:
    return mask & ~ndimage.binary_erosion(mask)  # scipy's default: the cross, with zeros beyond the border
