"""FlowNet's correlation of the coefficients of neighbouring frames, the temporal input of a concatenation block."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Streams = Float[Array, "streams batch depth height width channels"]


def correlate(current: Streams, neighbour: Streams, radius: int) -> Float[Array, "batch depth height width displacements"]:
    """Mean over streams and channels of current(y, x) * neighbour(y + i, x + j), for all |i|, |j| <= radius.

    Out-of-plane neighbours count as zero. Displacements are ordered row by row, (2 * radius + 1)^2 of them.
    """
    pad = [(0, 0), (0, 0), (0, 0), (radius, radius), (radius, radius), (0, 0)]
    padded = jnp.pad(neighbour, pad)
    _, _, _, height, width, _ = current.shape
    count = current.shape[0] * current.shape[-1]
    products = []
    for i in range(2 * radius + 1):
        rows = lax.slice_in_dim(padded, i, i + height, axis=3)
        for j in range(2 * radius + 1):
            shifted = lax.slice_in_dim(rows, j, j + width, axis=4)
            products.append((current * shifted).sum((0, 5), dtype=jnp.float32) / count)
    return jnp.stack(products, axis=-1).astype(current.dtype)
