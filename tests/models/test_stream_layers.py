"""The layers of a stream are those with the channels last."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import normal

from ica_unet_jax.models import layers, stream_layers


def first(x):
    """Channels first."""
    return jnp.moveaxis(x, -1, 0)


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, atol=1e-4)


@pytest.mark.parametrize("size, stride", [(1, 1), (3, 1), (3, 2), (5, 1), (5, 2)])
def test_convolve_and_its_gradients_are_those_of_a_convolution(size, stride):
    x, kernel = normal(0, 2, 3, 8, 6, 2), normal(1, size, size, 2, 4)
    cotangent = normal(2, 2, 3, 8 // stride, 6 // stride, 4)
    expected, pull_back = jax.vjp(functools.partial(layers.convolve, stride=stride), x, kernel)
    actual, pull_back_stream = jax.vjp(functools.partial(stream_layers.convolve, stride=stride), first(x), kernel)
    assert_close(actual, first(expected))
    for (dx, dkernel), (dx_stream, dkernel_stream) in [(pull_back(cotangent), pull_back_stream(first(cotangent)))]:
        assert_close(dx_stream, first(dx))
        assert_close(dkernel_stream, dkernel)


def test_streams_in_parallel_are_streams_one_by_one():
    x, kernels = normal(0, 3, 2, 1, 2, 8, 6), normal(1, 3, 3, 3, 2, 4)

    def loss(x, kernel):
        return jnp.square(stream_layers.convolve(x, kernel)).sum()

    together = jax.vmap(jax.value_and_grad(loss, (0, 1)))(x, kernels)
    for i in range(3):
        jax.tree.map(lambda y, z, i=i: assert_close(y[i] / 100, z / 100), together, jax.value_and_grad(loss, (0, 1))(x[i], kernels[i]))


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("options", [dict(), dict(stride=2, use_bias=False), dict(kernel_size=1)], ids=str)
def test_modules_have_the_variables_and_values_of_those_with_channels_last(options, dense):
    x = normal(0, 2, 3, 8, 6, 2)
    last, stream = layers.Conv(4, **options), stream_layers.Conv(4, **options, dense=dense)
    variables = last.init(jax.random.key(0), x)
    variables = jax.tree.map(lambda v: normal(v.size, *v.shape), variables)
    assert jax.tree.map(jnp.shape, stream.init(jax.random.key(0), first(x))) == jax.tree.map(jnp.shape, variables)
    assert_close(stream.apply(variables, first(x)), first(last.apply(variables, x)))


def test_upsample_is_that_with_channels_last():
    x = normal(0, 2, 3, 4, 5, 2)
    variables = layers.Upsample(3).init(jax.random.key(0), x)
    assert_close(stream_layers.Upsample(3).apply(variables, first(x)), first(layers.Upsample(3).apply(variables, x)))


def test_pixels_and_channels_change_places_and_back():
    x = normal(0, 3, 1, 2, 4, 6)
    y = stream_layers.pixels_to_channels(x)
    np.testing.assert_array_equal(y, first(layers.space_to_depth(jnp.moveaxis(x, 0, -1))))
    np.testing.assert_array_equal(stream_layers.channels_to_pixels(y), x)


@pytest.mark.parametrize("kind", ["batch", "group"])
def test_norm_along_the_first_axis(kind):
    x = 3 + 2 * normal(0, 2, 3, 4, 4, 6)
    last, stream = layers.Norm(kind), layers.Norm(kind, axis=0)
    variables = last.init(jax.random.key(0), x, True)
    expected, updates = last.apply(variables, x, True, mutable=["batch_stats"])
    actual, updates_stream = stream.apply(variables, first(x), True, mutable=["batch_stats"])
    assert_close(actual, first(expected))
    jax.tree.map(assert_close, updates_stream, updates)


@pytest.mark.parametrize("dense", [False, True])
def test_results_have_the_dtype_and_parameters_are_float32(dense):
    for module in (stream_layers.Conv(2, dense=dense, dtype="bfloat16"), stream_layers.Upsample(2, "bfloat16")):
        y, variables = jax.eval_shape(lambda m=module: m.init_with_output(jax.random.key(0), normal(0, 2, 1, 2, 4, 4)))
        assert y.dtype == "bfloat16"
        assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
