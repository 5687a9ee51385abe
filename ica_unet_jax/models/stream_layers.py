"""The layers of one coefficient stream, channels first: (channels, batch, depth, height, width).

A stream has few channels. Pixels are innermost, so that a processor's vector units are filled by the rows of a plane and
patches are copies of rows; `layers`, for the many channels of encoder and decoder, has the channels innermost. Written for
one stream and its kernel; under `vmap` over both XLA would make a grouped convolution, whose gradient it computes many
times slower on CPUs, so the convolution is written out.
"""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ica_unet_jax.models.layers import Dtype, he_normal

Stream = Float[Array, "_channels _batch _depth _height _width"]  # underscores: sizes may differ within a call
Pads = tuple[int, int]  # zeros before and after, in rows and columns alike


def convolve(x: Stream, kernel: Float[Array, "k k cin cout"], stride: int = 1) -> Stream:
    """In-plane convolution with zero padding, `k` odd; height and width are divided by the stride, 1 or 2."""
    size, pad = kernel.shape[0], kernel.shape[0] // 2
    if size == 1 and stride == 1:
        return _product(kernel[0, 0], x)
    if stride == 1:
        return _convolve(x, kernel, (pad, pad))
    # Stride 2 is stride 1 on 2x2 pixels as channels, with a kernel of blocks of 2x2, zero where it did not reach.
    front = pad % 2
    kernel = jnp.pad(kernel, ((front, 1 - front),) * 2 + ((0, 0),) * 2)
    blocks, _, cin, cout = (kernel.shape[0] // 2, *kernel.shape[1:])
    kernel = kernel.reshape(blocks, 2, blocks, 2, cin, cout).transpose(0, 2, 1, 3, 4, 5).reshape(blocks, blocks, 4 * cin, cout)
    before = (pad + front) // 2
    return _convolve(pixels_to_channels(x), kernel, (before, blocks - 1 - before))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(x: jax.Array, kernel: jax.Array, pads: Pads) -> jax.Array:
    """Stride 1, as a matrix product with the patches of all pixels.

    Its gradient towards `x` is written as one too. That of the patches would be a sum of padded volumes, which XLA computes
    anew for everything that reads it.
    """
    size, _, cin, cout = kernel.shape
    return _product(kernel.reshape(size * size * cin, cout), _patches(x, size, pads))


def _forward(x: jax.Array, kernel: jax.Array, pads: Pads) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _convolve(x, kernel, pads), (x, kernel)


def _backward(pads: Pads, kept: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    dx = _convolve(dy, kernel[::-1, ::-1].transpose(0, 1, 3, 2), pads[::-1])
    dkernel = jnp.einsum("kbdhw,obdhw->ko", _patches(x, kernel.shape[0], pads), dy, preferred_element_type=jnp.float32)
    return dx, dkernel.reshape(kernel.shape).astype(kernel.dtype)


_convolve.defvjp(_forward, _backward)


def _product(kernel: jax.Array, x: jax.Array) -> jax.Array:
    """Every pixel's channels times a matrix, (cin, cout)."""
    y = lax.dot_general(kernel, x, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)
    return y.astype(x.dtype)


def _patches(x: jax.Array, size: int, pads: Pads) -> jax.Array:
    """(c, b, d, h, w) -> (size * size * c, b, d, h, w), in the order of a kernel's rows."""
    h, w = x.shape[-2:]
    x = jnp.pad(x, ((0, 0),) * 3 + (pads,) * 2)
    return jnp.concatenate([x[..., i : i + h, j : j + w] for i in range(size) for j in range(size)])


def pixels_to_channels(x: Stream) -> Stream:
    """2x2 pixels of a plane become channels: (c, b, d, h, w) -> (4c, b, d, h/2, w/2)."""
    c, b, d, h, w = x.shape
    x = x.reshape(c, b, d, h // 2, 2, w // 2, 2).transpose(4, 6, 0, 1, 2, 3, 5)
    return x.reshape(4 * c, b, d, h // 2, w // 2)


def channels_to_pixels(x: Stream) -> Stream:
    """The inverse of `pixels_to_channels`: (4c, b, d, h, w) -> (c, b, d, 2h, 2w)."""
    c, b, d, h, w = x.shape
    x = x.reshape(2, 2, c // 4, b, d, h, w).transpose(2, 3, 4, 5, 0, 6, 1)
    return x.reshape(c // 4, b, d, 2 * h, 2 * w)


def _convolve_dense(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    c, b, d, h, w = x.shape
    pads = (kernel.shape[0] // 2,) * 2
    numbers = ("CNHW", "HWIO", "CNHW")
    y = lax.conv_general_dilated(x.reshape(c, b * d, h, w), kernel, (stride,) * 2, (pads, pads), dimension_numbers=numbers)
    return y.reshape(y.shape[0], b, d, *y.shape[2:])


class Conv(nn.Module):
    """In-plane convolution; see `convolve`. `dense`: of one stream of many channels, the control."""

    features: int
    kernel_size: int = 3
    stride: int = 1
    dense: bool = False
    dtype: Dtype = jnp.float32
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Stream) -> Stream:
        size = self.kernel_size
        kernel = self.param("kernel", he_normal, (size, size, x.shape[0], self.features)).astype(self.dtype)
        x = x.astype(self.dtype)
        y = _convolve_dense(x, kernel, self.stride) if self.dense else convolve(x, kernel, self.stride)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
            y = y + bias.reshape(self.features, 1, 1, 1, 1)
        return y


class Upsample(nn.Module):
    """Transposed convolution with kernel and stride (1, 2, 2): the paper's U_k before norm and activation.

    Kernel equal to stride means that no two stamps overlap: one matrix product, then pixels to their places.
    """

    features: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Stream) -> Stream:
        kernel = self.param("kernel", he_normal, (x.shape[0], 2 * 2 * self.features)).astype(self.dtype)
        return channels_to_pixels(_product(kernel, x.astype(self.dtype)))
