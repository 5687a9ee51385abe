"""The products that networks are made of: how many FLOPs each takes and how many bytes it moves.

Exact at borders: a tap outside the image or a kernel index outside its patch does not count, even where a lowering multiplies
zeros. Norms, activations, poolings, masks, sums, losses, the optimizer and what `remat` repeats are left out. What is moved are
a product's operands, read once, and its result, written once.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from ica_unet_jax.config import ModelConfig

Grid = tuple[int, int, int]  # slices, rows, columns


class Product(NamedTuple):
    """Two arrays multiplied: multiply-adds, values moved, trainable parameters, operands that need a gradient."""

    products: int
    values: int
    parameters: int = 0
    gradients: int = 2


@functools.cache
def taps(size: int, kernel: int, stride: int = 1, dilation: int = 1) -> int:
    """Pairs (output, tap) of a zero-padded convolution along one axis that meet inside the image."""
    offsets = [dilation * (i - kernel // 2) for i in range(kernel)]
    return sum(0 <= stride * o + offset < size for o in range(size // stride) for offset in offsets)


@functools.cache
def pairs(coefficients: int, stride: int, patch: int) -> int:
    """Pairs (z, j) of the mixing along one axis: 0 <= z - stride * j + (patch - stride) / 2 < patch, z in the frame."""
    starts = [stride * j - (patch - stride) // 2 for j in range(coefficients)]
    return sum(min(start + patch, stride * coefficients) - max(start, 0) for start in starts)


def conv(
    grid: Grid, cin: int, cout: int, kernel: int = 3, stride: int = 1, dilation: int = 1,
    *, depth: tuple[int, int] = (1, 1), extra: int | None = None, copies: int = 1, sets: int = 1,
) -> Product:  # fmt: skip
    """`copies` of a convolution on `grid`, with so many `sets` of weights among them.

    depth: kernel and stride along the slices. `extra` parameters come with a kernel; unless told, a norm's 2 * cout.
    """
    slices, rows, columns = grid
    size = slices * rows * columns
    weights = sets * (depth[0] * kernel * kernel * cin * cout + (2 * cout if extra is None else extra))
    inside = taps(slices, *depth) * taps(rows, kernel, stride, dilation) * taps(columns, kernel, stride, dilation)
    outputs = size // (depth[1] * stride**2)
    return Product(copies * inside * cin * cout, copies * (size * cin + outputs * cout) + weights, weights)


def chain(grid: Grid, cin: int, width: int, count: int, **weights: int) -> list[Product]:
    """`count` convolutions to `width` channels, the first from `cin`."""
    return [conv(grid, width if i else cin, width, **weights) for i in range(count)]


def correlation(config: ModelConfig, grid: Grid, channels: int) -> Product:
    """One neighbour at all displacements; `channels` over all streams."""
    slices, rows, columns = grid
    side = 2 * config.correlation_radius + 1
    products = slices * taps(rows, side) * taps(columns, side) * channels
    values = slices * rows * columns * (2 * channels + side**2)
    return Product(products, values, gradients=1 + config.neighbour_gradients)


def mixing(config: ModelConfig, grid: Grid, u: int) -> Product:
    """A (x) X of u channels, A on `grid`: each coefficient stamps what of its patch lies inside the frame."""
    (slices, rows, columns), (d, h, w) = grid, config.crop
    m, height, width = config.bases, h // 16, w // 16
    a = slices * rows * columns
    inside = pairs(slices, 2, d) * pairs(rows, 4, height) * pairs(columns, 4, width)
    return Product(inside * m * u, a * m + d * height * width * u * m + 2 * 4 * 4 * a * u)
