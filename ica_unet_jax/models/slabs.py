"""A frame divided among devices: each has a slab of it, an equal number of slices beside each other.

In evaluation all of ICA-UNet but the mixing works slice by slice, or on pairs of them. So each device computes its own
slab, and waits for the others at the mixing alone, whose slices need the coefficients and bases of all.
"""

from __future__ import annotations

import jax
from jax import lax

AXIS = "slabs"  # the mapped axis of the devices


def whole(volume: jax.Array) -> jax.Array:
    """The slices of all slabs, (B, d, ...), of a volume of which each device has its own."""
    return lax.all_gather(volume, AXIS, axis=1, tiled=True)


def own(array: jax.Array, slices: int, axis: int = 0, beyond: int = 0) -> jax.Array:
    """This device's slab, so many slices along an axis, of an array that all devices have; and as many behind it as `beyond`."""
    return lax.dynamic_slice_in_dim(array, lax.axis_index(AXIS) * slices, slices + beyond, axis)
