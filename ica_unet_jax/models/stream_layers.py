"""The layers of one coefficient stream, channels first: (channels, batch, depth, height, width).

A stream has few channels. Pixels are innermost, so that a processor's vector units are filled by the rows of a plane and
patches are copies of rows; `layers`, for the many channels of encoder and decoder, has the channels innermost. Written for
one stream and its kernel. Under `vmap` over both a convolution becomes a grouped one. That is the plain form, for other
runtimes and GPUs; XLA computes its gradient many times slower on CPUs, so there the convolution is written out.
"""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from ica_unet_jax.models.layers import Dtype, he_normal, transposed
from ica_unet_jax.runtime.compilation import apart, is_plain

Stream = Float[Array, "_channels _batch _depth _height _width"]  # underscores: sizes may differ within a call
Pads = tuple[int, int]  # zeros before and after, in rows and columns alike


def convolve(x: Stream, kernel: Float[Array, "k k cin cout"], stride: int = 1) -> Stream:
    """In-plane convolution with zero padding, `k` odd; height and width are divided by the stride, 1 or 2."""
    if is_plain():
        return _convolve_plain(x, kernel, stride)
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
    """Stride 1, as a matrix product: the columns that a kernel reads beside each other become channels, and so do its rows.

    One product gives what each row of the kernel makes of the plane; these are summed, moved by a row each. Patches of
    whole kernels would be three times as much to write and to read.
    """
    return _transform(_columns(x, kernel.shape[0], pads), kernel)


def _transform(columns: jax.Array, kernel: jax.Array) -> jax.Array:
    size, _, cin, cout = kernel.shape
    rows = _product(kernel.transpose(1, 2, 0, 3).reshape(size * cin, size * cout), columns)
    height = rows.shape[3] - size + 1
    parts = rows.reshape(size, cout, *rows.shape[1:])
    return functools.reduce(jnp.add, (parts[i, :, :, :, i : i + height] for i in range(size)))


def _forward(x: jax.Array, kernel: jax.Array, pads: Pads) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _convolve(x, kernel, pads), (x, kernel)


def _backward(pads: Pads, kept: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both gradients are products with the columns of `dy`; that of slices and pads would be a sum of padded volumes."""
    x, kernel = kept
    size, _, cin, cout = kernel.shape
    columns = _columns(dy, size, pads[::-1])
    dx = _transform(columns, kernel[::-1, ::-1].transpose(0, 1, 3, 2))
    rows = _rows(x, size)
    rows, columns = (part.reshape(part.shape[0], -1) for part in (rows, columns))
    dkernel = lax.dot_general(rows, columns, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)
    dkernel = dkernel.reshape(size, cin, size, cout)[:, :, ::-1].transpose(0, 2, 1, 3)
    return dx, dkernel.astype(kernel.dtype)


_convolve.defvjp(_forward, _backward)


def _product(kernel: jax.Array, x: jax.Array) -> jax.Array:
    """Every pixel's channels times a matrix, (cin, cout).

    The pixels are one axis of the product: over several XLA would sum in the kernel's gradient only after a transposition.
    """
    y = lax.dot_general(kernel, x.reshape(x.shape[0], -1), (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)
    return y.reshape(-1, *x.shape[1:]).astype(x.dtype)


@apart(1, 2)
def _columns(x: jax.Array, size: int, pads: Pads) -> jax.Array:
    """(c, b, d, h, w) -> (size * c, b, d, h + size - 1, w): zeros in front and behind, and `size` columns as channels."""
    zero, front = jnp.zeros((), x.dtype), pads[0]
    return lax.concatenate([lax.pad(x, zero, [(0, 0, 0)] * 3 + [(*pads, 0), (front - j, j - front, 0)]) for j in range(size)], 0)


@apart(1)
def _rows(x: jax.Array, size: int) -> jax.Array:
    """(c, b, d, h, w) -> (size * c, b, d, h + size - 1, w): `size` rows as channels, the last in front."""
    zero = jnp.zeros((), x.dtype)
    return lax.concatenate([lax.pad(x, zero, [(0, 0, 0)] * 3 + [(size - 1 - i, i, 0), (0, 0, 0)]) for i in range(size)], 0)


def _for_each(kernel: jax.Array, axis_name: str | None) -> jax.Array:
    """A kernel that the streams share, once for each: XLA would move all of them about for one large product."""
    return kernel if axis_name is None else kernel + 0 * lax.axis_index(axis_name).astype(kernel.dtype)


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


def _convolve_plain(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    c, b, d, h, w = x.shape
    pads = (kernel.shape[0] // 2,) * 2
    numbers = ("CNHW", "HWIO", "CNHW")
    y = lax.conv_general_dilated(x.reshape(c, b * d, h, w), kernel, (stride,) * 2, (pads, pads), dimension_numbers=numbers)
    return y.reshape(y.shape[0], b, d, *y.shape[2:])


class Conv(nn.Module):
    """In-plane convolution; see `convolve`. `dense`: of one stream of many channels, the control.

    Of several parts it is that of their concatenation. Its plain form is the sum of one convolution a part: to interleave the
    channels of two parts of each stream takes a runtime as long as a convolution. `axis_name` is the mapped axis of streams
    that share the kernel.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    dense: bool = False
    dtype: Dtype = jnp.float32
    use_bias: bool = True
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Stream | tuple[Stream, ...]) -> Stream:
        parts = x if isinstance(x, tuple) else (x,)
        size, channels = self.kernel_size, [part.shape[0] for part in parts]
        kernel = self.param("kernel", he_normal, (size, size, sum(channels), self.features)).astype(self.dtype)
        kernel, parts = _for_each(kernel, self.axis_name), [part.astype(self.dtype) for part in parts]
        kernels = jnp.split(kernel, np.cumsum(channels)[:-1], axis=2)
        if self.dense or not is_plain():  # one convolution of all parts
            kernels, parts = [kernel], [jnp.concatenate(parts)] if len(parts) > 1 else parts
        form = _convolve_plain if self.dense else convolve
        y = functools.reduce(jnp.add, (form(part, kernel, self.stride) for part, kernel in zip(parts, kernels, strict=True)))
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
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Stream) -> Stream:
        kernel = self.param("kernel", he_normal, (x.shape[0], 2 * 2 * self.features)).astype(self.dtype)
        x, kernel = x.astype(self.dtype), _for_each(kernel, self.axis_name)
        if is_plain():
            c, b, d, h, w = x.shape
            y = transposed(x.reshape(c, b * d, h, w), kernel, "CNHW")
            return y.reshape(y.shape[0], b, d, *y.shape[2:])
        return channels_to_pixels(convolve(x, kernel[None, None]))
