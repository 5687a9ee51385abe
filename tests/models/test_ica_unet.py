"""The network as a function: what depends on what, what is absent when ablated, what must not matter."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import abstract, frames, shapes, tiny, variables

from ica_unet_jax.config import Config
from ica_unet_jax.models.ica import local_windows
from ica_unet_jax.models.networks import build_model

STREAMS = ("independent", "shared", "dense")
BASES_FROM = ("frame", "frame_with_coordinates", "dictionary", "dictionary_and_frame", "fastica")
NEIGHBOURS = ("both", "past", "two_past", "none")


def outputs(config, train=False):
    """The shapes and dtypes that a network returns."""
    model = build_model(config)
    apply = functools.partial(model.apply, train=train, mutable=["batch_stats"])
    return jax.eval_shape(apply, shapes(config), *abstract(config))[0]


def count(config):
    return sum(leaf.size for leaf in jax.tree.leaves(shapes(config)["params"]))


@pytest.fixture(scope="module")
def evaluate():
    """evaluate(config, variables, frames) -> (logits, aux), compiled once per configuration."""

    @functools.cache
    def compiled(config):
        return jax.jit(build_model(config).apply)

    return lambda config, values, inputs: compiled(config)(values, *inputs)


def assert_logits_close(actual, expected, atol=1e-5):
    for y, z in zip(actual, expected, strict=True):
        np.testing.assert_allclose(y, z, atol=atol * max(1, float(np.abs(z).max())))


def test_shapes_of_the_docstring():
    config = Config.make(crop=(10, 192, 192), contracting_blocks=4, bases=32, projection_width=4, stream_width=8).model
    model = build_model(config)
    logits, aux = outputs(config)
    assert [y.shape for y in logits] == [(1, 10, size, size, 4) for size in (24, 48, 96, 192)]
    assert aux["bases"].shape == (1, 10, 12, 12, 4, 32)
    assert aux["coefficients"].shape == (1, 5, 48, 48, 32)
    assert [a.shape for a in aux["mixed"]] == [(1, 5, size, size, 32) for size in (6, 12, 24, 48)]
    assert aux["reconstruction"].shape == (1, 10, 192, 192, 1)
    encode = functools.partial(model.apply, method=model.encode)
    features = jax.eval_shape(encode, shapes(config), *abstract(config)[:2])
    sizes = [(48, 1), (24, 8), (12, 16), (6, 16), (3, 16)]
    assert [a.shape for a in features.pyramid] == [(32, width, 1, 5, size, size) for size, width in sizes]


@pytest.mark.parametrize("streams, neighbours, bases_from", [*itertools.product(STREAMS, NEIGHBOURS, BASES_FROM)])
def test_shapes_of_every_variant(streams, neighbours, bases_from):
    config = tiny(streams=streams, neighbours=neighbours, bases_from=bases_from)
    logits, aux = outputs(config)
    assert [y.shape for y in logits] == [(1, 2, 32, 32, 4), (1, 2, 64, 64, 4)]
    assert aux["bases"].shape == (1, 2, 4, 4, 2, 3)
    assert aux["coefficients"].shape == (1, 1, 16, 16, 3)
    assert aux["reconstruction"].shape == (1, 2, 64, 64, 1)


def test_an_ablated_part_has_no_parameters():
    def names(**changes):
        leaves = jax.tree_util.tree_leaves_with_path(shapes(tiny(**changes)))
        return {"/".join(p.key for p in path) for path, _ in leaves}

    full = names()
    dictionary = {name for name in full if "/dictionary/" in name}
    branch = {name for name in full if "/branch/" in name}
    scale = {name for name in full if "frame_scale" in name}
    assert dictionary and branch and scale
    assert names(bases_from="dictionary") == full - branch - scale
    assert names(bases_from="fastica") == full - branch - scale - dictionary | {"batch_stats/encoder/dictionary/bases"}  # which nothing trains
    assert names(bases_from="frame") == names(bases_from="frame_with_coordinates") == full - dictionary - scale
    lonely = names(neighbours="none")
    assert lonely < full and all("/join" in name for name in full - lonely)
    assert names(correlation_radius=-1) == lonely
    assert names(neighbours="past") == full  # only narrower: the kernel over the correlations halves
    assert count(tiny()) - count(tiny(neighbours="past")) == 2 * 3 * 9  # levels, streams, displacements


def test_parameters_by_hand():
    dictionary = 2 * 4 * 4 * 2 * 3  # d, h/16, w/16, u, m
    whole, without = count(tiny(bases_from="dictionary_and_frame")), count(tiny(bases_from="frame"))
    assert whole - without == dictionary + 1  # and the scale
    assert count(tiny(crop=(4, 96, 64), bases_from="dictionary")) - count(tiny(bases_from="dictionary")) == (
        4 * 6 * 4 * 2 * 3 - dictionary
    )  # nothing else depends on the grid


def test_a_dictionary_of_cosines_starts_with_independent_bases():
    shape = (8, 6, 8, 2, 32)  # d, h/16, w/16, u, m
    for cosines, rank in ((True, 32), (False, 2)):  # alike but for the channels' signs and sizes
        bases = np.asarray(local_windows(jax.random.key(0), shape, cosines)).reshape(-1, 32)
        assert np.linalg.matrix_rank(bases, tol=1e-3 * np.linalg.norm(bases, 2)) == rank
    windows, waves = (np.asarray(local_windows(jax.random.key(0), shape, cosines)) for cosines in (False, True))
    np.testing.assert_allclose(waves[..., 0], windows[..., 0], atol=1e-6)  # the first frequency is 0
    # Within the 2x4x4 voxels that a coefficient stands for, the patterns over the window are a cosine transform: orthogonal.
    inside = (slice(3, 5), slice(1, 5), slice(2, 6), 0)
    patterns = (waves[inside] / windows[inside]).reshape(32, 32)
    gram = patterns.T @ patterns
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-3)


def test_signed_coefficients_carry_a_sign(evaluate):
    signed, rectified = tiny(), tiny(signed_coefficients=False)
    values, inputs = variables(signed), frames(signed)
    for y, z in zip(*(evaluate(config, values, inputs)[1]["mixed"] for config in (signed, rectified)), strict=True):
        assert np.min(y) < -0.1 < 0.1 < np.max(y)
        np.testing.assert_allclose(z, np.where(y > 0, y, 0.01 * y), rtol=1e-6)


@pytest.mark.parametrize("neighbours, used", [("both", (1, 1)), ("past", (1, 0)), ("two_past", (1, 0)), ("none", (0, 0))])
def test_gradients_reach_the_neighbours_that_are_used_and_no_others(neighbours, used):
    config = tiny(neighbours=neighbours, neighbour_gradients=True, contracting_blocks=1)
    *inputs, valid = frames(config)
    apply = functools.partial(build_model(config).apply, variables(config))

    def loss(previous, current, following):
        return sum(jnp.square(y).sum() for y in apply(previous, current, following, valid)[0])

    before, now, after = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*inputs)
    assert np.any(now)
    assert (bool(np.any(before)), bool(np.any(after))) == used


def test_stopped_gradients_of_neighbours_change_no_value(evaluate):
    config, free = tiny(), tiny(neighbour_gradients=True)
    values, inputs = variables(config), frames(config)
    for y, z in zip(evaluate(config, values, inputs)[0], evaluate(free, values, inputs)[0], strict=True):
        np.testing.assert_array_equal(y, z)

    def loss(previous):
        return sum(jnp.square(y).sum() for y in build_model(config).apply(values, previous, *inputs[1:])[0])

    assert not np.any(jax.jit(jax.grad(loss))(inputs[0]))


@pytest.mark.parametrize("changes", [{}, {"bases_from": "frame"}, {"norm": "group"}], ids=str)
def test_padded_slices_change_no_logit(evaluate, changes):
    """Two more slices at each end, noise but not valid: the mixing spans all depth, and must not hear of them."""
    short, long = (tiny(crop=(d, 64, 64), mixing_scale=False, contracting_blocks=1, **changes) for d in (4, 8))
    values = variables(short)
    padding = ((2, 2), *[(0, 0)] * 4)
    longer = jax.tree_util.tree_map_with_path(
        lambda path, p: jnp.pad(p, padding) if "dictionary" in {k.key for k in path} else p, values
    )
    *images, valid = frames(short)
    noise = [image.at[:, 2:6].set(inner) for image, inner in zip(frames(long), images, strict=False)]
    mask = jnp.zeros((1, 8, 64, 64, 1)).at[:, 2:6].set(valid)
    expected = evaluate(short, values, (*images, valid))[0]
    actual = evaluate(long, longer, (*noise, mask))[0]
    assert_logits_close([y[:, 2:6] for y in actual], expected)


def products(jaxpr):
    """Every matrix product and convolution of a jaxpr, inner ones too."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            yield equation
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda p: hasattr(p, "jaxpr")):
            if hasattr(value, "jaxpr") or hasattr(value, "eqns"):
                yield from products(getattr(value, "jaxpr", value))


@pytest.mark.parametrize("streams", STREAMS)
def test_bfloat16_is_forwarded_to_every_layer(streams):
    config = tiny(compute_dtype="bfloat16", streams=streams)
    values = shapes(config)
    assert {leaf.dtype for leaf in jax.tree.leaves(values)} == {jnp.dtype("float32")}
    apply = functools.partial(build_model(config).apply, capture_intermediates=True, mutable=["intermediates"])
    (logits, aux), captured = jax.eval_shape(apply, values, *abstract(config))
    assert {y.dtype for y in (*logits, aux["bases"], aux["reconstruction"])} == {jnp.dtype("float32")}
    modules = captured["intermediates"]
    del modules["__call__"], modules["encoder"]["dictionary"]  # the network itself; a parameter
    assert {leaf.dtype for leaf in jax.tree.leaves(modules)} == {jnp.dtype("bfloat16")}
    # The insides of the lifted blocks are not captured: look at what the compiler is given.
    jaxpr = jax.make_jaxpr(apply)(values, *abstract(config)).jaxpr
    operands = [operand.aval.dtype for equation in products(jaxpr) for operand in equation.invars]
    assert len(operands) > 30 and set(operands) == {jnp.dtype("bfloat16")}


def test_call_is_encode_then_decode(evaluate):
    config = tiny()
    model, values, (*inputs, valid) = build_model(config), variables(config), frames(config)
    encode = jax.jit(functools.partial(model.apply, method=model.encode))
    decode = jax.jit(functools.partial(model.apply, method=model.decode))
    features = [encode(values, frame, valid) for frame in inputs]
    expected, _ = evaluate(config, values, (*inputs, valid))
    before, now, after = features
    assert_logits_close(decode(values, {-1: before, 1: after}, now)[0], expected)
    with pytest.raises(AssertionError):
        assert_logits_close(decode(values, {-1: after, 1: before}, now)[0], expected)


STACKS = [{"decoder_frame": True, "norm": "group"}, {"bases_from": "frame"}, {"bases_from": "dictionary"}, {"mixing": "none", "decoder_frame": True}, {"mixing": "upsampled"}]


@pytest.mark.parametrize("changes", STACKS, ids=str)
def test_a_stack_at_once_is_its_windows_one_by_one(changes):
    """Two windows of four slices that share two; the last is padding."""
    config = tiny(neighbours="past", crop=(4, 64, 64), **changes)
    model, values, starts = build_model(config), variables(config), (0, 2)
    stacks = jax.random.normal(jax.random.key(0), (2, 1, 6, *config.crop[1:], 1))
    valid = jnp.ones_like(stacks[0]).at[:, 5].set(0)
    encode, decode = (jax.jit(functools.partial(model.apply, method=method)) for method in (model.encode, model.decode))
    decode_stack = jax.jit(lambda values, before, now: model.apply(values, {-1: before}, now, starts, method=model.decode_stack))
    found = decode_stack(values, *(encode(values, stack, valid) for stack in stacks))
    for start, logits in zip(starts, found, strict=True):
        before, now = (encode(values, stack[:, start : start + 4], valid[:, start : start + 4]) for stack in stacks)
        assert_logits_close([logits], decode(values, {-1: before}, now)[0][-1:])


def test_two_frames_of_the_past_are_told_apart(evaluate):
    config = tiny(neighbours="two_past")
    previous, current, following, valid = frames(config)
    assert previous.shape[-1] == 2
    values = variables(config)
    model = build_model(config)
    encode = jax.jit(functools.partial(model.apply, method=model.encode))
    older, last, now = (encode(values, frame, valid) for frame in (previous[..., :1], previous[..., 1:], current))
    decode = jax.jit(functools.partial(model.apply, method=model.decode))
    expected, _ = evaluate(config, values, (previous, current, following, valid))
    assert_logits_close(decode(values, {-2: older, -1: last}, now)[0], expected)
    with pytest.raises(AssertionError):
        assert_logits_close(decode(values, {-2: last, -1: older}, now)[0], expected)


def test_remat_changes_neither_variables_nor_gradients():
    results = []
    for remat in (False, True):
        config = tiny(remat=remat, contracting_blocks=1, bases=2, bases_from="dictionary", neighbours="none")
        model, inputs, values = build_model(config), frames(config), variables(config)

        def loss(params, model=model, values=values, inputs=inputs):
            both = {**values, "params": params}
            (logits, aux), _ = model.apply(both, *inputs, True, mutable=["batch_stats"])
            return sum(jnp.square(y).mean() for y in (*logits, aux["reconstruction"]))

        gradient = jax.grad(loss)
        assert ("remat" in str(jax.make_jaxpr(gradient)(values["params"]))) == remat
        results.append((values, jax.jit(gradient)(values["params"])))
    plain, again = results
    jax.tree.map(np.testing.assert_array_equal, again[0], plain[0])
    norm = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(plain[1]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a / norm, b / norm, atol=1e-5), again[1], plain[1])


def test_mixing_scale_divides_by_the_square_root_of_the_products(evaluate):
    config, unscaled = tiny(mixing_scale=True), tiny(mixing_scale=False)
    values, inputs = variables(config), frames(config)
    scaled, plain = (evaluate(c, values, inputs)[1]["reconstruction"] for c in (config, unscaled))
    products = 3 * (2 * 4 * 4) / (2 * 4 * 4)  # m bases of d x h/16 x w/16 values, over the stride's 2 x 4 x 4
    np.testing.assert_allclose(plain, products**0.5 * scaled, atol=1e-5 * jnp.abs(plain).max())
