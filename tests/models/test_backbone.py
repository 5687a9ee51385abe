"""The lift over the bases: streams in parallel are streams one by one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import normal, tiny

from ica_unet_jax.models.backbone import Backbone, ConcatenationBlock, ContractingBlock, UpsampleBlock, lift
from ica_unet_jax.models.correlation import correlate
from ica_unet_jax.models.layers import ConvBlock, Norm
from ica_unet_jax.models.stream_layers import Conv, Upsample

STREAMS, LEVELS = 3, 2
conv = functools.partial(Conv, dtype=jnp.float32)
norm = functools.partial(Norm, dtype=jnp.float32, axis=0)
block = functools.partial(ConvBlock, conv=conv, norm=norm)

# Block, its fields, the shapes of its arrays for one stream, and which of them each stream has its own of.
BLOCKS = {
    "contract": (ContractingBlock, (4, 1, block), [(2, 2, 1, 8, 8)], (0,)),
    "expand": (UpsampleBlock, (2, 1, True, block, norm, Upsample), [(4, 2, 1, 4, 4), (3, 2, 1, 8, 8)], (0, 0)),
    "join": (ConcatenationBlock, (1, conv, norm, True), [(2, 2, 1, 4, 4), (1, 2, 1, 4, 4), (9, 2, 1, 4, 4)], (0, 0, None)),
}


def assert_close(actual, expected):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), actual, expected)


def fill(shapes):
    """Positive random values for variables, none of them special."""
    return jax.tree.map(lambda s: 0.1 + 0.3 * jnp.abs(normal(s.size, *s.shape)), dict(shapes))


@pytest.mark.parametrize("name", BLOCKS)
def test_lifted_is_looped(name):
    cls, fields, shapes, axes = BLOCKS[name]
    inputs = [normal(i, *([STREAMS] if a == 0 else []), *s) for i, (s, a) in enumerate(zip(shapes, axes, strict=True))]
    lifted, single = lift(cls, "independent", axes)(*fields), cls(*fields)
    counted = jnp.ones((2, 1, 8, 8, 1)).at[1, :, 4:].set(0)  # half of the second sample is padding
    variables = fill(jax.eval_shape(lambda: lifted.init(jax.random.key(0), *inputs, False, counted)))
    apply = functools.partial(jax.jit, static_argnames="train")
    together = apply(lambda v, *x, train: lifted.apply(v, *x, train, counted, mutable=["batch_stats"]))
    alone = apply(lambda v, *x, train: single.apply(v, *x, train, counted, mutable=["batch_stats"]))
    for train in (True, False):
        y = together(variables, *inputs, train=train)
        for i in range(STREAMS):
            mine = [x if a is None else x[i] for x, a in zip(inputs, axes, strict=True)]
            expected = alone(jax.tree.map(lambda v, i=i: v[i], variables), *mine, train=train)
            assert_close(jax.tree.map(lambda v, i=i: v[i], y), expected)


def make(streams, bases=STREAMS):
    return Backbone(tiny(streams=streams, bases=bases))


def pass_through(backbone, coefficients, train=True):
    """The whole path: the pyramid and the joined coefficients."""
    pyramid = backbone.contracting_path(coefficients, train)
    correlations = {k: correlate(pyramid[LEVELS - k], pyramid[LEVELS - k], 1) for k in range(1, LEVELS + 1)}
    return pyramid, backbone.expanding_path(pyramid, correlations, train)


def shapes(streams, bases=STREAMS):
    a = jax.ShapeDtypeStruct((1, 1, 16, 16, bases), jnp.float32)
    init = functools.partial(make(streams, bases).init, method=pass_through)
    return dict(jax.eval_shape(init, jax.random.key(0), a))


@pytest.fixture(scope="module", params=["independent", "shared"])
def backbone(request):
    """Which streams, variables, coefficients, a compiled pass, and what it makes of them."""
    a = normal(0, 2, 1, 16, 16, STREAMS)
    variables = fill(shapes(request.param))
    module = make(request.param)
    run = jax.jit(lambda v, x: module.apply(v, x, method=pass_through, mutable=["batch_stats"]))
    return request.param, variables, a, run, run(variables, a)


def test_the_order_of_the_bases_means_nothing(backbone):
    streams, variables, a, run, ((pyramid, joined), _) = backbone
    order = np.array([2, 0, 1])
    if streams == "independent":
        variables = jax.tree.map(lambda v: v[order], variables)
    (other_pyramid, other_joined), _ = run(variables, a[..., order])
    assert_close(other_pyramid, tuple(x[order] for x in pyramid))
    assert_close(other_joined, [x[..., order] for x in joined])
    assert not np.allclose(joined[-1], joined[-1][..., order], atol=0.01)


def test_statistics_of_shared_streams_are_those_of_all_streams(backbone):
    streams, variables, a, run, (_, updates) = backbone
    other = run(variables, a[..., ::-1])[1]
    if streams == "shared":
        assert_close(other, updates)
    else:
        with pytest.raises(AssertionError):
            assert_close(other, updates)


def test_shared_variables_are_those_of_one_stream_and_independent_ones_have_m_of_each():
    one = jax.tree.map(jnp.shape, shapes("shared", bases=1))
    assert jax.tree.map(jnp.shape, shapes("shared")) == one
    assert jax.tree.map(jnp.shape, shapes("independent")) == jax.tree.map(
        lambda shape: (STREAMS, *shape), one, is_leaf=lambda x: isinstance(x, tuple)
    )


def test_streams_start_different():
    init = functools.partial(make("independent").init, method=Backbone.contracting_path)
    params = jax.jit(lambda key: init(key, jnp.ones((1, 1, 16, 16, STREAMS)), False))(jax.random.key(0))["params"]
    kernels = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params) if path[-1].key == "kernel"]
    assert kernels and all(np.abs(kernel[0] - kernel[1]).min() > 0 for kernel in kernels)


def test_parameters_by_hand():
    p, convs, expanding, displacements = 2, 1, 1, 9
    widths = {2: p, 1: p, 0: 2 * p}  # A_2 itself has one channel

    def norm_conv(cin, cout, size):
        return size * size * cin * cout + 2 * cout

    one = 0
    for k in (2, 1):
        one += norm_conv(1 if k == 2 else widths[k], widths[k - 1], 3)
        one += convs * norm_conv(widths[k - 1], widths[k - 1], 3)
        skip = 1 if k == 2 else widths[k]
        one += norm_conv(widths[k - 1], widths[k], 2) + expanding * norm_conv(widths[k] + skip, widths[k], 3)
        one += widths[k] + skip + displacements + 2  # T_k: A'_k, the skip, correlations, norm
    for streams, count in (("shared", one), ("independent", STREAMS * one)):
        assert sum(leaf.size for leaf in jax.tree.leaves(shapes(streams)["params"])) == count


def test_every_parameter_of_every_stream_takes_part():
    module = make("independent")
    a = normal(0, 1, 1, 16, 16, STREAMS)
    variables = fill(shapes("independent"))

    def loss(params):
        (_, joined), _ = module.apply({**variables, "params": params}, a, method=pass_through, mutable=["batch_stats"])
        return sum(jnp.sum(normal(i, *x.shape) * x) for i, x in enumerate(joined))

    gradients = jax.jit(jax.grad(loss))(variables["params"])
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.all(np.abs(leaf).reshape(STREAMS, -1).max(1) > 0), path
