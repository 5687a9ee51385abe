"""Values moved by a table of places: for other runtimes, which take rows out of a table faster than they transpose, cut and join."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def rows_at(x: jax.Array, places: jax.Array | np.ndarray, ahead: int = 0) -> jax.Array:
    """Rows of the innermost axis, `x` (*ahead, .., c) -> (*ahead, *places.shape, c).

    `places` are numbers of rows, counted over all axes between the first `ahead` and the innermost one.
    """
    lead = x.shape[:ahead]
    table = lax.optimization_barrier(x).reshape(*lead, -1, x.shape[-1])  # as a runtime has it in memory
    return jnp.take(table, places.ravel(), axis=ahead, mode="clip").reshape(*lead, *places.shape, x.shape[-1])
