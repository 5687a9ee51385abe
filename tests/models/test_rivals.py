"""What holds for every rival: it trains by the same step and answers by the same segmenter."""

import math
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from tiny import abstract, frames, shapes, tiny, variables
from work import needed, xla

from ica_unet_jax.benchmarking import products, traced_products, work
from ica_unet_jax.config import Config
from ica_unet_jax.data.augmentation import Batch, crop_centre
from ica_unet_jax.inference.segmenters import segmenter_of
from ica_unet_jax.models.baselines.msu_net import MsuNet
from ica_unet_jax.models.networks import build_model, make_loss, method
from ica_unet_jax.models.registry import NETWORKS
from ica_unet_jax.training import stepping

RIVALS = {
    "unet3d": dict(width_multiplier=0.07),
    "ensemble_unet": dict(width_multiplier=0.1),
    "msu_net": dict(width_multiplier=0.125, span=3),
    "grid_net": dict(width_multiplier=0.125),
    "omega_net": dict(width_multiplier=0.125),
}
# The fewest resolutions with a layer of every kind: gradients of whole networks take long to compile.
SHALLOW = {
    "unet3d": {},
    "ensemble_unet": dict(STAGES=3),
    "msu_net": dict(STAGES=2, SCALES=(2,)),
    "grid_net": dict(WIDTHS=(32, 64)),
    "omega_net": dict(COARSE=(16, 32), FINE=(32, 64)),
}
LAYERS = set(traced_products.COUNTS) - {MsuNet, nn.Dense}
CROP = (2, 32, 32)


def make(name, **changes):
    return Config.make(model=name, crop=CROP, devices=1, **RIVALS[name] | changes)


def heart(config, batch=2):
    """A bright ring round a bright disc beside a grey one, on the loader's canvas: its labels can be read off it."""
    d, h, w = config.crop
    rows, columns = (np.arange(int(1.25 * n)) - 0.625 * n + 0.5 for n in (h, w))
    radius = np.hypot(rows[:, None], columns[None]) / h
    labels = np.where(radius < 0.12, 3, np.where(radius < 0.2, 2, 0))
    labels[(labels == 0) & (np.hypot(rows[:, None], columns[None] + 0.3 * w) < 0.12 * h)] = 1
    labels = np.broadcast_to(labels, (batch, d, *labels.shape)).astype(np.uint8)
    image = np.choose(labels, [-1.0, 1.0, 0.0, 2.0]).astype(np.float32)
    stack = np.repeat(image[:, None], 2 * config.reach + 1, axis=1)
    return Batch(jnp.asarray(stack), jnp.asarray(labels), jnp.ones(labels.shape))


def test_every_network_is_tested_here_or_by_itself():
    assert set(NETWORKS) == {"ica_unet", "unet2d", *RIVALS}


HEAVY = pytest.param("ensemble_unet", marks=pytest.mark.slow)  # of a 2D and a 3D U-Net, which the others show apart


@pytest.mark.parametrize("name", [HEAVY if name == "ensemble_unet" else name for name in RIVALS])
def test_learns_a_heart_with_one_trace_and_all_its_parameters(name, monkeypatch):
    for constant, few in SHALLOW[name].items():
        monkeypatch.setattr(sys.modules[method(name).network.__module__], constant, few)
    traces = []
    monkeypatch.setattr(stepping, "augment", lambda key, batch, crop, data: traces.append(1) or crop_centre(batch, crop))
    config = make(name, steps=12, batch_size=2, learning_rate=3e-3, weight_decay=0.0, schedule="constant", warmup_steps=0)
    step, state, batch = stepping.make_step(config), stepping.init_state(config), heart(config.model)
    before, losses = jax.tree.map(np.array, state.params), []
    for _ in range(12):
        state, terms = step(state, batch)
        losses.append(float(terms["loss"]))
        assert all(np.isfinite(float(value)) for value in terms.values())
    assert len(traces) == 1
    assert np.mean(losses[-3:]) < 0.9 * losses[0]
    for (path, new), old in zip(jax.tree_util.tree_leaves_with_path(state.params), jax.tree.leaves(before), strict=True):
        assert np.any(new != old), jax.tree_util.keystr(path)


@pytest.mark.slow
@pytest.mark.parametrize("name", RIVALS)
def test_every_parameter_hears_of_the_loss_at_full_depth(name):
    config = make(name)
    values, batch = variables(config.model), heart(config.model)
    centre = crop_centre(batch, CROP)
    *window, valid = centre.parts(config.model.reach)

    def value(params):
        (logits, aux), _ = build_model(config.model).apply(
            values | {"params": params}, *window, valid, True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)}
        )
        return make_loss(config)(logits, aux, centre.labels, window[1], valid, config.loss)[0]

    for path, gradient in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(value))(values["params"])):
        assert np.all(np.isfinite(gradient)), jax.tree_util.keystr(path)
        assert np.any(gradient != 0), jax.tree_util.keystr(path)


@pytest.mark.parametrize("name", RIVALS)
def test_segments_native_frames(name):
    config = make(name)
    segmenter = segmenter_of(config, {"batch_stats": {}} | variables(config.model))
    cine = np.random.default_rng(0).gamma(2, 100, (4, 3, 40, 50))
    labels = segmenter.segment_cine(cine, (10.0, 1.7, 1.4))
    assert labels.shape == cine.shape and labels.dtype == np.uint8
    assert set(np.unique(labels)) > {0}


@pytest.mark.parametrize("name", [name if name in ("unet3d", "msu_net") else pytest.param(name, marks=pytest.mark.slow) for name in RIVALS])
def test_padded_voxels_reach_no_real_one_as_values(name):
    """What stands where the mask is 0 changes nothing; the other networks that see one frame begin as the 3D U-Net does."""
    config = tiny(model=name, crop=CROP, **RIVALS[name])
    apply, values = jax.jit(build_model(config).apply), variables(config)
    *window, valid = frames(config)
    valid = valid.at[:, :, :8].set(0)
    one = apply(values, *window, valid)[0][-1]
    other = apply(values, *(jnp.where(valid > 0, x, 9.0) for x in window), valid)[0][-1]
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", RIVALS)
def test_activations_have_the_declared_type(name):
    config = tiny(model=name, crop=CROP, compute_dtype="bfloat16", **RIVALS[name])
    model, inputs = build_model(config), frames(config)
    outputs, _ = jax.eval_shape(model.apply, shapes(config), *inputs)
    assert all(y.dtype == jnp.float32 for y in outputs)
    seen = []

    def record(call, arguments, keywords, context):
        y = call(*arguments, **keywords)
        if type(context.module) in LAYERS and context.method_name == "__call__":
            seen.extend(leaf.dtype for leaf in jax.tree.leaves(y))
        return y

    with nn.intercept_methods(record):
        jax.eval_shape(lambda v, *x: model.apply(v, *x), shapes(config), *inputs)
    assert seen and set(seen) == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize("name", RIVALS)
def test_twice_as_wide_is_four_times_the_work(name):
    narrow, wide = (tiny(model=name, crop=CROP, width_multiplier=width) for width in (0.5, 1.0))
    assert 3 < work.parameters(wide) / work.parameters(narrow) < 4.1
    assert 2.5 < work.total(work.triple(wide)).flops / work.total(work.triple(narrow)).flops < 4.1


# --- counting ---


@pytest.mark.parametrize("name", RIVALS)
def test_counts_are_those_of_the_program(name, monkeypatch):
    """Products in the traced network, with the zeros at borders that its lowering multiplies."""
    monkeypatch.setattr(products, "taps", lambda size, kernel, stride=1, dilation=1: size // stride * kernel)
    config = tiny(model=name, crop=(8, 32, 32), **RIVALS[name] | dict(width_multiplier=0.5))
    told = work.total(work.triple(config)).flops // 2
    finest = needed(lambda values, *inputs: build_model(config).apply(values, *inputs)[0][-1], shapes(config), *abstract(config))
    # Beside the layers stand the resamplings of GridNet, and MSU-Net's search for a rotation.
    assert told == finest if name in ("unet3d", "ensemble_unet") else told <= finest < 1.1 * told


@pytest.mark.parametrize("depth, strides", [(1, (1, 1)), (3, (1, 2)), (3, (2, 2))])
def test_a_convolution_in_space_costs_what_xla_says(depth, strides):
    x, kernel = jnp.zeros((2, 4, 8, 12, 3)), jnp.zeros((depth, 3, 3, 3, 5))
    pads, steps = [(depth // 2,) * 2, (1, 1), (1, 1)], (strides[0], strides[1], strides[1])

    def forward(x, kernel):
        return lax.conv_general_dilated(x, kernel, steps, pads, dimension_numbers=("NDHWC", "DHWIO", "NDHWC"))

    assert xla(forward, x, kernel) == 2 * traced_products.convolution(x.shape, 5, depth, 3, strides).products


def test_no_gradient_towards_the_frame():
    assert traced_products.convolution((1, 2, 8, 8, 1), 4, 1, 3, (1, 1)).gradients == 1
    assert traced_products.convolution((1, 2, 8, 8, 2), 4, 1, 3, (1, 1)).gradients == 2


def test_auxiliary_outputs_are_work_in_training_alone():
    config = tiny(model="unet3d", crop=(2, 32, 32), width_multiplier=0.25)
    inference, trained = (traced_products.layers(config, training) for training in (False, True))
    assert len(trained) - len(inference) == len(shapes_of_outputs(config)) - 1
    rest = sum(p.products for p in trained) - sum(p.products for p in inference)
    assert rest == sum(math.prod(shape) * config.channels(32 * 2**level) for level, shape in zip((1,), shapes_of_outputs(config)[:-1], strict=True))


def shapes_of_outputs(config):
    return [y.shape for y in jax.eval_shape(build_model(config).apply, shapes(config), *frames(config))[0]]
