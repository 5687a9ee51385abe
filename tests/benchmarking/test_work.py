import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import abstract, shapes, tiny
from work import needed, xla

from ica_unet_jax.benchmarking import ica_unet_products, products
from ica_unet_jax.benchmarking.work import Work, parameters, streamed, streamed_stack, total, training_sample, triple
from ica_unet_jax.models import ica_unet
from ica_unet_jax.models.layers import convolve
from ica_unet_jax.models.mixing import _Axis
from ica_unet_jax.models.networks import build_model

UNET = dict(model="unet2d", crop=(2, 32, 32))
VARIANTS = [
    {},
    dict(streams="shared", neighbours="past", bases_from="dictionary", encoder_convs=0),
    dict(streams="dense", bases=8, norm="group", expanding_skips=False, expanding_convs=2),
    dict(streams="dense", contracting_blocks=1, encoder_convs=3, encoder_dilation=False),
    dict(bases_from="frame", crop=(4, 192, 64), correlation_radius=0, convs_per_block=2, decoder_convs=2),
    dict(bases_from="frame_with_coordinates", neighbours="none", expanding_skips=False, expanding_convs=0),
    dict(decoder_convs=0, correlation_radius=-1, convs_per_block=0),
    dict(contracting_blocks=3, stream_width=3, neighbour_gradients=True),
    dict(decoder_frame=True, decoder_size="full", concatenation_skip=False, upsample_norm=False),
    dict(concatenation_over="all", streams="shared"),
    dict(concatenation_over="all", mixing="upsampled", decoder_frame=True),
    dict(mixing="none", decoder_frame=True),
    UNET,
    UNET | dict(norm="group", unet_width=5, crop=(2, 16, 24)),
]


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_parameters_are_those_of_the_network(changes):
    config = tiny(**changes)
    assert parameters(config) == sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes(config)["params"]))


@pytest.mark.parametrize("changes, twice", [({}, ("mixing", "decoders")), (dict(bases_from="frame_with_coordinates"), None), (UNET, None)], ids=str)
def test_of_a_deep_stack_all_is_done_once_but_what_mixes(changes, twice):
    """Six slices in two windows of four."""
    config = tiny(**changes | dict(crop=(4, 64, 64)))
    for name, work in streamed_stack(config, 6).items():
        times = 2 if twice is None or name in twice else 1.5
        assert work.flops == pytest.approx(times * streamed(config)[name].flops)


def test_parts_by_hand():
    # d, h, w = 2, 64, 64; n = 2, m = 3, p = 2, u = 2; encoder 4, decoder 4; radius 1, both neighbours.
    # Three taps along an axis of 32 meet the image 3 * 32 - 2 times; every second output loses the first alone.
    at_32, to_16, at_16, to_8, at_8, to_4, at_4 = 94, 47, 46, 23, 22, 11, 10
    work = {name: part.flops // 2 for name, part in triple(tiny()).items()}
    assert work == {
        "low_level": 2 * at_32**2 * 4 * 4 + 2 * to_16**2 * 4 * 8 + 2 * at_16**2 * 8 * 16,
        # A pair of slices is one; two convolutions of dilation 1, then 1x1.
        "coefficient_branch": 2 * at_16**2 * 16 * 16 + 16 * 16 * 16 * 3,
        "basis_branch": 2 * to_8**2 * 8 * 16 + 2 * to_4**2 * 16 * 16 + 2 * 4 * 4 * 16 * 6,
        # m times: from 16x16 to 8x8 and to 4x4 with one more convolution each, channels 1 -> 2 -> 2 -> 4 -> 4.
        "contracting_path": 3 * (to_8**2 * 1 * 2 + at_8**2 * 2 * 2 + to_4**2 * 2 * 4 + at_4**2 * 4 * 4),
        # Upsampling to four times as many pixels, then a convolution that sees the skip.
        "expanding_path": 3 * (4 * 4 * 4 * 8 + at_8**2 * (2 + 2) * 2 + 8 * 8 * 2 * 8 + at_16**2 * (2 + 1) * 2),
        "correlation": 2 * 3 * at_16**2,
        "concatenation": 3 * 16 * 16 * (2 + 1 + 2 * 9),
        # A patch of 4x4 has the size of a stride: no stamp leaves the frame, and the two slices see one coefficient.
        "mixing": 2 * 64 * 64 * 3 * 2,
        # 2x2 pixels are channels: of the two mixed ones, and of the four logits.
        "decoders": 2 * at_32**2 * 8 * 4 + 2 * at_32**2 * 4 * 16,
        "reconstruction": 0,
        "neighbours": 2 * (work["low_level"] + work["coefficient_branch"]),
    }


def test_dilation_by_hand():
    # An outer tap at distance 1, 2, 4 leaves the 16x16 image at so many outputs of an axis.
    dilated, dense = (
        triple(tiny(encoder_convs=3, encoder_dilation=d))["coefficient_branch"].flops // 2 for d in (True, False)
    )
    assert dense - dilated == (2 * 46**2 - (48 - 2 * 2) ** 2 - (48 - 2 * 4) ** 2) * 16 * 16


def test_bytes_by_hand():
    # 2 slices of 4x6, 3 -> 5 channels, a 3x3 kernel with its norm's scales and offsets
    assert products.conv((2, 4, 6), 3, 5).values == 48 * 3 + 48 * 5 + 9 * 15 + 2 * 5
    assert products.conv((2, 4, 6), 3, 5, stride=2).values == 48 * 3 + 12 * 5 + 9 * 15 + 2 * 5
    # 3 streams of 2 channels of both frames, and 3x3 displacements
    assert products.correlation(tiny(), (1, 8, 8), 3 * 2).values == 8 * 8 * (6 + 6 + 9)
    shared = products.conv((1, 4, 4), 2, 1, kernel=1, copies=3)
    assert shared.values == 3 * 16 * (2 + 1) + 2 + 2  # three streams, weights and norm once
    config = tiny()
    once = 16 * 16 * 3 + 2 * 4 * 4 * 2 * 3 + 2 * 64 * 64 * 2  # A, X and their product
    mean = 16 * 16 * 3 + 2 * 4 * 4 * 3 + 2 * 64 * 64  # the same of the mean over the channels
    assert streamed(config)["mixing"].bytes == 4 * once
    assert training_sample(config)["reconstruction"].bytes == 3 * 4 * mean  # and a gradient towards A and X
    halved = total(streamed(tiny(compute_dtype="bfloat16")))
    assert halved == Work(total(streamed(config)).flops, total(streamed(config)).bytes // 2)


def test_a_sum_is_over_all_parts():
    assert total({"a": Work(1, 20), "b": Work(3, 40)}) == Work(4, 60)


@pytest.mark.parametrize("crop, grid", [((2, 64, 96), (1, 4, 6)), ((6, 128, 64), (3, 5, 3)), ((4, 160, 96), (2, 1, 2))])
def test_mixing_equals_a_loop_over_all_pairs(crop, grid):
    config = tiny(crop=crop, bases=5, projection_width=3)
    d, patch_rows, patch_columns = crop[0], crop[1] // 16, crop[2] // 16
    half, rows, columns = grid
    count = 0
    for z, y, x in np.ndindex(2 * half, 4 * rows, 4 * columns):
        for j, i, k in np.ndindex(half, rows, columns):
            inside = 0 <= z - 2 * j + d // 2 - 1 < d
            inside &= 0 <= y - 4 * i + patch_rows // 2 - 2 < patch_rows
            inside &= 0 <= x - 4 * k + patch_columns // 2 - 2 < patch_columns
            count += inside
    assert 0 < count < 2 * half * 4 * rows * 4 * columns * half * rows * columns
    assert products.mixing(config, grid, 3).products == count * 5 * 3


@pytest.mark.parametrize("radius", [0, 1, 4])
def test_correlation_equals_a_loop_over_all_pairs(radius):
    near = sum(abs(y - i) <= radius and abs(x - j) <= radius for y, x, i, j in np.ndindex(5, 3, 5, 3))
    assert products.correlation(tiny(correlation_radius=radius), (2, 5, 3), 7).products == 2 * near * 7


@pytest.mark.parametrize("kernel, stride, dilation", [(1, 1, 1), (3, 1, 1), (3, 2, 1), (3, 1, 4)])
def test_a_convolution_costs_what_xla_says(kernel, stride, dilation):
    x, weights = jnp.zeros((1, 2, 8, 12, 3)), jnp.zeros((kernel, kernel, 3, 5))

    def forward(x, weights):
        return convolve(x, weights, stride, dilation)

    def both_gradients(x, weights):
        return jax.vjp(forward, x, weights)[1](jnp.ones_like(forward(x, weights)))

    cost = products.conv((2, 8, 12), 3, 5, kernel, stride, dilation)
    assert xla(forward, x, weights) == 2 * cost.products
    assert xla(both_gradients, x, weights) == 2 * cost.products * cost.gradients


def test_unet2d_costs_what_xla_says():
    config = tiny(**UNET, unet_width=32)  # wide: XLA counts norms and activations too
    model, values = build_model(config), shapes(config)

    def finest(values, *inputs):
        return model.apply(values, *inputs)[0][-1]

    def gradient(params, values, *inputs):
        return jax.grad(lambda params: finest(values | {"params": params}, *inputs).sum())(params)

    ours = total(streamed(config)).flops
    assert ours < xla(finest, values, *abstract(config)) < 1.03 * ours
    ours = total(training_sample(config)).flops
    assert ours < xla(gradient, values["params"], values, *abstract(config)) < 1.03 * ours


@pytest.fixture
def padded(monkeypatch):
    """Counts as the network's own lowering does: padded zeros are multiplied."""
    monkeypatch.setattr(products, "taps", lambda size, kernel, stride=1, dilation=1: size // stride * kernel)
    monkeypatch.setattr(
        products, "pairs", lambda a, stride, patch: a * stride * (a if stride == 2 else _Axis.of(patch, a).taps)
    )  # along the depth every coefficient meets every slice; patches of whole blocks of four, or there is a block more
    conv = products.conv

    def of_rows(grid, *channels, stride=1, **weights):
        """A stream's stride of 2 has a kernel of whole blocks of 2x2 pixels, and each of a kernel's rows meets the pads."""
        if weights.get("copies", 1) == 1:
            return conv(grid, *channels, stride=stride, **weights)
        wide = weights | (dict(kernel=4) if stride == 2 else {})
        outputs, beyond = grid[1] // stride, wide.get("kernel", 3) // stride - 1
        product = conv(grid, *channels, stride=stride, **wide)
        return product._replace(products=product.products * (outputs + beyond) // outputs)

    for module in (ica_unet_products, products):
        monkeypatch.setattr(module, "conv", of_rows)


@pytest.fixture
def uncounted(monkeypatch):
    """A correlation without products in its place, which is counted apart: its lowering multiplies more than it keeps."""

    def correlate(current, neighbour, radius):
        product = (current.mean((0, 1)) * neighbour.mean((0, 1)))[None]
        return jnp.repeat(product, (2 * radius + 1) ** 2, axis=0)

    monkeypatch.setattr(ica_unet, "correlate", correlate)


def without_correlation(parts):
    """Multiply-adds of the other parts."""
    return sum(part.flops for name, part in parts.items() if name != "correlation") // 2


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_counts_are_those_of_the_program(changes, padded, uncounted):
    """Products in the traced network, zeros included, without what no output depends on."""
    config = tiny(**changes)
    model, values = build_model(config), shapes(config)

    def finest(values, *inputs):
        return model.apply(values, *inputs)[0][-1]

    def gradient(params, values, *inputs):
        def loss(params):
            (logits, aux), _ = model.apply(values | {"params": params}, *inputs, True, mutable=["batch_stats"])
            return sum(jnp.square(y).sum() for y in (*logits, aux.get("reconstruction", jnp.zeros(()))))

        return jax.grad(loss)(params)

    assert without_correlation(triple(config)) == needed(finest, values, *abstract(config))
    assert without_correlation(training_sample(config)) == needed(gradient, values["params"], values, *abstract(config))


def test_neighbours_make_the_triple_dearer():
    both, past, none = (tiny(neighbours=name) for name in ("both", "past", "none"))
    for config in (both, past):
        rest = {name: work for name, work in triple(config).items() if name != "neighbours"}
        assert rest == streamed(config)
        assert total(streamed(config)).flops < total(triple(config)).flops
    assert triple(both)["neighbours"].flops == 2 * triple(past)["neighbours"].flops
    assert total(streamed(none)) == total(triple(none))


def test_a_stream_needs_the_finest_output_alone():
    config = tiny(contracting_blocks=3)
    one, all_of_them = streamed(config), training_sample(config)
    assert one["reconstruction"] == Work(0, 0)
    assert one["mixing"].flops == 2 * products.mixing(config, (1, 16, 16), config.projection_width).products
    # Patches as large as the stride: the mixing's work goes with the output's area.
    assert all_of_them["mixing"].flops == 3 * one["mixing"].flops * (1 + 1 / 4 + 1 / 16)
    assert all_of_them["reconstruction"].flops == 3 * one["mixing"].flops // config.projection_width


def test_gradients_cost_twice_the_forward_pass_but_for_the_first_layer_and_the_neighbours():
    stopped, free = tiny(), tiny(neighbour_gradients=True)
    forward, trained = streamed(stopped), training_sample(stopped)
    for name in ("coefficient_branch", "basis_branch", "contracting_path", "expanding_path"):
        assert trained[name] == Work(3 * forward[name].flops, 3 * forward[name].bytes)
    first = 2 * 2 * 94**2 * 4 * 4
    assert trained["low_level"].flops == 3 * forward["low_level"].flops - first
    # Two neighbours go as far as A_1, whose encoding is the frame's without C_1.
    last = 2 * 3 * (11**2 * 2 * 4 + 10**2 * 4 * 4)
    encoding = sum(forward[name].flops for name in ("low_level", "coefficient_branch", "contracting_path")) - last
    assert trained["neighbours"].flops == 2 * encoding
    assert training_sample(free)["neighbours"].flops == 2 * (3 * encoding - first)
    assert training_sample(free)["correlation"].flops * 2 == trained["correlation"].flops * 3


def test_what_work_is_proportional_to():
    def work(part, **changes):
        return streamed(tiny(**changes))[part].flops

    for streams in ("independent", "shared", "dense"):
        assert work("mixing", bases=6, streams=streams) == 2 * work("mixing", bases=3, streams=streams)
    assert work("mixing", projection_width=6) == 3 * work("mixing", projection_width=2)
    for part in ("contracting_path", "expanding_path", "concatenation", "correlation"):
        assert work(part, bases=6) == 2 * work(part, bases=3)
    for part in ("low_level", "coefficient_branch", "contracting_path", "decoders"):
        assert work(part, crop=(6, 64, 64)) == 3 * work(part)
    # Shared weights do the same work as independent ones on fewer bytes; the correlations are mapped once.
    assert work("expanding_path", streams="shared") == work("expanding_path")
    assert streamed(tiny(streams="shared"))["expanding_path"].bytes < streamed(tiny())["expanding_path"].bytes
    assert work("concatenation") - work("concatenation", streams="shared") == 2 * (3 - 1) * 16 * 16 * 2 * 9


def test_memory_and_norm_settings_change_no_count():
    for changes in (dict(remat=True), dict(norm="group"), dict(mixing_scale=False)):
        assert training_sample(tiny(**changes)) == training_sample(tiny())
