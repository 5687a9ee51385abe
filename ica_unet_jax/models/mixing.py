"""Mixing, the paper's A (x) X: coefficients stamp their basis patches onto the frame's grid.

A transposed convolution whose kernel is X itself, stride (2, 4, 4). It has no weights of its own. For coefficients
(B, d/2, h', w', m) and bases (B, d, K, L, u, m), output voxel z, y, x of channel c is

    sum over j, i, l, b of A[j, i, l, b] * X[z - 2j + d/2 - 1, y - 4i + K/2 - 2, x - 4l + L/2 - 2, c, b]

with X zero outside its patch: the size is exactly (d, 4h', 4w') at every resolution, with the same X.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from ica_unet_jax.models.tables import rows_at
from ica_unet_jax.runtime.compilation import apart, is_for_elsewhere, once

Coefficients = Float[Array, "batch half_depth rows columns m"]
Bases = Float[Array, "batch depth K L u m"]
Mixed = Float[Array, "batch depth height width u"]
Starts = tuple[int, ...]


def mix(coefficients: Coefficients, bases: Bases) -> Mixed:
    """A (x) X, in the fast form: one matrix product a sample.

    Args:
      coefficients: A, (B, d/2, h', w', m).
      bases: X, (B, d, K, L, u, m), K and L even.

    Returns:
      (B, d, 4h', 4w', u).

    Raises:
      ValueError: the two disagree in batch, depth or m, or a patch has an odd side.
    """
    return mix_with(coefficients, stamps(bases), bases.shape)


@jax.named_scope("mixing")
def stamps(bases: Bases) -> Float[Array, "batch taps_depth_m depth_phases_u"]:
    """X rearranged into the matrix that `mix_with` multiplies by; the same for all resolutions of a frame.

    The depth is folded into the channels (rows: coefficient slice j; columns: output slice z), the 4x4 positions within an
    output block into the columns, and what is left in-plane are a few whole blocks, the taps.
    """
    batch, depth, _, _, u, m = bases.shape
    half = depth // 2
    # z - 2j + half - 1 for j = 0 ... half-1 reaches from -half + 1 to depth + half - 2.
    x = jnp.pad(bases, ((0, 0), (half - 1, half - 1), (0, 0), (0, 0), (0, 0), (0, 0)))
    starts = [2 * (half - 1 - j) for j in range(half)]
    if is_for_elsewhere():
        x = jnp.take(x, np.add.outer(starts, np.arange(depth)).ravel(), axis=1).reshape(batch, half, depth, *x.shape[2:])
    else:
        x = jnp.stack([lax.slice_in_dim(x, start, start + depth, axis=1) for start in starts], 1)
    x = _phases(_phases(x, axis=3), axis=5)
    # now (batch, j, z, tap_y, phase_y, tap_x, phase_x, u, m)
    x = x.transpose(0, 3, 5, 1, 8, 2, 4, 6, 7)
    taps = x.shape[1] * x.shape[2]
    if is_for_elsewhere():  # see `_mix_by_tables`
        x = lax.optimization_barrier(x.reshape(*x.shape[:6], 2, 2, 2, 2, u).transpose(0, 1, 2, 3, 4, 5, 6, 8, 7, 9, 10))
    return x.reshape(batch, taps * half * m, depth * 16 * u)


class _Axis(NamedTuple):
    """Rows, or columns, of a mixing as blocks of four.

    Row y of the output reads entry k = y + pad - 4i of the patch that coefficient i stamps. With the blocks' grid moved by
    `pad`, y + pad = 4q + phase, this is k = phase + 4 (q - i): a block reads as few coefficients as there are blocks in a
    patch, the taps i = q - r, and hardly anything is multiplied that lies outside of a patch.
    """

    front: int  # zeros before the patch, so that the blocks' grid lies otherwise
    taps: int
    first: int  # block q of the first row
    cut: int  # rows of that block which lie before the output; even for other runtimes, so that pairs of rows lie in one block
    blocks: int  # that together cover the output

    @classmethod
    def of(cls, patch: int, coefficients: int) -> _Axis:
        pad = patch // 2 - 2
        front = pad % 2 if is_for_elsewhere() else 0
        moved = pad + front
        return cls(front, -(-(patch + front) // 4), moved // 4, moved % 4, coefficients + (moved % 4 > 0))

    def reads(self) -> Starts:
        """For each tap, the coefficient that the first block reads."""
        return tuple(self.first - r for r in range(self.taps))

    def read_by(self) -> Starts:
        """For each tap, the place among the blocks of the one that reads the first coefficient."""
        return tuple(r - self.first for r in range(self.taps))


def _phases(x, axis: int):
    """Splits a patch axis into (tap, phase): entry k = phase + 4 * tap, zero behind the patch, and before it where blocks are moved."""
    patch = x.shape[axis]
    blocks = _Axis.of(patch, 1)
    widths = [(0, 0)] * x.ndim
    widths[axis] = (blocks.front, 4 * blocks.taps - patch - blocks.front)
    return jnp.pad(x, widths).reshape(*x.shape[:axis], blocks.taps, 4, *x.shape[axis + 1 :])


@jax.named_scope("mixing")
def mix_with(coefficients: Coefficients, matrix, shape: tuple[int, ...]) -> Mixed:
    """`mix` with X, of shape `shape`, already rearranged by `stamps`; gives the output slices that this was asked for."""
    batch, half, rows, columns, m = coefficients.shape
    _, depth, patch_rows, patch_columns, u, bases = shape
    if (shape[0], depth, bases) != (batch, 2 * half, m) or patch_rows % 2 or patch_columns % 2:
        raise ValueError(f"coefficients {coefficients.shape} do not fit bases {tuple(shape)}: need (B, d/2, h', w', m) and (B, d, even, even, u, m)")
    down, across = _Axis.of(patch_rows, rows), _Axis.of(patch_columns, columns)
    if is_for_elsewhere():
        return _mix_by_tables(coefficients, matrix, (down, across), u)
    a = coefficients.transpose(0, 2, 3, 1, 4).reshape(batch, rows, columns, half * m)
    y = _gather_and_multiply(a, matrix, (down, across))
    depth = matrix.shape[2] // (16 * u)
    y = y.reshape(batch, down.blocks, across.blocks, depth, 4, 4, u).transpose(0, 3, 1, 4, 2, 5, 6)
    y = y.reshape(batch, depth, 4 * down.blocks, 4 * across.blocks, u)
    return y[:, :, down.cut : down.cut + 4 * rows, across.cut : across.cut + 4 * columns]


def _mix_by_tables(coefficients: Coefficients, matrix: jax.Array, axes: tuple[_Axis, _Axis], u: int) -> Mixed:
    """`mix_with` for other runtimes: what the blocks read comes out of a table, and what they give is moved once.

    Of a block's columns 2x2 pixels lie beside each other, as decoders at half the size read them; see `stamps`.
    """
    batch, half, rows, columns, m = coefficients.shape
    down, across = axes
    reads = [np.add.outer(np.arange(axis.blocks), axis.reads()) for axis in axes]  # (blocks, taps)
    around = [(max(0, -read.min()), max(0, read.max() + 1 - n)) for read, n in zip(reads, (rows, columns), strict=True)]
    table = lax.optimization_barrier(coefficients.transpose(0, 2, 3, 1, 4)).reshape(batch, rows, columns, half * m)
    padded = jnp.pad(table, [(0, 0), *around, (0, 0)])
    first, second = (read + front for read, (front, _) in zip(reads, around, strict=True))
    places = first[:, None, :, None] * padded.shape[2] + second[None, :, None, :]  # (blocks, blocks, taps, taps)
    gathered = rows_at(padded, places, 1).reshape(batch, down.blocks * across.blocks, -1)
    y = jnp.einsum("bpk,bko->bpo", gathered, matrix)
    depth = matrix.shape[2] // (16 * u)
    y = y.reshape(batch, down.blocks, across.blocks, depth, 2, 8 * u).transpose(0, 3, 1, 4, 2, 5)
    y = lax.optimization_barrier(y).reshape(batch, depth, 2 * down.blocks, 2 * across.blocks, 4 * u)
    top, left = down.cut // 2, across.cut // 2
    y = y[:, :, top : top + 2 * rows, left : left + 2 * columns].reshape(batch, depth, 2 * rows, 2 * columns, 2, 2, u)
    return y.transpose(0, 1, 2, 4, 3, 5, 6).reshape(batch, depth, 4 * rows, 4 * columns, u)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _gather_and_multiply(a: jax.Array, matrix: jax.Array, axes: tuple[_Axis, _Axis]) -> jax.Array:
    """(batch, rows, columns, depth_m) and the matrix of `stamps` -> (batch, blocks, blocks, depth_phases_u).

    Its gradient towards `a` gathers and multiplies as well. That of the slices would be a sum of padded volumes, which XLA
    computes anew for everything that reads it.
    """
    down, across = axes
    gathered = _gather(a, (down.reads(), across.reads()), (down.blocks, across.blocks))
    return jnp.einsum("bpk,bko->bpo", _flat(gathered), matrix).reshape(*gathered.shape[:3], -1)


@apart(1, 2)
def _gather(a: jax.Array, starts: tuple[Starts, Starts], size: tuple[int, int]) -> jax.Array:
    """(.., rows, columns, channels) -> (.., *size, taps * channels): `size` of it from each of the starts on, zero outside."""
    zero, still = jnp.zeros((), a.dtype), (0, 0, 0)
    (down, across), (rows, columns) = starts, a.shape[1:3]
    taps = [[still, (-i, i + size[0] - rows, 0), (-j, j + size[1] - columns, 0), still] for i in down for j in across]
    return lax.concatenate([lax.pad(a, zero, tap) for tap in taps], 3)


def _flat(x: jax.Array) -> jax.Array:
    """(batch, rows, columns, channels) -> (batch, pixels, channels)."""
    return x.reshape(x.shape[0], -1, x.shape[-1])


def _forward(a: jax.Array, matrix: jax.Array, axes: tuple[_Axis, _Axis]) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _gather_and_multiply(a, matrix, axes), (a, matrix)


def _backward(axes: tuple[_Axis, _Axis], kept: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    a, matrix = kept
    dy = once(dy)
    down, across = axes
    batch, channels, outputs = a.shape[0], a.shape[3], dy.shape[3]
    transposed = matrix.reshape(batch, -1, channels, outputs).transpose(0, 1, 3, 2).reshape(batch, -1, channels)
    read_by = _gather(dy, (down.read_by(), across.read_by()), a.shape[1:3])
    da = jnp.einsum("bpk,bkc->bpc", _flat(read_by), transposed).reshape(a.shape)
    gathered = _gather(a, (down.reads(), across.reads()), (down.blocks, across.blocks))
    return da, jnp.einsum("bpk,bpo->bko", _flat(gathered), _flat(dy))


_gather_and_multiply.defvjp(_forward, _backward)


def mix_plain(coefficients: Coefficients, bases: Bases) -> Mixed:
    """A (x) X as one reads it: a convolution of A, dilated by the stride, with X as kernel. Slow; the reference.

    Equal to PyTorch's `conv_transpose3d(A, X, stride=(2, 4, 4), padding=(d/2-1, K/2-2, L/2-2))`, sample by sample.
    """
    _, depth, rows, columns, _, _ = bases.shape

    def one(a, x):
        pads = [(k - 1 - p, k - 1 - p) for k, p in ((depth, depth // 2 - 1), (rows, rows // 2 - 2), (columns, columns // 2 - 2))]
        kernel = x[::-1, ::-1, ::-1].transpose(0, 1, 2, 4, 3)  # a transposed convolution correlates with the mirrored kernel
        return lax.conv_general_dilated(a[None], kernel, (1, 1, 1), pads, lhs_dilation=(2, 4, 4), dimension_numbers=("NDHWC", "DHWIO", "NDHWC"))[0]

    return jnp.stack([one(a, x) for a, x in zip(coefficients, bases, strict=True)])
