"""What `geometry` does in NumPy, compiled: a native frame into the model's windows, their logits back, on the device.

Same results to round-off. Two things differ in kind, for speed: percentiles come from a search over the bits of a
number instead of a sort, and resampling gathers the two voxels that an interpolation weighs instead of multiplying
by its matrix.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, UInt8

from ica_unet_jax.config import NUM_CLASSES
from ica_unet_jax.data.geometry import OUTSIDE_LOGIT, PERCENTILES, Placement, front_padding

_LANES = 512  # columns of a frame's values while they are counted
_INT_MAX = np.int32(2**31 - 1)

Frame = Float[Array, "s h w"]
Windows = tuple[jax.Array, ...]  # a view each: images (1, d, H, W, 1) or logits (1, d, H, W, 4)


class NativeGrid:
    """The way from one native grid to the model's windows and back, each part compiled when it is first asked for.

    A view is a window, or its mirror image: with `mirror` each window is followed by one flipped left to right.
    `valid` holds a mask (1, d, H, W, 1) float32 for each view, on the device.
    """

    def __init__(self, placement: Placement, *, mirror: bool = False):
        self.placement = placement
        self.views = [(start, flip) for start in placement.windows for flip in ((False, True) if mirror else (False,))]
        masks = dict(zip(placement.windows, placement.valid, strict=True))
        self.valid = tuple(
            jax.device_put(np.float32(_flip(masks[start], flip)[None, ..., None])) for start, flip in self.views
        )

    @functools.cached_property
    def windows(self) -> Callable[[Frame], Windows]:
        """Compiled: a native frame (s, h, w) float32 -> the images (1, d, H, W, 1) of each view, normalized."""
        return jax.jit(self.to_windows).lower(jax.ShapeDtypeStruct(self.placement.shape, jnp.float32)).compile()

    @functools.cached_property
    def logits(self) -> Callable[[Windows], jax.Array]:
        """Compiled: the logits (1, d, H, W, 4) of each view -> their mean on the native grid, (s, h, w, 4) float32.

        As `Placement.backward`: a voxel that no window reaches has `OUTSIDE_LOGIT` for class 0 and 0 else.
        """
        return jax.jit(self.to_logits).lower(self._seen).compile()

    @functools.cached_property
    def labels(self) -> Callable[[Windows], jax.Array]:
        """Compiled: the same logits -> the class of the largest on the native grid, (s, h, w) uint8."""
        return jax.jit(self.to_labels).lower(self._seen).compile()

    @property
    def _seen(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        shape = (1, *self.placement.crop, NUM_CLASSES)
        return (jax.ShapeDtypeStruct(shape, jnp.float32),) * len(self.views)

    def to_windows(self, frame: Frame) -> Windows:
        """`windows`, to be traced."""
        rows, columns = map(taps, self.placement.forward_matrices())
        image = resample(normalize(frame), rows, columns)
        slices, depth = image.shape[0], self.placement.crop[0]
        if slices < depth:
            front = front_padding(slices, depth)
            image = jnp.pad(image, ((front, depth - slices - front), (0, 0), (0, 0)))
        return tuple(_flip(image[start : start + depth], flip)[None, ..., None] for start, flip in self.views)

    def _to_native(self, windows: Windows) -> Float[Array, "s h w classes"]:
        """The averaged logits, 0 where no window reaches."""
        slices, depth = self.placement.shape[0], self.placement.crop[0]
        front, shown = front_padding(slices, depth), min(slices, depth)
        total, count = 0.0, np.zeros((slices, 1, 1, 1), np.float32)
        for (start, flip), logits in zip(self.views, windows, strict=True):
            part = _flip(logits[0, front : front + shown], flip)
            total = total + jnp.pad(part, ((start, slices - start - shown), (0, 0), (0, 0), (0, 0)))
            count[start : start + shown] += 1
        rows, columns = map(taps, self.placement.backward_matrices())
        return resample(total / count, rows, columns)

    def to_logits(self, windows: Windows) -> Float[Array, "s h w classes"]:
        """`logits`, to be traced."""
        outside = np.array([OUTSIDE_LOGIT] + [0] * (NUM_CLASSES - 1), np.float32).reshape(1, 1, 1, -1)
        return jnp.where(self._inside[..., None], self._to_native(windows), outside)

    def to_labels(self, windows: Windows) -> UInt8[Array, "s h w"]:
        """`labels`, to be traced."""
        logits = self._to_native(windows)
        # A chain of comparisons; XLA's argmax over four numbers is no vector code.
        best, label = logits[..., 0], jnp.zeros(logits.shape[:3], jnp.uint8)
        for k in range(1, NUM_CLASSES):
            label = jnp.where(logits[..., k] > best, jnp.uint8(k), label)
            best = jnp.maximum(best, logits[..., k])
        return jnp.where(self._inside, label, jnp.uint8(0))

    @property
    def _inside(self) -> np.ndarray:
        return self.placement.inside[:1]


def _flip(volume: jax.Array | np.ndarray, flip: bool) -> jax.Array | np.ndarray:
    """(d, H, W[, C]), left to right if asked for."""
    return volume[:, :, ::-1] if flip else volume


def normalize(frame: Frame) -> Frame:
    """`geometry.normalize`, traced: clipped to its percentiles, zero mean, unit variance; zeros for a constant frame."""
    low, high = percentiles(frame)
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


def _sortable(values: Float[Array, " n"]) -> jax.Array:
    """float32 -> int32 of the same order: the bits, those of negative numbers turned round."""
    bits = lax.bitcast_convert_type(values, jnp.int32)
    return jnp.where(bits < 0, bits ^ _INT_MAX, bits)


def _number(key: jax.Array) -> jax.Array:
    """The inverse of `_sortable`."""
    return lax.bitcast_convert_type(jnp.where(key < 0, key ^ _INT_MAX, key), jnp.float32)


Taps = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def taps(matrix: np.ndarray) -> Taps:
    """A matrix of `geometry.interpolation` (new, old) as two columns a row and their weights, each (new,)."""
    new, old = matrix.shape
    rows = np.arange(new)
    first = np.minimum(np.argmax(matrix > 0, axis=1), max(0, old - 2)).astype(np.int32)
    second = np.minimum(first + 1, old - 1)
    return first, second, matrix[rows, first], np.where(second > first, matrix[rows, second], np.float32(0))


def resample(volume: jax.Array, rows: Taps, columns: Taps) -> jax.Array:
    """`geometry.resample`, traced, of a volume (s, h, w) or (s, h, w, C) by the taps of its two matrices."""
    for axis, (first, second, weights, others) in ((1, rows), (2, columns)):
        shape = [-1 if i == axis else 1 for i in range(volume.ndim)]
        volume = jnp.take(volume, first, axis, mode="clip") * weights.reshape(shape) + jnp.take(
            volume, second, axis, mode="clip"
        ) * others.reshape(shape)
    return volume
