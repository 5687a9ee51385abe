"""What `geometry` does in NumPy, compiled: cuts the model's windows out of an image, and puts their logits back.

Same results to round-off. Three things differ in kind, for speed: percentiles come without a sort of the frame, see
`normalization`; resampling gathers the two voxels that an interpolation weighs instead of multiplying by its matrix; and where
the windows lie in the plane is an argument of what is compiled, so that they move for nothing.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int32, UInt8

from ica_unet_jax.data.geometry import OUTSIDE_LOGIT, Placement, front_padding, stack_depth
from ica_unet_jax.inference.normalization import Frame, Limits, normalize
from ica_unet_jax.labels import NUM_CLASSES
from ica_unet_jax.models.averaging import mean_softmax
from ica_unet_jax.models.tables import rows_at
from ica_unet_jax.runtime import compilation

Offset = Int32[Array, "2"]
Views = tuple[tuple[jax.Array, jax.Array], ...]  # what the network is shown: an image and its mask, (1, d, H, W, 1), for each view, or all of the stack
Windows = tuple[jax.Array | np.ndarray, ...]  # a view each: its logits (1, d, H, W, 4)
Values = np.ndarray | jax.Array
Taps = tuple[Values, Values, Values, Values]
_OFFSET = jax.ShapeDtypeStruct((2,), jnp.int32)


class NativeGrid:
    """The way from one native grid to the model's windows and back, each part compiled when it is first asked for.

    One for all offsets of a placement: the offset is an argument, int32 (rows, columns) on the device, as `offset` puts
    it there. A view is a window, or its mirror image: with `mirror` each window is followed by those flipped in
    columns, in rows, and in both. With `whole` the network is shown all slices of a stack at once, one image for all
    windows, whose logits are as otherwise.

    Both directions are tabled once for the canvas, the windows' grid continued over all that they can reach. A window is
    a piece of it, and of the native grid a box is worked on that is just large enough for a window.
    """

    def __init__(self, placement: Placement, *, mirror: bool = False, whole: bool = False):
        self.placement, self.whole = placement.at(0, 0), whole
        flips = [(), (2,), (1,), (1, 2)] if mirror else [()]  # the axes that are reversed
        self.views = [(start, axes) for start in placement.windows for axes in flips]
        self._depth = stack_depth(placement.shape[0], placement.crop[0])
        self._shown = [(0, self._depth, axes) for axes in flips] if self.whole else [(start, placement.crop[0], axes) for start, axes in self.views]
        self._offsets: dict[tuple[int, int], jax.Array] = {}

    def offset(self, placement: Placement) -> Offset:
        """The offset of a placement on this grid, as an argument; put on the device when it is first asked for."""
        if placement.offset not in self._offsets:
            self._offsets[placement.offset] = jax.device_put(np.array(placement.offset, np.int32))
        return self._offsets[placement.offset]

    @functools.cached_property
    def windows(self) -> Callable[[Frame, Offset], Views]:
        """Compiled: a native frame (s, h, w) float32 -> what the network is shown: images, normalized, and their masks (1, d, H, W, 1)."""
        return jax.jit(self.to_windows).lower(jax.ShapeDtypeStruct(self.placement.shape, jnp.float32), _OFFSET).compile()

    @functools.cached_property
    def logits(self) -> Callable[[Windows, Offset], jax.Array]:
        """Compiled: the logits (1, d, H, W, 4) of each view -> their mean on the native grid, (s, h, w, 4) float32.

        With `mirror` a window and its mirror images are averaged as probabilities, of which these are the logarithms.
        As `Placement.backward`: a voxel that no window reaches has `OUTSIDE_LOGIT` for class 0 and 0 else.
        """
        return jax.jit(self.to_logits).lower(self._seen, _OFFSET).compile()

    @functools.cached_property
    def labels(self) -> Callable[[Windows, Offset], jax.Array]:
        """Compiled: the same logits -> the class of the largest on the native grid, (s, h, w) uint8."""
        return jax.jit(self.to_labels).lower(self._seen, _OFFSET).compile()

    @property
    def _seen(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        shape = (1, *self.placement.crop, NUM_CLASSES)
        return (jax.ShapeDtypeStruct(shape, jnp.float32),) * len(self.views)

    def to_windows(self, frame: Frame, offset: Offset, limits: Limits | None = None) -> Views:
        """`windows`, to be traced; of a frame whose percentiles are known, `limits`."""
        rows, columns = (axis.window(o) for axis, o in zip(self._axes, offset, strict=True))
        image = resample(normalize(frame, limits), rows.taps, columns.taps)
        mask = jnp.broadcast_to(jnp.outer(rows.inside, columns.inside).astype(jnp.float32), image.shape)
        slices = image.shape[0]
        if slices < self._depth:
            front = front_padding(slices, self.placement.crop[0])
            image, mask = (jnp.pad(x, ((front, self._depth - slices - front), (0, 0), (0, 0))) for x in (image, mask))
        return tuple(
            tuple(jnp.flip(x[start : start + depth], axes)[None, ..., None] for x in (image, mask))
            for start, depth, axes in self._shown
        )

    def to_logits(self, windows: Windows, offset: Offset) -> Float[Array, "s h w classes"]:
        """`logits`, to be traced."""
        outside = np.array([OUTSIDE_LOGIT] + [0] * (NUM_CLASSES - 1), np.float32)
        logits, inside, corner = self._in_box(windows, offset)
        box = jnp.where(inside[..., None], logits, outside.reshape(1, 1, 1, -1))
        return _paste(jnp.broadcast_to(outside, (*self.placement.shape, NUM_CLASSES)), box, corner)

    def to_labels(self, windows: Windows, offset: Offset) -> UInt8[Array, "s h w"]:
        """`labels`, to be traced."""
        return _paste(jnp.zeros(self.placement.shape, jnp.uint8), *self.to_label_box(windows, offset))

    def to_label_box(self, windows: Windows, offset: Offset) -> tuple[UInt8[Array, "s rows columns"], tuple[jax.Array, ...]]:
        """The same inside the native box that the windows reach into, 0 where they do not, and its corner; to be traced."""
        if compilation.is_for_elsewhere() and len(self.views) == 1:
            planes, inside, corner = self._planes_in_box(windows[0], offset)
        else:
            logits, inside, corner = self._in_box(windows, offset)
            planes = jnp.moveaxis(logits, -1, 0)
        # A chain of comparisons; XLA's argmax over four numbers is no vector code.
        best, label = planes[0], jnp.zeros(planes.shape[1:], jnp.uint8)
        for k in range(1, NUM_CLASSES):
            label = jnp.where(planes[k] > best, jnp.uint8(k), label)
            best = jnp.maximum(best, planes[k])
        return jnp.where(inside, label, jnp.uint8(0)), corner

    def corner(self, placement: Placement) -> tuple[int, int]:
        """Where on the native grid the box of `to_label_box` begins: row and column."""
        row, column = (int(axis.starts[axis.reach + o]) for axis, o in zip(self._axes, placement.offset, strict=True))
        return row, column

    def _in_box(self, windows: Windows, offset: Offset) -> tuple[jax.Array, jax.Array, tuple[jax.Array, ...]]:
        """The averaged logits (s, rows, columns, 4) of a native box, where the windows reach (1, rows, columns), its corner."""
        slices, depth = self.placement.shape[0], self.placement.crop[0]
        front = front_padding(slices, depth)
        total, count = 0.0, np.zeros((slices, 1, 1, 1), np.float32)
        seen: dict[int, list[jax.Array]] = {}
        for (start, axes), logits in zip(self.views, windows, strict=True):
            seen.setdefault(start, []).append(jnp.flip(logits[0, front : front + slices - start], axes))
        for start, images in seen.items():
            part = mean_softmax(images) if len(images) > 1 else images[0]  # a stream's logits need no softmax
            total = total + jnp.pad(part, ((start, slices - start - part.shape[0]), (0, 0), (0, 0), (0, 0)))
            count[start : start + depth] += 1
        rows, columns = (axis.box(o) for axis, o in zip(self._axes, offset, strict=True))
        inside = jnp.outer(rows.inside, columns.inside)[None]
        return resample(total / count, rows.taps, columns.taps), inside, (rows.start, columns.start)

    def _planes_in_box(self, logits: jax.Array, offset: Offset) -> tuple[jax.Array, jax.Array, tuple[jax.Array, ...]]:
        """As `_in_box` of a single window, but (4, s, rows, columns), for other runtimes: rows out of a table, twice, then columns.

        Networks that decode at half the size have 2x2 pixels beside each other in memory: they are told apart by their place in the table.
        """
        slices, (depth, height, width) = self.placement.shape[0], self.placement.crop
        front, half = front_padding(slices, depth), (height // 2, width // 2)
        x = logits.reshape(depth, half[0], 2, half[1], 2, NUM_CLASSES).transpose(0, 1, 2, 4, 5, 3)
        rows, columns = (axis.box(o) for axis, o in zip(self._axes, offset, strict=True))
        # Which of the depth * height/2 * 2 * 2 * 4 rows of width/2 a native row consists of: of its even columns, then of its odd ones.
        outer = np.arange(NUM_CLASSES)[:, None] + np.arange(front, front + slices) * (half[0] * 4 * NUM_CLASSES)
        inner = np.arange(2) * NUM_CLASSES

        def row(where: jax.Array) -> jax.Array:
            block, odd = _halved(where)
            places = outer[:, :, None, None] + (block * (4 * NUM_CLASSES) + odd * (2 * NUM_CLASSES))[None, None, :, None] + inner[None, None, None]
            return rows_at(x, places).reshape(NUM_CLASSES, slices, -1, width)

        first, second, weights, others = rows.taps
        y = row(first) * weights.reshape(1, 1, -1, 1) + row(second) * others.reshape(1, 1, -1, 1)
        first, second, weights, others = columns.taps
        places = (block + odd * half[1] for block, odd in map(_halved, (first, second)))
        one, other = (jnp.take(y, place, axis=3, mode="clip") for place in places)
        return one * weights.reshape(1, 1, 1, -1) + other * others.reshape(1, 1, 1, -1), jnp.outer(rows.inside, columns.inside)[None], (rows.start, columns.start)

    @functools.cached_property
    def _axes(self) -> tuple[_Axis, _Axis]:
        reach = self.placement.reach
        d, height, width = self.placement.crop
        canvas = dataclasses.replace(self.placement, crop=(d, height + 2 * reach[0], width + 2 * reach[1]))
        rows, columns = (
            _Axis(size, most, taps(forward), taps(backward), self._covered(i))
            for i, (size, most, forward, backward) in enumerate(
                zip((height, width), reach, canvas.forward_matrices(), canvas.backward_matrices(), strict=True)
            )
        )
        return rows, columns

    def _covered(self, axis: int) -> np.ndarray:
        """(2 * reach + 1, native size) bool: the native rows (axis 0) or columns (1) that a window at each offset covers."""
        most = self.placement.reach[axis]
        offsets = ((o, 0) if axis == 0 else (0, o) for o in range(-most, most + 1))
        return np.stack([self.placement.at(*offset).lines[axis] for offset in offsets])


class _Piece(NamedTuple):
    """A run of samples along one axis."""

    taps: Taps
    inside: jax.Array  # (n,) bool: inside what is sampled
    start: jax.Array  # index of the first


class _Axis(NamedTuple):
    """One axis of the plane, tabled for all offsets."""

    size: int  # of a window
    reach: int
    forward: Taps  # native -> canvas
    backward: Taps  # canvas -> native
    covered: np.ndarray  # (2 * reach + 1, native size)

    def window(self, offset: jax.Array) -> _Piece:
        """The window's samples of the native axis."""
        start = self.reach + offset
        first, second, weights, others = (lax.dynamic_slice_in_dim(jnp.asarray(x), start, self.size) for x in self.forward)
        return _Piece((first, second, weights, others), weights + others > 0.5, start)  # no weight outside the image

    @property
    def box_size(self) -> int:
        return int(self.covered.sum(axis=1).max())

    @property
    def starts(self) -> np.ndarray:
        """(2 * reach + 1,) int32: where the box begins, for each offset."""
        return np.minimum(self.covered.argmax(axis=1), self.covered.shape[1] - self.box_size).astype(np.int32)

    def box(self, offset: jax.Array) -> _Piece:
        """The native samples of the window: those of a box of one size for all offsets, which holds all that are inside."""
        size = self.box_size
        start = jnp.asarray(self.starts)[self.reach + offset]
        first, second, weights, others = (lax.dynamic_slice_in_dim(jnp.asarray(x), start, size) for x in self.backward)
        inside = lax.dynamic_slice_in_dim(jnp.asarray(self.covered)[self.reach + offset], start, size)
        corner = self.reach + offset  # of the window in the canvas; beyond the border the border's voxel counts
        first, second = (jnp.clip(x - corner, 0, self.size - 1) for x in (first, second))
        return _Piece((first, second, weights, others), inside, start)


def _halved(where: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Half of places that are not negative, and what is left, 0 or 1."""
    half = lax.div(where, jnp.int32(2))
    return half, where - 2 * half


def _paste(frame: jax.Array, box: jax.Array, corner: tuple[jax.Array, ...]) -> jax.Array:
    """`box` (s, rows, columns[, C]) in its place in the native `frame`."""
    zero = jnp.zeros((), jnp.int32)
    return lax.dynamic_update_slice(frame, box, (zero, *corner, zero)[: frame.ndim])


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
