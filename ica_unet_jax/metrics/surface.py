"""Distances between the surfaces of two masks, and the share of them that lies close to the other.

The surface is the mask minus its erosion by the 6-connected cross (4-connected in 2D); what lies beyond the
array's border counts as outside. Distances run from voxel centre to voxel centre. "Directed" from a to b: of
every surface voxel of a to the nearest surface voxel of b.

Normalized surface Dice at a tolerance: (surface voxels of a no further than the tolerance from the surface of b + those
of b no further from that of a) / all surface voxels of both. Each surface voxel counts 1, whatever area it stands for.
Both masks empty: NaN; one empty: 0. All of it as MONAI's `compute_surface_dice` with a spacing and without subvoxels.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from ica_unet_jax.errors import UserError

NSD_MM = 2.0  # tolerance of the normalized surface Dice, where nobody asks for another


class SurfaceFigures(NamedTuple):
    """Distances in the unit of the spacing. Both masks empty: NaN; one empty: distances inf, nsd 0."""

    hd: float  # Hausdorff distance: the larger of the two directed maxima
    hd95: float  # the larger of the two directed 95th percentiles (linear interpolation)
    assd: float  # mean of the two directed means
    nsd: float  # normalized surface Dice, a share


def surface_figures(a: np.ndarray, b: np.ndarray, spacing: Sequence[float], tolerance: float = NSD_MM) -> SurfaceFigures:
    """HD, HD95, ASSD and normalized surface Dice of two masks of one shape; symmetric in a and b.

    spacing: a positive number for each axis; tolerance: of the surface Dice, in the same unit, not negative.
    Raises UserError where the shapes differ, the spacing does not fit them or the tolerance is not finite or below 0.
    """
    a, b = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    if a.shape != b.shape:
        raise UserError(f"Masks of shapes {a.shape} and {b.shape} cannot be compared: bring them to one grid.")
    if len(spacing) != a.ndim or not all(math.isfinite(step) and step > 0 for step in spacing):
        raise UserError(f"Spacing {tuple(spacing)} does not fit {a.ndim} axes: give one positive number per axis.")
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise UserError(f"A tolerance of {tolerance} for surfaces makes no sense: give a distance of 0 or more.")
    if not a.any() and not b.any():
        return SurfaceFigures(*[math.nan] * 4)
    if not a.any() or not b.any():
        return SurfaceFigures(*[math.inf] * 3, 0.0)

    # outside the box both masks are empty, so the crop changes no distance
    box = ndimage.find_objects(a | b, max_label=1)[0]
    surface_a, surface_b = (_surface(mask[box]) for mask in (a, b))
    a_to_b = ndimage.distance_transform_edt(~surface_b, sampling=spacing)[surface_a]
    b_to_a = ndimage.distance_transform_edt(~surface_a, sampling=spacing)[surface_b]
    directed = (a_to_b, b_to_a)
    # in float32, so that a distance which is the tolerance but for round-off is within it
    near = sum(np.count_nonzero(distances.astype(np.float32) <= np.float32(tolerance)) for distances in directed)
    return SurfaceFigures(
        hd=max(float(distances.max()) for distances in directed),
        hd95=max(float(np.percentile(distances, 95)) for distances in directed),
        assd=sum(float(distances.mean()) for distances in directed) / 2,
        nsd=near / sum(map(len, directed)),
    )


def _surface(mask: np.ndarray) -> np.ndarray:
    return mask & ~ndimage.binary_erosion(mask)  # scipy's default: the cross, with zeros beyond the border
