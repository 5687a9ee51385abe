"""Convolution, norm and activation.

Volumes are channels-last, (batch, depth, height, width, channels); those of a coefficient stream are not, see
`stream_layers`. Every convolution is in-plane, kernel (1, k, k), so the depth is folded into the batch and the convolution
is two-dimensional.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ica_unet_jax.runtime.compilation import is_plain

Volume = Float[Array, "_batch _depth _height _width _channels"]  # underscores: sizes may differ within a call
Dtype = Any

leaky_relu = functools.partial(nn.leaky_relu, negative_slope=0.01)
he_normal = nn.initializers.he_normal()


def convolve(x: Volume, kernel: Float[Array, "k l cin cout"], stride: int = 1, dilation: int = 1) -> Volume:
    """In-plane convolution with zero padding; height and width are divided by the stride."""
    b, d, h, w, c = x.shape
    size = kernel.shape[0]
    pads = (dilation * (size // 2),) * 2
    x = x.reshape(b * d, h, w, c)
    y = lax.conv_general_dilated(
        x, kernel, (stride, stride), (pads, pads), rhs_dilation=(dilation, dilation), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return y.reshape(b, d, *y.shape[1:])


def transposed(x: jax.Array, kernel: Float[Array, "cin four_cout"], axes: str) -> jax.Array:
    """Transposed convolution of planes with a kernel of 2x2 and that stride; four times as many pixels.

    Args:
      x: with the axes N, C, H, W in the order that `axes` names.
      kernel: its columns are rows, columns and channels of what becomes of a pixel.
    """
    kernel = kernel.reshape(kernel.shape[0], 2, 2, -1)[:, ::-1, ::-1]  # of a convolution of pixels with gaps between them
    return lax.conv_general_dilated(x, kernel, (1, 1), ((1, 1), (1, 1)), lhs_dilation=(2, 2), dimension_numbers=(axes, "IHWO", axes))


class Conv(nn.Module):
    """In-plane convolution with bias; see `convolve`."""

    features: int
    kernel_size: int = 3
    stride: int = 1
    dilation: int = 1
    dtype: Dtype = jnp.float32
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Volume) -> Volume:
        kernel = self.param("kernel", he_normal, (self.kernel_size, self.kernel_size, x.shape[-1], self.features))
        y = convolve(x.astype(self.dtype), kernel.astype(self.dtype), self.stride, self.dilation)
        if self.use_bias:
            y = y + _row(self.param("bias", nn.initializers.zeros, (self.features,)), self.dtype)
        return y


class Upsample(nn.Module):
    """Transposed convolution with kernel and stride (1, 2, 2): the paper's U_k before norm and activation.

    Kernel equal to stride means that no two stamps overlap: one matrix product, then pixels to their places.
    """

    features: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Volume) -> Volume:
        kernel = self.param("kernel", he_normal, (x.shape[-1], 2 * 2 * self.features)).astype(self.dtype)
        if is_plain():
            b, d, h, w, c = x.shape
            y = transposed(x.astype(self.dtype).reshape(b * d, h, w, c), kernel, "NHWC")
            return y.reshape(b, d, *y.shape[1:])
        return depth_to_space(x.astype(self.dtype) @ kernel)


class Upsample3d(nn.Module):
    """Transposed convolution whose kernel has the size of its strides, in depth and in the plane: no two stamps overlap."""

    features: int
    strides: tuple[int, int]
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Volume) -> Volume:
        b, d, h, w, c = x.shape
        z, y = self.strides
        kernel = self.param("kernel", he_normal, (c, z * y * y * self.features)).astype(self.dtype)
        x = (x.astype(self.dtype) @ kernel).reshape(b, d, h, w, z, y, y, self.features)
        return x.transpose(0, 1, 4, 2, 5, 3, 6, 7).reshape(b, z * d, y * h, y * w, self.features)


def coarser(valid: Volume, grid: tuple[int, int, int]) -> Volume:
    """The mask (B, d, h, w, 1) on a coarser grid of slices, rows and columns: a cell is valid where any of its voxels is."""
    b, *sizes, _ = valid.shape
    (d, k), (h, i), (w, j) = ((new, old // new) for new, old in zip(grid, sizes, strict=True))
    if is_plain():
        return lax.reduce_window(valid, -jnp.inf, lax.max, (1, k, i, j, 1), (1, k, i, j, 1), "VALID")
    return valid.reshape(b, d, k, h, i, w, j, 1).max((2, 4, 6))


class Norm(nn.Module):
    """Batch or group norm. Statistics and parameters are float32, the result has `dtype`.

    `axis` is that of the channels; `axis_name` names a mapped axis over which the statistics are shared (streams with
    shared weights). What `valid`, the mask (B, d, h, w, 1) of the model's grid, says is padding counts in no statistics.
    """

    kind: str = "batch"
    dtype: Dtype = jnp.float32
    axis: int = -1
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, valid: Volume | None = None) -> jax.Array:
        if self.kind == "group":
            x = jnp.moveaxis(x, self.axis, -1)
            groups = next(g for g in (8, 4, 2, 1) if x.shape[-1] % g == 0)
            # Over the plane and the channels of a group, slice by slice: padded slices touch no other.
            b, d = x.shape[:2]
            mask = None
            if valid is not None:
                mask = coarser(valid, x.shape[1:4]).reshape(b * d, *x.shape[2:4], 1) > 0
                mask |= ~mask.any((1, 2, 3), keepdims=True)  # a slice of padding alone has its own statistics
                mask = jnp.broadcast_to(mask, (b * d, *x.shape[2:]))
            y = nn.GroupNorm(num_groups=groups, epsilon=1e-6, dtype=self.dtype)(x.reshape(b * d, *x.shape[2:]), mask=mask)
            return jnp.moveaxis(y.reshape(x.shape), -1, self.axis)
        mask = None
        if train and valid is not None:
            channel = self.axis % x.ndim
            mask = jnp.moveaxis(coarser(valid, tuple(n for i, n in enumerate(x.shape) if i != channel)[1:]), -1, channel) > 0
        norm = functools.partial(nn.BatchNorm, axis=self.axis, axis_name=self.axis_name, momentum=0.95, epsilon=1e-5)
        return norm(use_running_average=not train, dtype=self.dtype)(x, mask=mask)


class ConvBlock(nn.Module):
    """Convolution, norm, activation: the paper's conv. `conv` and `norm` come with dtype and layout bound."""

    features: int
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    act: Callable[[jax.Array], jax.Array] = leaky_relu
    kernel_size: int = 3
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array | tuple[jax.Array, ...], train: bool, valid: Volume | None = None) -> jax.Array:
        # The norm subtracts a mean, so a bias before it would be without effect.
        x = self.conv(self.features, self.kernel_size, self.stride, use_bias=False)(x)
        return self.act(self.norm()(x, train, valid))


def space_to_depth(x: Volume) -> Volume:
    """2x2 pixels of a plane become channels: (b, d, h, w, c) -> (b, d, h/2, w/2, 4c); nothing is lost."""
    b, d, h, w, c = x.shape
    x = x.reshape(b, d, h // 2, 2, w // 2, 2, c).transpose(0, 1, 2, 4, 3, 5, 6)
    return x.reshape(b, d, h // 2, w // 2, 4 * c)


def depth_to_space(x: Volume) -> Volume:
    """The inverse of `space_to_depth`: (b, d, h, w, 4c) -> (b, d, 2h, 2w, c)."""
    b, d, h, w, c = x.shape
    x = x.reshape(b, d, h, w, 2, 2, c // 4).transpose(0, 1, 2, 4, 3, 5, 6)
    return x.reshape(b, d, 2 * h, 2 * w, c // 4)


def _row(x: jax.Array, dtype: Dtype) -> jax.Array:
    """A vector of channels, with the rank that a volume has."""
    return x.astype(dtype).reshape(1, 1, 1, 1, -1)
