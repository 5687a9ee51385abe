"""The fast mixing, the obvious one, PyTorch's and a sum written out are one function."""

import itertools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import normal

from ica_unet_jax.models.mixing import mix, mix_plain, mix_with, stamps
from ica_unet_jax.runtime import compilation

# d, K, L of the bases and h', w' of the coefficients.
GRIDS = [(2, 4, 4, 16, 16), (2, 4, 6, 2, 3), (4, 6, 4, 6, 4), (6, 6, 6, 3, 5), (8, 4, 16, 4, 8), (4, 16, 16, 8, 8)]


def draw(d, patch_rows, patch_columns, rows, columns, batch=2, u=3, m=2):
    return normal(0, batch, d // 2, rows, columns, m), normal(1, batch, d, patch_rows, patch_columns, u, m)


def assert_close(actual, expected):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(actual / scale, expected / scale, atol=2e-6)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_fast_is_plain(grid):
    a, x = draw(*grid)
    d, _, _, rows, columns = grid
    cotangent = normal(2, 2, d, 4 * rows, 4 * columns, 3)

    def value_and_gradients(function):
        value, pull_back = jax.vjp(function, a, x)
        return value, *pull_back(cotangent)

    plain = jax.jit(lambda: value_and_gradients(mix_plain))()
    fast = jax.jit(lambda: value_and_gradients(mix))()
    assert fast[0].shape == (2, d, 4 * rows, 4 * columns, 3)
    for actual, expected in zip(fast, plain, strict=True):
        assert_close(actual, expected)


@pytest.mark.parametrize("grid", [*GRIDS, (4, 2, 10, 6, 7), (2, 8, 6, 5, 4), (6, 6, 8, 4, 4)], ids=str)
def test_the_form_for_other_runtimes_is_the_same(grid):
    """With patches of which a block of four rows holds pairs, and with those where it is moved for that."""
    a, x = draw(*grid)
    with compilation.plain():
        found = jax.jit(lambda: mix(a, x)).lower().compile()
    assert_close(found(), jax.jit(lambda: mix_plain(a, x))())


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_equals_a_transposed_convolution_of_pytorch(grid):
    torch = pytest.importorskip("torch")
    a, x = draw(*grid)
    d, patch_rows, patch_columns, _, _ = grid
    for sample in range(2):
        expected = torch.nn.functional.conv_transpose3d(
            torch.tensor(np.moveaxis(a[sample], -1, 0)[None]),
            torch.tensor(np.transpose(x[sample], (4, 3, 0, 1, 2)).copy()),
            stride=(2, 4, 4),
            padding=(d // 2 - 1, patch_rows // 2 - 2, patch_columns // 2 - 2),
        )
        assert_close(mix(a, x)[sample], np.moveaxis(expected.numpy()[0], 0, -1))


def test_every_coefficient_stamps_its_patch():
    d, patch, size, u, m = 4, (6, 8), (3, 2), 2, 2
    rng = np.random.default_rng(0)
    a = rng.integers(-3, 4, (1, d // 2, *size, m))
    x = rng.integers(-3, 4, (1, d, *patch, u, m))
    canvas = np.zeros((40, 40, 40, u))
    for j, i, k, b in np.ndindex(a.shape[1:]):
        canvas[2 * j :, 4 * i :, 4 * k :][:d, : patch[0], : patch[1]] += a[0, j, i, k, b] * x[0, ..., b]
    cut = [slice(margin, margin + length) for margin, length in zip((1, 1, 2), (d, 12, 8), strict=True)]
    expected = canvas[tuple(cut)][None]
    for function in (mix, mix_plain):
        np.testing.assert_array_equal(function(jnp.float32(a), jnp.float32(x)), expected)


def test_two_coefficients_by_hand():
    a = jnp.array([1 / 2, 1 / 3]).reshape(1, 1, 1, 2, 1)
    x = jnp.broadcast_to(jnp.arange(1.0, 9)[:, None, None], (1, 2, 4, 8, 1, 1))  # 1 ... 8 from left to right
    # Column c reads X[c + 2] of the first coefficient and X[c - 2] of the second.
    first = [Fraction(k, 2) for k in (3, 4, 5, 6, 7, 8, 0, 0)]
    second = [Fraction(k, 3) for k in (0, 0, 1, 2, 3, 4, 5, 6)]
    expected = [float(p + q) for p, q in zip(first, second, strict=True)]
    np.testing.assert_allclose(mix(a, x), np.broadcast_to(np.reshape(expected, (8, 1)), (1, 2, 4, 8, 1)), rtol=1e-6)


@pytest.mark.parametrize("d, h, products", [(6, 96, 163), (8, 128, 372), (10, 256, 1885)])
def test_products_per_voxel_with_32_bases(d, h, products):
    ones = mix(jnp.ones((1, d // 2, h // 4, h // 4, 1)), jnp.ones((1, d, h // 16, h // 16, 1, 1)))
    assert round(32 * float(ones.mean())) == products


def test_no_sample_hears_of_another():
    a, x = draw(4, 6, 4, 3, 2)
    together = mix(a, x)
    for sample, (one, bases) in enumerate(zip(a, x, strict=True)):
        assert_close(together[sample], mix(one[None], bases[None])[0])


def test_what_does_not_fit_is_refused():
    good, x = draw(4, 6, 4, 3, 2)
    matrix = stamps(x)
    for axis, size in itertools.product((0, 1, 4), (1, 5)):
        shape = list(good.shape)
        shape[axis] = size
        with pytest.raises(ValueError, match="do not fit"):
            mix_with(jnp.zeros(shape), matrix, x.shape)
    for patch in ((5, 4), (6, 3)):
        with pytest.raises(ValueError, match="do not fit"):
            mix_with(good, matrix, (2, 4, *patch, 3, 2))
