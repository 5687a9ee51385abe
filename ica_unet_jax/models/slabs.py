"""A frame divided among devices: each has a slab of it, an equal number of slices beside each other.

In evaluation all of ICA-UNet but the mixing works slice by slice, or on pairs of them. So each device computes its own
slab, and waits for the others once, for the coefficients and bases that the mixing of its slices takes from theirs.
"""

from __future__ import annotations

import jax
from jax import lax

AXIS = "slabs"  # the mapped axis of the devices


def whole(volume: jax.Array) -> jax.Array:
    """The slices of all slabs, (B, d, ...), of a volume of which each device has its own."""
    return lax.all_gather(volume, AXIS, axis=1, tiled=True)


def own(array: jax.Array, size: int, axis: int = 0) -> jax.Array:
    """`size` places along an axis of what all devices have alike, from where the device's slab begins there.

    Those of the slab alone where the devices' sizes add up to the axis; more where slabs look beyond their ends.
    """
    first = lax.axis_index(AXIS) * ((array.shape[axis] - size) // max(1, lax.axis_size(AXIS) - 1))
    return lax.dynamic_slice_in_dim(array, first, size, axis)
