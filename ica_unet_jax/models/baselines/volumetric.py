"""Layers of the 3D rivals, with PyTorch's conventions of padding and epsilon."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ica_unet_jax.models.layers import Dtype, Volume, coarser, convolve, he_normal, leaky_relu

Strides = tuple[int, int]  # in depth, in the plane


def convolve3d(x: Volume, kernel: Float[Array, "j k l cin cout"], strides: Strides = (1, 1)) -> Volume:
    """Three-dimensional convolution with zero padding; sizes are divided by the strides.

    The slices that a kernel spans become channels of a two-dimensional convolution, which XLA computes faster on CPUs,
    its gradient above all.
    """
    depth, *plane, cin, cout = kernel.shape
    x = jnp.pad(x, ((0, 0), (depth // 2, depth // 2), (0, 0), (0, 0), (0, 0)))
    last = x.shape[1] - depth + 1  # starts of the kernel
    taps = [lax.slice_in_dim(x, i, i + last, strides[0], axis=1) for i in range(depth)]
    x = jnp.concatenate(taps, axis=-1) if depth > 1 else taps[0]
    kernel = kernel.transpose(1, 2, 0, 3, 4).reshape(*plane, depth * cin, cout)
    return convolve(x, kernel, strides[1])


class Conv3d(nn.Module):
    """Convolution with a kernel of `depth` slices and `size` x `size` voxels; see `convolve3d`."""

    features: int
    depth: int = 3
    size: int = 3
    strides: Strides = (1, 1)
    use_bias: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Volume) -> Volume:
        kernel = self.param("kernel", he_normal, (self.depth, self.size, self.size, x.shape[-1], self.features))
        y = convolve3d(x.astype(self.dtype), kernel.astype(self.dtype), self.strides)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            y = y + bias.astype(self.dtype).reshape(1, 1, 1, 1, -1)
        return y


class InstanceNorm(nn.Module):
    """Zero mean and unit variance of each channel of each volume, or of each slice, then its own scale and offset.

    Statistics are float32. What `valid`, the mask (B, d, h, w, 1) of the model's grid, says is padding counts in none;
    without it all does.
    """

    by_slice: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Volume, valid: Volume | None = None) -> Volume:
        axes = (2, 3) if self.by_slice else (1, 2, 3)
        y = x.astype(jnp.float32)
        where = None
        if valid is not None:
            where = coarser(valid, y.shape[1:4]) > 0
            where |= ~where.any(axes, keepdims=True)  # a slice of padding alone has its own statistics: no layer blows it up

        def mean(values: jax.Array) -> jax.Array:
            return values.mean(axes, keepdims=True, where=where)

        y = y - mean(y)
        y = y * lax.rsqrt(mean(jnp.square(y)) + 1e-5)
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        return (y * scale.reshape(1, 1, 1, 1, -1) + bias.reshape(1, 1, 1, 1, -1)).astype(self.dtype)


class ConvNorm(nn.Module):
    """Convolution, instance norm, leaky ReLU."""

    features: int
    depth: int = 3
    strides: Strides = (1, 1)
    by_slice: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Volume, valid: Volume | None = None) -> jax.Array:
        x = Conv3d(self.features, self.depth, strides=self.strides, dtype=self.dtype)(x)
        return leaky_relu(InstanceNorm(self.by_slice, self.dtype)(x, valid))
