"""The plain 3D U-Net: planned as nnU-Net plans, equal to MONAI's, and its loss against fractions."""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from tiny import frames, normal, shapes, tiny, variables

from ica_unet_jax.config import LossConfig, ModelConfig
from ica_unet_jax.models.baselines.unet3d import Stage, loss, plan
from ica_unet_jax.models.baselines.volumetric import ConvNorm, InstanceNorm, convolve3d
from ica_unet_jax.models.layers import Upsample3d
from ica_unet_jax.models.networks import build_model

SMALL = dict(model="unet3d", width_multiplier=0.125)


@pytest.mark.parametrize("depth, strides", [(1, (1, 1)), (3, (1, 1)), (3, (2, 2)), (3, (1, 2)), (1, (1, 2))])
def test_depth_taps_are_a_convolution_in_space(depth, strides):
    x, kernel = normal(0, 2, 4, 8, 6, 3), normal(1, depth, 3, 3, 3, 5)
    pads = [(depth // 2,) * 2, (1, 1), (1, 1)]
    steps = (strides[0], strides[1], strides[1])
    expected = lax.conv_general_dilated(x, kernel, steps, pads, dimension_numbers=("NDHWC", "DHWIO", "NDHWC"))
    assert expected.shape == (2, 4 // strides[0], 8 // strides[1], 6 // strides[1], 5)
    np.testing.assert_allclose(convolve3d(x, kernel, strides), expected, atol=1e-4)


def test_stamps_of_an_upsampling_lie_side_by_side():
    x, layer = normal(0, 1, 2, 3, 2, 4), Upsample3d(5, (2, 2))
    params = layer.init(jax.random.key(0), x)
    y = layer.apply(params, x)
    kernel = params["params"]["kernel"].reshape(4, 2, 2, 2, 5)
    for z, row, column in np.ndindex(2, 3, 2):
        stamp = jnp.einsum("c,czrsf->zrsf", x[0, z, row, column], kernel)
        np.testing.assert_allclose(
            y[0, 2 * z : 2 * z + 2, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2], stamp, atol=1e-5
        )


@pytest.mark.parametrize("by_slice", [False, True])
def test_instance_norm_normalises_what_it_says(by_slice):
    x, layer = 3 + 2 * normal(0, 2, 3, 8, 8, 2), InstanceNorm(by_slice)
    y = layer.apply(layer.init(jax.random.key(0), x), x)
    axes = (2, 3) if by_slice else (1, 2, 3)
    np.testing.assert_allclose(y.mean(axes), 0, atol=1e-5)
    np.testing.assert_allclose(y.var(axes), 1, atol=1e-4)
    assert by_slice or np.abs(y.mean((2, 3))).max() > 1e-3


def test_the_plan_for_acdc_by_hand():
    # Rows 192, 96, 48, 24, 12, 6; slices lie 6.5, 3.2, 1.6 rows apart, so the third stage is the first to span them,
    # and depth is halved from there; five slices are not halved again.
    flat, deep = Stage(1, (1, 2)), Stage(3, (1, 2))
    assert plan((10, 192, 192), 6.5) == [Stage(1, (1, 1)), flat, deep, Stage(3, (2, 2)), deep, deep]
    assert plan((8, 96, 96), 6.5) == [Stage(1, (1, 1)), flat, deep, Stage(3, (2, 2)), deep]
    assert plan((16, 64, 64), 1.0) == [Stage(3, (1, 1)), Stage(3, (2, 2)), Stage(3, (2, 2)), deep, deep]
    assert [stage.depth for stage in plan((2, 32, 32), 100)] == [1, 1, 1, 3]  # the lowest spans them always


def test_outputs_are_the_resolutions_but_the_lowest():
    config = tiny(**SMALL, crop=(8, 64, 64))
    outputs, aux = jax.eval_shape(build_model(config).apply, variables(config), *frames(config))
    # Five stages, 64 to 4 rows; the plan halves the depth after the third.
    assert [y.shape for y in outputs] == [(1, 8, 16, 16, 4), (1, 8, 32, 32, 4), (1, 8, 64, 64, 4)] and aux == {}


def test_neighbours_are_not_looked_at():
    config = tiny(**SMALL, crop=(2, 16, 16))
    apply, values = jax.jit(build_model(config).apply), variables(config)
    previous, current, following, valid = frames(config)
    one, other = (apply(values, a, current, b, valid)[0][-1] for a, b in ((previous, following), (following, current)))
    np.testing.assert_array_equal(one, other)


# --- the loss ---


def simple(value=0.0, shape=(1, 2, 4, 4), coarse=(1, 2, 2, 2)):
    """Labels with classes 0 and 3 side by side, and logits of two resolutions with `value` for the right class."""
    labels = np.zeros(shape, np.uint8)
    labels[..., 2:] = 3
    small = np.broadcast_to(np.array([0, 3]), coarse)
    logits = [jnp.float32(value * np.eye(4)[np.asarray(a)]) for a in (small, labels)]
    return logits, {}, jnp.asarray(labels), jnp.zeros((*shape, 1)), jnp.ones((*shape, 1)), LossConfig()


def test_resolutions_are_weighted_one_to_a_half():
    arguments = simple()
    arguments[0][0] = arguments[0][0] + 20 * jax.nn.one_hot(np.broadcast_to([0, 3], (1, 2, 2, 2)), 4)
    value, terms = loss(*arguments)
    assert terms["cross_entropy_1"] < 1e-6
    np.testing.assert_allclose(terms["cross_entropy_2"], np.log(4), rtol=1e-6)
    parts = [terms[f"cross_entropy_{k}"] + terms[f"soft_dice_{k}"] for k in (1, 2)]
    np.testing.assert_allclose(value, parts[0] / 3 + 2 * parts[1] / 3, rtol=1e-6)
    assert value == terms["loss"]


def test_coarse_labels_are_those_nearest_the_centres():
    # A class on odd rows and columns alone is all that a grid of half the size sees.
    labels = np.zeros((1, 2, 4, 4), np.uint8)
    labels[:, :, 1::2, 1::2] = 2
    right = 30 * jax.nn.one_hot(np.full((1, 2, 2, 2), 2), 4)
    value, terms = loss([right, jnp.zeros((1, 2, 4, 4, 4))], {}, jnp.asarray(labels), *simple()[3:])
    assert terms["cross_entropy_1"] < 1e-6


def test_padding_counts_nowhere():
    logits, aux, labels, frame, valid, config = simple(1.0)
    valid = valid.at[:, 0].set(0)
    other = labels.at[:, 0].set(1)
    for a, b in zip(loss(logits, aux, labels, frame, valid, config)[1].values(), loss(logits, aux, other, frame, valid, config)[1].values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_a_stage_of_the_expanding_path_has_the_kernels_of_its_resolution():
    own, below = (shapes(tiny(**SMALL, crop=(8, 64, 64), expanding_kernels=kind))["params"] for kind in ("own", "below"))

    def slices(params):
        return [params[f"ConvNorm_{i}"]["Conv3d_0"]["kernel"].shape[0] for i in range(18)]

    contracting = [1, 1, 1, 1, 3, 3, 3, 3, 3, 3]  # the third stage is the first that spans slices
    assert slices(own) == [*contracting, 3, 3, 3, 3, 1, 1, 1, 1]
    assert slices(below) == [*contracting, 3, 3, 3, 3, 3, 3, 1, 1]


# --- MONAI ---


def dynunet(config, values):
    """MONAI's network with the same weights."""
    nets, torch = pytest.importorskip("monai.networks.nets"), pytest.importorskip("torch")
    stages = plan(config.crop, config.anisotropy)
    widths = [config.channels(min(32 * 2**i, 320)) for i in range(len(stages))]
    strides = [(z, y, y) for _, (z, y) in stages]
    net = nets.DynUNet(
        3, 1, 4, [(stage.depth, 3, 3) for stage in stages], strides, strides[1:], filters=widths,
        deep_supervision=True, deep_supr_num=len(stages) - 2,
    )  # fmt: skip

    def put(name, value, axes=None):
        value = np.asarray(value) if axes is None else np.asarray(value).transpose(axes)
        target = net.get_parameter(name)
        assert target.shape == value.shape, name
        with torch.no_grad():
            target.copy_(torch.tensor(value.copy()))

    def block(name, number):
        for i in (0, 1):
            layer = values[f"ConvNorm_{2 * number + i}"]
            put(f"{name}.conv{i + 1}.conv.weight", layer["Conv3d_0"]["kernel"], (4, 3, 0, 1, 2))
            put(f"{name}.norm{i + 1}.weight", layer["InstanceNorm_0"]["scale"])
            put(f"{name}.norm{i + 1}.bias", layer["InstanceNorm_0"]["bias"])

    count = len(stages)
    names = ["input_block", *(f"downsamples.{i}" for i in range(count - 2)), "bottleneck"]
    for number, name in enumerate(names):
        block(name, number)
    for i in range(count - 1):
        z, y, _ = strides[count - 1 - i]
        kernel = np.reshape(values[f"Upsample3d_{i}"]["kernel"], (widths[count - 1 - i], z, y, y, widths[count - 2 - i]))
        put(f"upsamples.{i}.transp_conv.conv.weight", kernel, (0, 4, 1, 2, 3))
        block(f"upsamples.{i}.conv_block", count + i)
    put("output_block.conv.conv.weight", values["logits"]["kernel"], (4, 3, 0, 1, 2))
    put("output_block.conv.conv.bias", values["logits"]["bias"])
    for i in range(count - 3):
        put(f"deep_supervision_heads.{i}.conv.conv.weight", values[f"auxiliary_{i + 1}"]["kernel"], (4, 3, 0, 1, 2))
        put(f"deep_supervision_heads.{i}.conv.conv.bias", values[f"auxiliary_{i + 1}"]["bias"])
    return net


def test_equals_monai_with_copied_weights():
    torch = pytest.importorskip("torch")
    config = tiny(**SMALL, crop=(8, 64, 64), expanding_kernels="below")
    values, (_, image, _, valid) = variables(config), frames(config, batch=2)
    net = dynunet(config, values["params"])
    ours = jax.jit(build_model(config).apply)(values, image, image, image, valid)[0]
    for train in (True, False):
        with torch.no_grad():
            theirs = net.train(train)(torch.tensor(np.moveaxis(image, -1, 1).copy())).numpy()
        theirs = np.moveaxis(theirs[:, 0] if train else theirs, 1, -1)
        assert np.abs(theirs).max() > 0.5
        np.testing.assert_allclose(ours[-1], theirs, atol=1e-4)
    for level, y in enumerate(reversed(ours[:-1]), start=1):
        head = np.moveaxis(net.heads[level - 1].detach().numpy(), 1, -1)
        np.testing.assert_allclose(y, head, atol=1e-4)


def test_a_block_is_convolution_norm_and_activation():
    x, layer = normal(0, 1, 4, 8, 8, 3), ConvNorm(5, strides=(2, 2))
    y = layer.apply(layer.init(jax.random.key(1), x), x)
    assert y.shape == (1, 2, 4, 4, 5)
    assert 0 < np.mean(np.asarray(y) < 0) < 1 and y.min() > -0.1  # leaky: negative values are a hundredth


@pytest.mark.slow
def test_speed_beside_monai(capsys):
    """No speed is asserted: the times of one run are printed. A frame of 8x96x96 at full width, and ICA-UNet's streamed."""
    torch = pytest.importorskip("torch")
    config = tiny(model="unet3d", crop=(8, 96, 96), expanding_kernels="below")
    values, (_, image, _, valid) = variables(config), frames(config)
    fast = {"xla_backend_optimization_level": 3}  # the tests compile without
    net = dynunet(config, values["params"]).eval()
    ours = jax.jit(lambda v, x: build_model(config).apply(v, x, x, x, valid)[0][-1], compiler_options=fast)
    seen = torch.tensor(np.moveaxis(image, -1, 1).copy())
    ica = ModelConfig(crop=(8, 96, 96), contracting_blocks=3, decoder_convs=2)
    network, ica_values = build_model(ica), variables(ica)

    @functools.partial(jax.jit, compiler_options=fast)
    def streamed(v, previous, current, x):
        following = network.apply(v, x, valid, method=network.encode)
        return following, network.apply(v, {-1: previous, 1: following}, current, method=network.decode)[0][-1]

    first = network.apply(ica_values, image, valid, method=network.encode)
    calls = {
        "ICA-UNet": lambda: jax.block_until_ready(streamed(ica_values, first, first, image)),
        "U-Net 3D": lambda: jax.block_until_ready(ours(values, image)),
        "DynUNet": lambda: net(seen),
    }
    best = dict.fromkeys(calls, np.inf)
    with torch.no_grad():
        for _ in range(6):  # in turns, so that what else the machine does hits all; the first compiles
            for name, call in calls.items():
                began = time.perf_counter()
                call()
                best[name] = min(best[name], time.perf_counter() - began)
    with capsys.disabled():
        print("\n" + ", ".join(f"{name} {1e3 * t:.1f} ms ({t / best['DynUNet']:.2f} of DynUNet)" for name, t in best.items()))
    assert all(np.isfinite(t) for t in best.values())
