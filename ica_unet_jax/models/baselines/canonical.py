"""The canonical form of a snippet of frames, and what a U-Net does to it (SCNN, AAAI 2019; MSU-Net, MICCAI 2019).

At each site the values of a snippet's frames are x(t) = mean + sum_i a_i S_i(t) + r R: sources S_i of zero mean and unit
variance that all sites share, and a residual R of each site's own. A layer takes the form to the form of its result.
Convolution and batch norm are exact. ReLU and maximum match the first two moments and the covariances with the sources
of max(A, B) for normal A and B (Clark, Operations Research 9, 1961): ours, the paper names no formula.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ica_unet_jax.models.layers import Dtype, Volume, coarser, convolve, depth_to_space, he_normal
from ica_unet_jax.runtime.compilation import apart, once

# Below this variance of a difference the larger of two is certain; no division by a standard deviation of 0.
CERTAIN = 1e-10


class Canonical(NamedTuple):
    """mean (B, d, h, w, c), coefficients a (K, B, d, h, w, c), and the residual's variance r^2 (B, d, h, w, c)."""

    mean: jax.Array
    sources: jax.Array
    residual: jax.Array

    @property
    def variance(self) -> jax.Array:
        return jnp.square(self.sources).sum(0) + self.residual


def read_out(x: Canonical, sources: jax.Array) -> jax.Array:
    """The frames (S, B, d, h, w, c) that the form stands for, by the `sources` (B, K, S); the residual's mean is 0."""
    return x.mean[None] + jnp.einsum("kb...,bks->sb...", x.sources, sources)


def concatenate(a: Canonical, b: Canonical) -> Canonical:
    """The channels of both."""
    return Canonical(*(jnp.concatenate(pair, axis=-1) for pair in zip(a, b, strict=True)))


def maximum(a: Canonical, b: Canonical) -> Canonical:
    """The form of max(A, B), residuals independent. Where the difference is certain it is the larger of the two."""
    difference = a.mean - b.mean
    spread = jnp.square(a.sources - b.sources).sum(0) + a.residual + b.residual
    certain = spread <= CERTAIN
    deviation = jnp.sqrt(jnp.where(certain, 1.0, spread))
    ratio = difference / deviation
    # The chance that A is larger, and what the maximum gains over a choice by the means.
    share = 0.5 * (1 + jnp.where(certain, jnp.sign(difference), jax.lax.erf(ratio / math.sqrt(2))))
    gain = jnp.where(certain, 0.0, deviation * jnp.exp(-0.5 * jnp.square(ratio)) / math.sqrt(2 * math.pi))
    # Both moments about the larger mean: no large numbers cancel.
    centre = jnp.maximum(a.mean, b.mean)
    a_mean, b_mean = a.mean - centre, b.mean - centre
    first = share * a_mean + (1 - share) * b_mean + gain
    second = share * (a.variance + a_mean**2) + (1 - share) * (b.variance + b_mean**2) + (a_mean + b_mean) * gain
    sources = b.sources + (a.sources - b.sources) * share[None]
    residual = jnp.maximum(second - first**2 - jnp.square(sources).sum(0), 0)
    return Canonical(centre + first, sources, residual)


def relu(x: Canonical) -> Canonical:
    """The form of max(X, 0)."""
    return maximum(x, Canonical(*map(jnp.zeros_like, x)))


def max_pool(x: Canonical) -> Canonical:
    """The largest of each 2x2 pixels of a plane: two pairs, then the larger of these."""
    pixels = [Canonical(*parts) for parts in zip(*map(pixels_apart, x), strict=True)]
    return maximum(once(maximum(*pixels[:2])), once(maximum(*pixels[2:])))


@jax.custom_vjp
def pixels_apart(x: Float[Array, "*lead h w c"]) -> tuple[Float[Array, "*lead h/2 w/2 c"], ...]:
    """The four pixels of each 2x2 of a plane, row by row. Slices with strides are slow on CPUs, and their gradients slower."""
    return _split(x)


@apart()
def _split(x: jax.Array) -> tuple[jax.Array, ...]:
    *lead, h, w, c = x.shape
    x, axis = lax.reshape(x, (*lead, h // 2, 2, w // 2, 2, c)), len(lead) + 1
    rows = [lax.index_in_dim(x, i, axis, keepdims=False) for i in (0, 1)]
    return tuple(lax.index_in_dim(row, j, axis + 1, keepdims=False) for row in rows for j in (0, 1))


@apart()
def _join(pixels: tuple[jax.Array, ...]) -> jax.Array:
    *lead, h, w, c = pixels[0].shape
    axis = len(lead) + 1
    pixels = [lax.expand_dims(x, (axis + 1,)) for x in pixels]
    rows = [lax.expand_dims(lax.concatenate(pixels[i : i + 2], axis + 1), (axis,)) for i in (0, 2)]
    return lax.reshape(lax.concatenate(rows, axis), (*lead, 2 * h, 2 * w, c))


pixels_apart.defvjp(lambda x: (_split(x), None), lambda _, gradients: (_join(gradients),))


class CanonicalConv(nn.Module):
    """In-plane convolution: the same weights on the mean and on each source, their squares on the residual's variance."""

    features: int
    kernel_size: int = 3
    use_bias: bool = True
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Canonical) -> Canonical:
        size, cin = self.kernel_size, x.mean.shape[-1]
        kernel = self.param("kernel", he_normal, (size, size, cin, self.features)).astype(self.dtype)
        # Mean and sources as one batch: one convolution, not many small ones.
        linear = once(jnp.concatenate([x.mean[None], x.sources]).astype(self.dtype))
        y = once(convolve(linear.reshape(-1, *x.mean.shape[1:]), kernel))
        mean, *sources = jnp.split(y, len(linear))
        if self.use_bias:
            mean = mean + self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype).reshape(1, 1, 1, 1, -1)
        residual = once(convolve(once(x.residual.astype(self.dtype)), jnp.square(kernel)))
        return Canonical(mean, jnp.stack(sources), residual)


class CanonicalUpsample(nn.Module):
    """Transposed convolution with kernel and stride (1, 2, 2), linear as `CanonicalConv`."""

    features: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Canonical) -> Canonical:
        kernel = self.param("kernel", he_normal, (x.mean.shape[-1], 4 * self.features)).astype(self.dtype)
        mean, sources = (depth_to_space(y.astype(self.dtype) @ kernel) for y in (x.mean, x.sources.reshape(-1, *x.mean.shape[1:])))
        residual = depth_to_space(x.residual.astype(self.dtype) @ jnp.square(kernel))
        return Canonical(mean, sources.reshape(x.sources.shape[0], *mean.shape), residual)


class CanonicalNorm(nn.Module):
    """Batch norm over the frames that the form stands for: affine on the mean, a scale on sources and residual.

    The variance of all frames' values is that of the means plus the mean of the variances. Statistics are float32, and what
    `valid`, the mask (B, d, h, w, 1) of the model's grid, says is padding counts in none.
    """

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Canonical, train: bool, valid: Volume | None = None) -> Canonical:
        channels, axes = x.mean.shape[-1:], (0, 1, 2, 3)
        kept_mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        kept_variance = self.variable("batch_stats", "var", jnp.ones, channels)
        scale = self.param("scale", nn.initializers.ones, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        x = Canonical(*(y.astype(jnp.float32) for y in x))
        mean, variance = kept_mean.value, kept_variance.value
        if train:
            where = None if valid is None else coarser(valid, x.mean.shape[1:4]) > 0
            mean = x.mean.mean(axes, where=where)
            variance = jnp.square(x.mean - _row(mean)).mean(axes, where=where) + x.variance.mean(axes, where=where)
            if not self.is_initializing():
                kept_mean.value = 0.95 * kept_mean.value + 0.05 * mean
                kept_variance.value = 0.95 * kept_variance.value + 0.05 * variance
        factor = scale * jax.lax.rsqrt(variance + 1e-5)
        moved = (x.mean - _row(mean)) * _row(factor) + _row(bias)
        return Canonical(moved, x.sources * _row(factor)[None], x.residual * _row(factor**2))


def _row(x: jax.Array) -> jax.Array:
    return x.reshape(1, 1, 1, 1, -1)
