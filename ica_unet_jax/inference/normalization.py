"""What `geometry.normalize` does in NumPy, traced: a frame between its percentiles, with zero mean and unit variance."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from ica_unet_jax.data.geometry import PERCENTILES
from ica_unet_jax.runtime import compilation

_LANES = 512  # columns of a frame's values while they are counted
_INT_MAX = np.int32(2**31 - 1)

Frame = Float[Array, "s h w"]
Limits = Float[Array, "2"]


def normalize(frame: Frame, limits: Limits | None = None) -> Frame:
    """`geometry.normalize`, traced: clipped to its percentiles, zero mean, unit variance; zeros for a constant frame."""
    low, high = percentiles(frame) if limits is None else limits
    clipped = jnp.clip(frame, low, high)
    centred = clipped - clipped.mean()
    deviation = jnp.sqrt(jnp.mean(centred * centred))
    # A constant frame is left with round-off, which must not be blown up.
    varies = (high > low) & (deviation > 1e-6 * jnp.maximum(jnp.abs(low), jnp.abs(high)))
    return centred * jnp.where(varies, 1 / deviation, 0.0)


def percentiles(frame: Frame) -> tuple[jax.Array, jax.Array]:
    """The two `PERCENTILES` of a frame's values, linearly interpolated as NumPy does, as scalars.

    The values, as integers of the same order, are counted below two thresholds that gain a bit a round. One sum a
    column holds both counts, in its halves: this is vector code, where a sort is not.
    """
    n = frame.size
    places = [percent / 100 * (n - 1) for percent in PERCENTILES]
    if compilation.is_for_elsewhere():
        return _from_sorted_ends(frame.ravel(), places)
    ranks = np.array([math.floor(place) for place in places], np.int32)
    lanes = max(_LANES, math.ceil(n / 65535))  # so that a column's count fits 16 bits
    keys = jnp.pad(_sortable(frame.ravel()), (0, -n % lanes), constant_values=_INT_MAX).reshape(-1, lanes)

    def below(thresholds: jax.Array) -> jax.Array:
        both = (keys < thresholds[0]).astype(jnp.uint32) + ((keys < thresholds[1]).astype(jnp.uint32) << 16)
        columns = both.sum(axis=0, dtype=jnp.uint32)
        return jnp.stack([(columns & 0xFFFF).sum(), (columns >> 16).sum()]).astype(jnp.int32)

    def next_bit(i: jax.Array, found: jax.Array) -> jax.Array:
        candidate = found + (jnp.int32(1) << (31 - i))  # wraps from the smallest number to 0 at the first bit
        return jnp.where(below(candidate) <= ranks, candidate, found)

    # The largest number with at most `rank` values below it is the value of that rank.
    found = lax.fori_loop(0, 32, next_bit, jnp.full(2, -(2**31), jnp.int32))
    result = []
    for value, place, rank in zip(found, places, ranks.tolist(), strict=True):
        above = jnp.where(keys > value, keys, _INT_MAX).min()
        follows = jnp.where((keys <= value).sum(dtype=jnp.int32) > rank + 1, value, above)
        value, follows = _number(value), _number(follows)
        result.append(value + (follows - value) * np.float32(place - rank) if place > rank else value)
    return result[0], result[1]


def _from_sorted_ends(values: Float[Array, " n"], places: list[float]) -> tuple[jax.Array, jax.Array]:
    """The values at two places, one near each end, in the order of size: of the few that are smaller, or larger, sorted."""
    low, high = places
    smallest = -lax.top_k(-values, min(values.size, math.floor(low) + 2))[0]
    largest = lax.top_k(values, values.size - math.floor(high))[0][::-1]
    result = []
    for ends, place in ((smallest, low), (largest, high - (values.size - largest.size))):
        at = math.floor(place)
        between = np.float32(place - at)
        result.append(ends[at] + (ends[at + 1] - ends[at]) * between if between else ends[at])
    return result[0], result[1]


def _sortable(values: Float[Array, " n"]) -> jax.Array:
    """float32 -> int32 of the same order: the bits, those of negative numbers turned round."""
    bits = lax.bitcast_convert_type(values, jnp.int32)
    return jnp.where(bits < 0, bits ^ _INT_MAX, bits)


def _number(key: jax.Array) -> jax.Array:
    """The inverse of `_sortable`."""
    return lax.bitcast_convert_type(jnp.where(key < 0, key ^ _INT_MAX, key), jnp.float32)
