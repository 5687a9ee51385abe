import contextlib

import jax.numpy as jnp
import numpy as np
import pytest
from tiny import normal

from ica_unet_jax.models.correlation import correlate
from ica_unet_jax.runtime import compilation

SHAPE = 3, 2, 2, 2, 4, 5  # streams, channels, batch, depth, height, width


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("radius", [0, 1, 3])
def test_equals_a_loop(radius, elsewhere):
    current, neighbour = normal(0, *SHAPE), normal(1, *SHAPE)
    side = 2 * radius + 1
    expected = np.zeros((side * side, *SHAPE[2:]))
    for y, x, i, j in np.ndindex(4, 5, side, side):
        row, column = y + i - radius, x + j - radius
        if 0 <= row < 4 and 0 <= column < 5:
            products = current[..., y, x] * neighbour[..., row, column]
            expected[side * i + j, ..., y, x] = products.mean((0, 1))
    with compilation.plain() if elsewhere else contextlib.nullcontext():
        found = correlate(current, neighbour, radius)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_radius_0_is_the_plain_product():
    current, neighbour = normal(0, *SHAPE), normal(1, *SHAPE)
    product = (current * neighbour).mean((0, 1))[None]
    np.testing.assert_allclose(correlate(current, neighbour, 0), product, atol=1e-6)


def test_names_the_displacement_of_what_moved():
    current, neighbour = np.zeros((2, *SHAPE), np.float32)
    current[..., 1, 2], neighbour[..., 2, 1] = 2, 3  # one down, one to the left
    y = correlate(jnp.array(current), jnp.array(neighbour), 1)
    np.testing.assert_array_equal(y[..., 1, 2], np.broadcast_to(6 * np.eye(9)[6][:, None, None], (9, 2, 2)))
    assert np.count_nonzero(y) == 2 * 2


def test_sums_in_float32():
    ones = jnp.ones((600, 1, 1, 1, 1, 1), jnp.bfloat16)  # in bfloat16, 256 + 1 = 256
    y = correlate(ones, ones, 0)
    assert y.dtype == jnp.bfloat16 and y.item() == 1
