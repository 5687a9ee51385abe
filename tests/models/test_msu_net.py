"""MSU-Net: a plain U-Net where nothing moves, one pass for a snippet, frames read at any place of it."""

import jax
import jax.numpy as jnp
import nibabel as nib
import numpy as np
import pytest
from flax import linen as nn
from snippets import CINE, SMALL, SPACING
from tiny import normal, tiny, variables

from ica_unet_jax.benchmarking import work
from ica_unet_jax.config import Config
from ica_unet_jax.data.case import Case, Cine
from ica_unet_jax.errors import UserError
from ica_unet_jax.evaluation import frames
from ica_unet_jax.inference import exporting
from ica_unet_jax.inference.roi import Window
from ica_unet_jax.inference.segmenters import SnippetSegmenter, segmenter_of
from ica_unet_jax.metrics import cases
from ica_unet_jax.models.baselines import msu_net
from ica_unet_jax.models.baselines.canonical import Canonical, read_out
from ica_unet_jax.models.baselines.unmixing import unmix
from ica_unet_jax.models.layers import convolve, depth_to_space
from ica_unet_jax.models.networks import build_model

CONFIG = tiny(**SMALL)


@pytest.fixture(scope="module")
def network():
    """The network, its variables, and the compiled answer to a snippet of three images."""
    model, values = build_model(CONFIG), variables(CONFIG)

    @jax.jit
    def answer(images):
        frames = [model.apply(values, image, jnp.ones_like(image), method=model.encode) for image in images]
        return model.apply(values, frames, method=model.decode_snippet)

    return model, values, answer


@pytest.fixture(scope="module")
def branch():
    """The finest branch: its variables, and the compiled network of forms of three sources."""
    values = variables(CONFIG)
    own = {kind: values[kind]["branches_0"] for kind in ("params", "batch_stats")}
    return own, jax.jit(lambda form: msu_net.StatisticalUNet(4).apply(own, form, False))


def plain_unet(params, stats, x):
    """The U-Net that a branch is where nothing varies: convolution, batch norm, ReLU, max pooling, of one frame."""
    numbers = {"CanonicalConv": 0, "CanonicalNorm": 0, "CanonicalUpsample": 0}

    def take(kind):
        name = f"{kind}_{numbers[kind]}"
        numbers[kind] += 1
        return name

    def stage(x):
        for _ in range(2):
            x = convolve(x, params[take("CanonicalConv")]["kernel"])
            name = take("CanonicalNorm")
            row = {k: v.reshape(1, 1, 1, 1, -1) for k, v in (params[name] | stats[name]).items()}
            x = jnp.maximum((x - row["mean"]) / jnp.sqrt(row["var"] + 1e-5) * row["scale"] + row["bias"], 0)
        return x

    skips = []
    for _ in range(3):
        x = stage(x)
        skips.append(x)
        x = nn.max_pool(x, (1, 2, 2), (1, 2, 2))
    x = stage(x)
    for skip in reversed(skips):
        x = depth_to_space(x @ params[take("CanonicalUpsample")]["kernel"])
        x = stage(jnp.concatenate([x, skip], axis=-1))
    last = params["logits"]
    return convolve(x, last["kernel"]) + last["bias"].reshape(1, 1, 1, 1, -1)


def plain(values, frame):
    """Both branches on one frame."""
    halved = frame.reshape(*frame.shape[:2], frame.shape[2] // 2, 2, frame.shape[3] // 2, 2, 1).mean((3, 5))
    one, two = (
        plain_unet(values["params"][name], values["batch_stats"][name], x)
        for name, x in (("branches_0", frame), ("branches_1", halved))
    )
    return one + jnp.repeat(jnp.repeat(two, 2, axis=2), 2, axis=3)


def test_where_nothing_moves_it_is_its_plain_unet(network):
    _, values, answer = network
    frame = normal(0, 1, 2, 32, 32, 1)
    expected = jax.jit(plain)(values, frame)
    assert np.std(expected) > 0.1
    for logits in answer([frame] * 3):
        np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())


def test_with_the_weights_of_all_sources_at_zero_a_branch_is_its_plain_unet(branch):
    own, apply = branch
    mean = normal(0, 1, 1, 16, 16, 1)
    y = apply(Canonical(mean, jnp.zeros((3, *mean.shape)), jnp.zeros(mean.shape)))
    expected = jax.jit(plain_unet)(own["params"], own["batch_stats"], mean)
    np.testing.assert_allclose(y.mean, expected, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_array_equal(y.sources, 0)
    np.testing.assert_array_equal(y.residual, 0)


def test_order_and_sign_of_the_sources_mean_nothing(branch):
    _, apply = branch
    form, sources = unmix(normal(0, 1, 1, 16, 16, 4), 3)
    order, sign = jnp.array([2, 0, 1]), jnp.array([-1.0, 1.0, -1.0])
    turned = form._replace(sources=form.sources[order] * sign.reshape(3, 1, 1, 1, 1, 1))
    one = read_out(apply(form), sources)
    other = read_out(apply(turned), sources[:, order] * sign.reshape(1, 3, 1))
    assert np.abs(one - one.mean(0, keepdims=True)).max() > 1e-2  # the frames differ
    np.testing.assert_allclose(one, other, atol=1e-4 * np.abs(one).max())


def test_a_snippet_is_answered_as_its_frames_are(network):
    model, values, answer = network
    images = [normal(seed, 1, 2, 32, 32, 1) for seed in range(5)]
    answers = answer(images[1:4])
    assert answers.shape == (3, 1, 2, 32, 32, 4)
    window = (jnp.concatenate(images[:2], -1), images[2], jnp.concatenate(images[3:], -1))
    middle = jax.jit(model.apply)(values, *window, jnp.ones_like(images[2]))[0][0]
    np.testing.assert_allclose(middle, answers[1], atol=1e-4 * np.abs(middle).max())


@pytest.mark.parametrize("train", [False, True])
def test_in_training_every_place_of_a_snippet_comes_and_else_its_middle(train, monkeypatch):
    """Of a window of five frames the third is read; the snippets of three that hold it are told by their numbers."""

    def number(network, snippet, training, counted):
        assert training == train
        return jnp.moveaxis(snippet, -1, 0)[..., None], [snippet[0, 0, 0, 0]]

    monkeypatch.setattr(msu_net.MsuNet, "_answer", number)
    window = jnp.broadcast_to(jnp.arange(5.0).reshape(1, 1, 1, 1, 5), (1, 2, 32, 32, 5))
    seen = set()
    for seed in range(12):
        rngs = {"dropout": jax.random.key(seed)}
        valid = jnp.ones((1, 2, 32, 32, 1))
        [read], aux = build_model(CONFIG).apply({}, window[..., :2], window[..., 2:3], window[..., 3:], valid, train, rngs=rngs)
        np.testing.assert_array_equal(read, 2)
        seen.add(tuple(map(int, aux["sources"][0])))
    assert seen == ({(0, 1, 2), (1, 2, 3), (2, 3, 4)} if train else {(1, 2, 3)})


def test_averaging_over_pixels_and_later_frames():
    x = jnp.arange(2 * 2 * 2 * 3.0).reshape(1, 2, 2, 2, 3)
    np.testing.assert_array_equal(msu_net.averaged(x, 1), x)
    pixels = x.mean((2, 3))[0]  # (slices, frames)
    expected = np.stack([pixels[:, :2].mean(1), pixels[:, 1:].mean(1), pixels[:, 2]], axis=-1)
    np.testing.assert_allclose(msu_net.averaged(x, 2)[0, :, 0, 0], expected, rtol=1e-6)


def test_a_frame_costs_less_in_a_longer_snippet():
    amounts = [work.total(work.streamed(tiny(**SMALL | dict(span=span)))).flops for span in (2, 3, 5, 10)]
    assert amounts == sorted(amounts, reverse=True) and amounts[-1] < 0.4 * amounts[0]
    one = tiny(**SMALL | dict(span=5))
    assert work.total(work.streamed(one)).flops == sum(w.flops // 5 for w in work.triple(one).values())


# --- native frames ---


@pytest.fixture(scope="module")
def segmenter():
    config = Config.make(**SMALL)
    return segmenter_of(config, variables(config.model))


def test_a_cine_is_cut_into_snippets(segmenter):
    assert isinstance(segmenter, SnippetSegmenter)
    done = []
    labels = segmenter.segment_cine(CINE, SPACING, done=done.append)
    assert done == [0, 1, 2, 3, 4]
    placement = segmenter.place(CINE.shape[1:], SPACING)
    # Frame 3 is first in the snippet 3, 4, 4; frame 1 is in the middle of 0, 1, 2.
    try:
        segmenter.position = 0
        first, _ = next(segmenter.labels(CINE, Window(placement), [(1, 2, 3, 4, 4)]))
    finally:
        segmenter.position = 1
    middle, _ = next(segmenter.labels(CINE, Window(placement), [(9, 0, 1, 2, 9)]))
    np.testing.assert_array_equal(labels[3], first)
    np.testing.assert_array_equal(labels[1], middle)
    assert segmenter.traces == 2  # encode and decode, once each


def test_a_frame_alone_is_its_own_snippet(segmenter):
    labels = segmenter.segment_frame(CINE[1], SPACING)
    still = segmenter.segment_cine(np.repeat(CINE[1:2], 3, axis=0), SPACING)
    np.testing.assert_array_equal(labels, still[1])


def test_labelled_frames_are_read_at_every_position(segmenter):
    truth = np.random.default_rng(1).integers(0, 4, CINE.shape[1:]).astype(np.uint8)
    cine = Cine(Case("a"), CINE.astype(np.float32), tuple(range(5)), {2: truth}, SPACING, np.eye(4), nib.Nifti1Header())
    [row] = frames.judge_positions(segmenter, cine)
    single = []
    for position in range(3):
        segmenter.position = position
        single.append(frames.judge(cine, *frames.segment(segmenter, cine, [2]))[0])
    segmenter.position = 1
    dice = [reading["dice_LV"] for reading in single]
    assert len(set(dice)) > 1 and row["dice_LV"] == np.mean(dice)
    assert row["frame"] == 3 and set(row) == set(single[0])


def test_a_mean_row_leaves_out_what_is_not_there_and_shows_what_is_missed():
    rows = [dict.fromkeys((f"{m}_{s}" for m in cases.MEASURES for s in ("RV", "MYO", "LV")), 1.0) for _ in range(3)]
    rows[0]["hd_mm_RV"], rows[1]["hd_mm_LV"], rows[2]["dice_LV"] = np.nan, np.inf, 0.4
    mean = cases.mean_row([row | {"patient": "a"} for row in rows])
    assert mean["patient"] == "a" and mean["hd_mm_RV"] == 1 and mean["hd_mm_LV"] == np.inf
    assert mean["dice_LV"] == pytest.approx(0.8)


def test_it_is_not_exported(segmenter, monkeypatch, tmp_path):
    monkeypatch.setattr(exporting, "read_volume", lambda path: (CINE, None))
    monkeypatch.setattr(exporting.segmenters, "load_as", lambda *_: segmenter)
    with pytest.raises(UserError, match="--model=msu_net answers whole snippets"):
        exporting.export("run", "image.nii.gz", tmp_path / "model.zip")
