"""Reading an image between its pixels."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def bilinear(image: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """`image` (H, W, c) read at rows, columns (h, w) -> (h, w, c); zero outside."""
    height, width, channels = image.shape
    flat = jnp.pad(image, ((1, 1), (1, 1), (0, 0))).reshape(-1, channels)
    rows = jnp.clip(rows + 1, 0, height + 0.999)
    columns = jnp.clip(columns + 1, 0, width + 0.999)
    top, left = jnp.floor(rows).astype(jnp.int32), jnp.floor(columns).astype(jnp.int32)
    y, x = (rows - top)[..., None], (columns - left)[..., None]
    corner = top * (width + 2) + left

    def at(places: jax.Array) -> jax.Array:  # along one axis at a vector of places: the gather that other runtimes have
        return jnp.take(flat, places.ravel(), axis=0, mode="clip").reshape(*places.shape, channels)

    a, b = at(corner), at(corner + 1)
    c, e = at(corner + width + 2), at(corner + width + 3)
    return (a * (1 - x) + b * x) * (1 - y) + (c * (1 - x) + e * x) * y
