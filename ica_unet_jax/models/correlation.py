"""FlowNet's correlation of the coefficients of neighbouring frames, the temporal input of a concatenation block."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from ica_unet_jax.runtime.compilation import apart, is_for_elsewhere

Streams = Float[Array, "streams channels batch depth height width"]


@jax.named_scope("correlation")
def correlate(current: Streams, neighbour: Streams, radius: int) -> Float[Array, "displacements batch depth height width"]:
    """Mean over streams and channels of current(y, x) * neighbour(y + i, x + j), for all |i|, |j| <= radius.

    Out-of-plane neighbours count as zero. Displacements are ordered row by row, (2 * radius + 1)^2 of them.
    """
    streams, channels, batch, depth, height, width = current.shape
    side, count = 2 * radius + 1, streams * channels
    # A row of the frame against whole rows of the neighbour is a matrix product; of it a band along the diagonal is kept.
    # That is more arithmetic than is needed, but in few products of a size that fills a processor.
    here, there = (x.transpose(2, 3, 4, 5, 0, 1).reshape(batch, depth, height, width, count) for x in (current, neighbour))
    if is_for_elsewhere():
        return (_band_by_tables(here, there, radius) / count).transpose(4, 0, 1, 2, 3).astype(current.dtype)
    products = _products(here, there, radius) / count
    # Entry (x, x + j) of rows of n is entry (x, j) of rows of n + 1.
    products = products.reshape(batch, depth, height, side, width * (width + 2 * radius))
    products = jnp.pad(products, ((0, 0), (0, 0), (0, 0), (0, 0), (0, width)))
    band = products.reshape(batch, depth, height, side, width, width + side)[..., :side]
    return band.transpose(3, 5, 0, 1, 2, 4).reshape(side * side, batch, depth, height, width).astype(current.dtype)


def _products(here: Array, there: Array, radius: int) -> Array:
    """(b, d, h, w, c) twice -> (b, d, h, 2 * radius + 1, w, w + 2 * radius): each pixel against all of the rows around it."""
    return jnp.einsum("bdyxc,bdyinc->bdyixn", here, _rows_around(there, radius), preferred_element_type=jnp.float32)


def _band_by_tables(here: Array, there: Array, radius: int) -> Array:
    """(b, d, h, w, c) twice -> (b, d, h, w, (2 * radius + 1)^2), for other runtimes: all rows around one as one matrix."""
    b, d, h, w, c = here.shape
    side, long = 2 * radius + 1, w + 2 * radius
    padded = jnp.pad(lax.optimization_barrier(there), ((0, 0), (0, 0), (radius, radius), (radius, radius), (0, 0)))
    rows = np.add.outer(np.arange(h), np.arange(side)).ravel()
    around = jnp.take(padded, rows, axis=2).reshape(b, d, h, side * long, c)
    products = jnp.einsum("bdync,bdyxc->bdynx", around, here).reshape(b, d, h, side * long * w)
    i, j = np.divmod(np.arange(side * side), side)
    x = np.arange(w)[:, None]
    return jnp.take(products, (((i * long + x + j) * w) + x).ravel(), axis=3).reshape(b, d, h, w, side * side)


@apart(1)
def _rows_around(x: Array, radius: int) -> Array:
    """(b, d, h, w, c) -> (b, d, h, 2 * radius + 1, w + 2 * radius, c): each row's neighbours, zeros before and behind all."""
    x, zero, both = lax.expand_dims(x, (3,)), jnp.zeros((), x.dtype), (radius, radius, 0)
    still = (0, 0, 0)
    shifted = [lax.pad(x, zero, [still, still, (-i, i, 0), still, both, still]) for i in range(-radius, radius + 1)]
    return lax.concatenate(shifted, 3)
