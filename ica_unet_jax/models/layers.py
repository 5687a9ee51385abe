"""Convolution, norm and activation, written for one coefficient stream.

Volumes are channels-last, (batch, depth, height, width, channels). Every convolution is in-plane, kernel
(1, k, k), so the depth is folded into the batch and the convolution is two-dimensional.
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

Volume = Float[Array, "_batch _depth _height _width _channels"]  # underscores: sizes may differ within a call
Dtype = Any

leaky_relu = functools.partial(nn.leaky_relu, negative_slope=0.01)
he_normal = nn.initializers.he_normal()


def convolve(x: Volume, kernel: Float[Array, "k l cin cout"], stride: int = 1, dilation: int = 1, *, stream: bool = False) -> Volume:
    """In-plane convolution with zero padding; height and width are divided by the stride.

    `stream`: of one of many streams with kernels of their own. Under `vmap` over kernels a convolution becomes a grouped
    one, whose gradient XLA computes many times slower on CPUs, so it is written out, see `_convolve_stream`.
    """
    b, d, h, w, c = x.shape
    size = kernel.shape[0]
    x = x.reshape(b * d, h, w, c)
    if stream:
        y = _convolve_stream(x, kernel, stride, dilation)
    else:
        pads = (dilation * (size // 2),) * 2
        y = lax.conv_general_dilated(
            x, kernel, (stride, stride), (pads, pads), rhs_dilation=(dilation, dilation), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    return y.reshape(b, d, *y.shape[1:])


def _convolve_stream(x: jax.Array, kernel: jax.Array, stride: int, dilation: int) -> jax.Array:
    """(n, h, w, cin) -> (n, h/stride, w/stride, cout), as patches @ kernel or, on CPUs where few channels meet, plane by plane.

    A product of a patch with few columns leaves most of a CPU's vector unit idle, and making patches costs more than
    multiplying them: multiply-adds of whole planes, whose innermost dimension is a row of pixels, take a third of the time.
    """
    size, _, cin, cout = kernel.shape
    if size == 1 or stride > 1 or dilation > 1 or cin * cout > FEW_CHANNELS:
        return _by_patches(x, kernel, stride, dilation)
    return _by_planes(x, kernel)


FEW_CHANNELS = 128  # products of an input with an output channel; measured, see `benchmark`


def _by_patches(x: jax.Array, kernel: jax.Array, stride: int = 1, dilation: int = 1) -> jax.Array:
    size = kernel.shape[0]
    return _patches(x, size, stride, dilation) @ kernel.reshape(size * size * x.shape[-1], -1)


@jax.custom_vjp
def _by_planes(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.platform_dependent(x, kernel, cpu=_planes, default=_by_patches)


def _planes(x: jax.Array, kernel: jax.Array) -> jax.Array:
    n, h, w, _ = x.shape
    size, _, cin, cout = kernel.shape
    pad = (size // 2,) * 2
    x = jnp.pad(x.transpose(3, 0, 1, 2), ((0, 0), (0, 0), pad, pad))
    y = jnp.zeros((cout, n, h, w), jnp.float32)
    for i in range(size):
        for j in range(size):
            for c in range(cin):
                plane = lax.slice(x[c], (0, i, j), (n, i + h, j + w))
                y = y + (plane[None] * kernel[i, j, c].reshape(cout, 1, 1, 1)).astype(jnp.float32)
    return y.astype(x.dtype).transpose(1, 2, 3, 0)


def _by_planes_forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _by_planes(x, kernel), (x, kernel)


def _by_planes_backward(kept: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    size, cout = kernel.shape[0], dy.shape[-1]
    dx = _by_planes(dy, kernel[::-1, ::-1].transpose(0, 1, 3, 2))
    patches = _patches(x, size, 1, 1)
    dkernel = patches.reshape(-1, patches.shape[-1]).T @ dy.reshape(-1, cout)
    return dx, dkernel.reshape(kernel.shape).astype(kernel.dtype)


_by_planes.defvjp(_by_planes_forward, _by_planes_backward)


def _patches(x: jax.Array, size: int, stride: int, dilation: int) -> jax.Array:
    """(n, h, w, c) -> (n, h/stride, w/stride, size*size*c), in the order of a kernel's rows."""
    n, h, w, c = x.shape
    pads = (dilation * (size // 2),) * 2
    x = jnp.pad(x, ((0, 0), pads, pads, (0, 0)))
    rows, columns = h // stride, w // stride
    offsets = range(0, dilation * size, dilation)
    taps = [
        lax.slice(x, (0, i, j, 0), (n, i + stride * (rows - 1) + 1, j + stride * (columns - 1) + 1, c), (1, stride, stride, 1))
        for i in offsets
        for j in offsets
    ]
    return jnp.concatenate(taps, axis=-1)


class Conv(nn.Module):
    """In-plane convolution with bias; see `convolve`."""

    features: int
    kernel_size: int = 3
    stride: int = 1
    dilation: int = 1
    stream: bool = False
    dtype: Dtype = jnp.float32
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Volume) -> Volume:
        kernel = self.param("kernel", he_normal, (self.kernel_size, self.kernel_size, x.shape[-1], self.features))
        y = convolve(x.astype(self.dtype), kernel.astype(self.dtype), self.stride, self.dilation, stream=self.stream)
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
        return depth_to_space(x.astype(self.dtype) @ kernel)


class Norm(nn.Module):
    """Batch or group norm. Statistics and parameters are float32, the result has `dtype`.

    `axis_name` names a mapped axis over which the statistics are shared (streams with shared weights).
    """

    kind: str = "batch"
    dtype: Dtype = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Volume, train: bool) -> Volume:
        if self.kind == "group":
            groups = next(g for g in (8, 4, 2, 1) if x.shape[-1] % g == 0)
            # Over the plane and the channels of a group, slice by slice: padded slices touch no other.
            b, d = x.shape[:2]
            y = nn.GroupNorm(num_groups=groups, epsilon=1e-6, dtype=self.dtype)(x.reshape(b * d, *x.shape[2:]))
            return y.reshape(x.shape)
        return nn.BatchNorm(
            use_running_average=not train, momentum=0.95, epsilon=1e-5, dtype=self.dtype, axis_name=self.axis_name
        )(x)


class ConvBlock(nn.Module):
    """Convolution, norm, activation: the paper's conv. `conv` and `norm` come with dtype and lowering bound."""

    features: int
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    act: Callable[[jax.Array], jax.Array] = leaky_relu
    kernel_size: int = 3
    stride: int = 1
    dilation: int = 1

    @nn.compact
    def __call__(self, x: Volume, train: bool) -> Volume:
        # The norm subtracts a mean, so a bias before it would be without effect.
        conv = self.conv(self.features, self.kernel_size, self.stride, self.dilation, use_bias=False)
        x = conv(x)
        return self.act(self.norm()(x, train))


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
