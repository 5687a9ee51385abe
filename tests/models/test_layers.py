"""Layers against sums written out, and what they must never mix."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate2d
from tiny import normal

from ica_unet_jax.models.baselines.canonical import Canonical, CanonicalNorm
from ica_unet_jax.models.baselines.volumetric import InstanceNorm
from ica_unet_jax.models.layers import Conv, ConvBlock, Norm, Upsample, convolve, space_to_depth


@pytest.mark.parametrize("size, stride, dilation", [(1, 1, 1), (3, 1, 1), (3, 2, 1), (3, 1, 2), (3, 1, 4), (5, 1, 1)])
def test_convolve_is_a_correlation_slice_by_slice(size, stride, dilation):
    x, kernel = normal(0, 2, 3, 8, 6, 2), normal(1, size, size, 2, 3)
    spread = np.zeros((dilation * (size - 1) + 1,) * 2 + (2, 3))
    spread[::dilation, ::dilation] = kernel
    y = convolve(x, kernel, stride, dilation)
    assert y.shape == (2, 3, 8 // stride, 6 // stride, 3)
    for b, d, out in np.ndindex(2, 3, 3):
        expected = sum(correlate2d(x[b, d, ..., i], spread[..., i, out], "same") for i in range(2))
        np.testing.assert_allclose(y[b, d, ..., out], expected[::stride, ::stride], atol=1e-5)


def test_upsample_stamps_2x2_kernels():
    x = normal(0, 2, 3, 4, 5, 2)
    module = Upsample(3)
    params = module.init(jax.random.key(0), x)
    kernel = np.reshape(params["params"]["kernel"], (2, 2, 2, 3))  # channel, row, column, feature
    expected = np.zeros((2, 3, 8, 10, 3))
    for row, column in np.ndindex(4, 5):
        stamp = np.einsum("bdc,crsf->bdrsf", x[:, :, row, column], kernel)
        expected[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] += stamp
    np.testing.assert_allclose(module.apply(params, x), expected, atol=1e-5)


def test_upsample_equals_pytorch():
    torch = pytest.importorskip("torch")
    x = normal(0, 2, 3, 4, 5, 2)
    module = Upsample(3)
    params = module.init(jax.random.key(0), x)
    kernel = np.reshape(params["params"]["kernel"], (2, 2, 2, 3)).transpose(0, 3, 1, 2)[:, :, None].copy()
    y = torch.nn.functional.conv_transpose3d(
        torch.tensor(np.moveaxis(x, -1, 1).copy()), torch.tensor(kernel), stride=(1, 2, 2)
    )
    np.testing.assert_allclose(module.apply(params, x), np.moveaxis(y.numpy(), 1, -1), atol=1e-5)


def test_space_to_depth_keeps_every_pixel():
    x = jnp.arange(16.0).reshape(1, 1, 4, 4, 1)
    y = space_to_depth(x)
    assert y.shape == (1, 1, 2, 2, 4)
    np.testing.assert_array_equal(y[0, 0, 0, 1], [2, 3, 6, 7])
    np.testing.assert_array_equal(np.sort(y.ravel()), np.arange(16))


NORMS = {
    "batch": lambda x, valid: Norm().init_with_output(jax.random.key(0), x, True, valid),
    "group": lambda x, valid: Norm("group").init_with_output(jax.random.key(0), x, True, valid),
    "instance": lambda x, valid: InstanceNorm().init_with_output(jax.random.key(0), x, valid),
    "instance by slice": lambda x, valid: InstanceNorm(by_slice=True).init_with_output(jax.random.key(0), x, valid),
    "stream": lambda x, valid: NORM_OF_STREAM.init_with_output(jax.random.key(0), jnp.moveaxis(x, -1, 0), True, valid),
    "canonical": lambda x, valid: CanonicalNorm().init_with_output(jax.random.key(0), Canonical(x, x[None] / 2, x**2), True, valid),
}
NORM_OF_STREAM = Norm(axis=0)


@pytest.mark.parametrize("name", NORMS)
def test_statistics_of_a_padded_volume_are_those_of_the_volume(name):
    """Padding in depth and in the plane, of any values: what is real comes out as without it."""
    real = 3 + 2 * normal(0, 2, 3, 4, 8, 4)
    valid = jnp.pad(jnp.ones((2, 3, 8, 16, 1)), ((0, 0), (1, 2), (0, 4), (2, 2), (0, 0)))  # twice as fine in the plane
    padded = jnp.pad(real, ((0, 0), (1, 2), (0, 2), (1, 1), (0, 0)), constant_values=50.0)
    (alone, _), (within, _) = NORMS[name](real, None), NORMS[name](padded, valid)
    cut = (slice(None), slice(1, 4), slice(0, 4), slice(1, 9))
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(within), strict=True):
        kept = b[(slice(None),) * (b.ndim - 4 - (name != "stream")) + cut]
        np.testing.assert_allclose(kept, a, atol=2e-5)
    counted, _ = NORMS[name](padded, None)
    assert not np.allclose(jax.tree.leaves(counted)[0], jax.tree.leaves(within)[0], atol=0.1)


@pytest.mark.parametrize("name", ["group", "instance by slice"])
def test_a_slice_of_padding_alone_stays_small(name):
    """Layer after layer it would grow without bounds if it were divided by a variance of nothing."""
    x = normal(0, 1, 2, 8, 8, 4)
    y, _ = NORMS[name](x, jnp.ones((1, 2, 8, 8, 1)).at[:, 1].set(0))
    assert np.abs(y[:, 1]).max() < 10


def test_learned_statistics_leave_padding_out():
    x = normal(0, 2, 2, 8, 8, 3)
    valid = jnp.ones((2, 2, 8, 8, 1)).at[:, 0].set(0)
    variables = Norm().init(jax.random.key(0), x, True, valid)
    _, updates = Norm().apply(variables, x, True, valid, mutable=["batch_stats"])
    learned = updates["batch_stats"]["BatchNorm_0"]
    np.testing.assert_allclose(learned["mean"], 0.05 * x[:, 1].mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(learned["var"], 0.95 + 0.05 * x[:, 1].var((0, 1, 2)), atol=1e-5)


def test_batch_norm_uses_the_batch_in_training_and_what_it_learned_after():
    x, module = 3 + 2 * normal(0, 2, 2, 8, 8, 3), Norm()
    variables = module.init(jax.random.key(0), x, True)
    y, updates = module.apply(variables, x, True, mutable=["batch_stats"])
    np.testing.assert_allclose(y.mean((0, 1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(y.var((0, 1, 2, 3)), 1, atol=1e-4)
    for before, after in zip(jax.tree.leaves(variables["batch_stats"]), jax.tree.leaves(updates), strict=True):
        assert np.all(before != after)
    learned = jax.tree_util.tree_map_with_path(
        lambda path, s: jnp.full_like(s, {"mean": 1, "var": 4}[path[-1].key]), variables["batch_stats"]
    )
    y = module.apply({"params": variables["params"], "batch_stats": learned}, x, False)
    np.testing.assert_allclose(y, (x - 1) / 2, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 6])
def test_group_norm_lets_no_slice_hear_of_another(channels):
    x, module = normal(0, 2, 3, 4, 4, channels), Norm("group")
    variables = module.init(jax.random.key(0), x, True)
    y = module.apply(variables, x, True)
    np.testing.assert_allclose(y.mean((2, 3, 4)), 0, atol=1e-5)
    other = module.apply(variables, x.at[:, 1].multiply(-7), True)
    np.testing.assert_array_equal(other[:, ::2], y[:, ::2])
    assert not np.array_equal(other[:, 1], y[:, 1])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_results_have_the_dtype_and_parameters_are_float32(norm, dtype):
    norm = functools.partial(Norm, kind=norm, dtype=dtype)
    conv = functools.partial(Conv, dtype=dtype)
    for module in (conv(2), Upsample(2, dtype), norm(), ConvBlock(2, conv, norm)):
        arguments = (normal(0, 1, 2, 4, 4, 2), True)[: 1 if isinstance(module, Conv | Upsample) else 2]
        y, variables = jax.eval_shape(lambda m=module, a=arguments: m.init_with_output(jax.random.key(0), *a))
        assert y.dtype == dtype
        assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
