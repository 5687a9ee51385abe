"""Mixing, the paper's A (x) X: coefficients stamp their basis patches onto the frame's grid.

A transposed convolution whose kernel is X itself, stride (2, 4, 4). It has no weights of its own. For coefficients
(B, d/2, h', w', m) and bases (B, d, K, L, u, m), output voxel z, y, x of channel c is

    sum over j, i, l, b of A[j, i, l, b] * X[z - 2j + d/2 - 1, y - 4i + K/2 - 2, x - 4l + L/2 - 2, c, b]

with X zero outside its patch: the size is exactly (d, 4h', 4w') at every resolution, with the same X.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Coefficients = Float[Array, "batch half_depth rows columns m"]
Bases = Float[Array, "batch depth K L u m"]
Mixed = Float[Array, "batch depth height width u"]


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


def stamps(bases: Bases) -> Float[Array, "batch taps_depth_m depth_phases_u"]:
    """X rearranged into the matrix that `mix_with` multiplies by; the same for all resolutions of a frame.

    The depth is folded into the channels (rows: coefficient slice j; columns: output slice z), the 4x4 positions
    between coefficients into the columns, and what is left in-plane are a few whole steps, the taps.
    """
    batch, depth, _, _, u, m = bases.shape
    half = depth // 2
    # z - 2j + half - 1 for j = 0 ... half-1 reaches from -half + 1 to depth + half - 2.
    x = jnp.pad(bases, ((0, 0), (half - 1, half - 1), (0, 0), (0, 0), (0, 0), (0, 0)))
    x = jnp.stack([lax.slice_in_dim(x, 2 * (half - 1 - j), 2 * (half - 1 - j) + depth, axis=1) for j in range(half)], 1)
    x = _phases(x, axis=3)
    x = _phases(x, axis=5)
    # now (batch, j, z, tap_y, phase_y, tap_x, phase_x, u, m)
    x = x.transpose(0, 3, 5, 1, 8, 2, 4, 6, 7)
    taps = x.shape[1] * x.shape[2]
    return x.reshape(batch, taps * half * m, depth * 16 * u)


def _taps(patch: int) -> range:
    """Whole steps r between an output block of 4 and the coefficients that reach it."""
    pad = patch // 2 - 2
    # k = phase + pad - 4r lies in [0, patch) for some phase in 0 ... 3.
    return range(-((patch - 1 - pad) // 4), (3 + pad) // 4 + 1)


def _phases(x, axis: int):
    """Splits a patch axis into (tap, phase): entry k = phase + pad - 4 * tap, zero outside the patch."""
    patch = x.shape[axis]
    pad, taps = patch // 2 - 2, _taps(patch)
    front = 4 * taps[-1] - pad
    widths = [(0, 0)] * x.ndim
    widths[axis] = (front, max(0, pad - 4 * taps[0] + 4 - patch))
    x = jnp.pad(x, widths)
    return jnp.stack([lax.slice_in_dim(x, front + pad - 4 * r, front + pad - 4 * r + 4, axis=axis) for r in taps], axis)


def mix_with(coefficients: Coefficients, matrix, shape: tuple[int, ...]) -> Mixed:
    """`mix` with X already rearranged by `stamps`; `shape` is the shape that X had."""
    batch, half, rows, columns, m = coefficients.shape
    _, depth, patch_rows, patch_columns, u, bases = shape
    if (shape[0], depth, bases) != (batch, 2 * half, m) or patch_rows % 2 or patch_columns % 2:
        raise ValueError(f"coefficients {coefficients.shape} do not fit bases {tuple(shape)}: need (B, d/2, h', w', m) and (B, d, even, even, u, m)")
    a = coefficients.transpose(0, 2, 3, 1, 4).reshape(batch, rows, columns, half * m)
    y = _gather_and_multiply(a, matrix, (patch_rows, patch_columns))
    y = y.reshape(batch, rows, columns, depth, 4, 4, u).transpose(0, 3, 1, 4, 2, 5, 6)
    return y.reshape(batch, depth, 4 * rows, 4 * columns, u)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _gather_and_multiply(a: jax.Array, matrix: jax.Array, patch: tuple[int, int]) -> jax.Array:
    """(batch, rows, columns, depth_m) and the matrix of `stamps` -> (batch, rows, columns, depth_phases_u).

    Its gradient towards `a` gathers and multiplies as well. That of the slices would be a sum of padded volumes, which XLA
    computes anew for everything that reads it.
    """
    return jnp.einsum("byxk,bko->byxo", _gather(a, patch), matrix)


def _gather(a: jax.Array, patch: tuple[int, int], sign: int = 1) -> jax.Array:
    """For output block q the values at q + sign * r, r over the taps: (.., channels) -> (.., taps * channels), zero outside."""
    rows, columns = a.shape[1:3]
    taps = [[sign * r for r in _taps(size)] for size in patch]
    (top, bottom), (left, right) = ((-min(r), max(r)) for r in taps)
    a = jnp.pad(a, ((0, 0), (top, bottom), (left, right), (0, 0)))
    return jnp.concatenate([a[:, top + r : top + r + rows, left + c : left + c + columns] for r in taps[0] for c in taps[1]], -1)


def _forward(a: jax.Array, matrix: jax.Array, patch: tuple[int, int]) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _gather_and_multiply(a, matrix, patch), (a, matrix)


def _backward(patch: tuple[int, int], kept: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    a, matrix = kept
    batch, channels, outputs = a.shape[0], a.shape[3], dy.shape[3]
    transposed = matrix.reshape(batch, -1, channels, outputs).transpose(0, 1, 3, 2).reshape(batch, -1, channels)
    da = jnp.einsum("byxk,bkc->byxc", _gather(dy, patch, -1), transposed)
    return da, jnp.einsum("byxk,byxo->bko", _gather(a, patch), dy)


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
