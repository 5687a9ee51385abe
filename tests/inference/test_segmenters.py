"""A trained model on native frames: every frame is encoded once, and order and reuse change nothing."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import SMALL, variables

from ica_unet_jax import inference
from ica_unet_jax.config import Config
from ica_unet_jax.data.geometry import normalize
from ica_unet_jax.errors import UserError
from ica_unet_jax.inference.roi import Window
from ica_unet_jax.inference.segmenters import Segmenter, load
from ica_unet_jax.models.networks import build_model
from ica_unet_jax.runs import run_folder
from ica_unet_jax.runs.checkpoints import Checkpoints, State

CONFIG = Config.make(**SMALL)
SPACING = (10.0, 1.7, 1.4)
CINE = np.random.default_rng(0).gamma(2, 100, (4, 3, 50, 70))  # three slices: two windows of the model's two


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter(CONFIG, variables(CONFIG.model))


@pytest.fixture(scope="module")
def offline(segmenter):
    """The network called with three frames, without any reuse: offline(t-1, t, t+1) -> native logits."""
    apply = jax.jit(build_model(CONFIG.model).apply)
    placement = segmenter.place(CINE.shape[1:], SPACING)

    def logits(*times):
        images = [jnp.float32(placement.forward(normalize(CINE[t])))[..., None] for t in times]
        valid = jnp.float32(placement.valid)[..., None]
        return placement.backward(np.asarray(apply(segmenter.variables, *images, valid)[0][-1]))

    return logits


@pytest.mark.parametrize("cyclic", [False, True])
def test_a_cine_is_its_frames_one_by_one(segmenter, offline, cyclic):
    first, last = (3, 0) if cyclic else (0, 3)
    times = [(first, 0, 1), (0, 1, 2), (1, 2, 3), (2, 3, last)]
    placement = segmenter.place(CINE.shape[1:], SPACING)
    assert len(placement.windows) == 2
    stream = list(segmenter.logits(CINE, placement, times))
    expected = [offline(*triple) for triple in times]
    for y, z in zip(stream, expected, strict=True):
        np.testing.assert_allclose(y, z, atol=1e-5 * np.abs(z[placement.inside]).max())
    labels = np.stack(stream).argmax(-1)
    assert set(np.unique(labels)) > {0}
    found, placements = zip(*segmenter.labels(CINE, Window(placement), times), strict=True)
    np.testing.assert_array_equal(found, labels)
    assert set(placements) == {placement}
    done = []
    np.testing.assert_array_equal(segmenter.segment_cine(CINE, SPACING, cyclic=cyclic, done=done.append), labels)
    assert done == [0, 1, 2, 3]


def test_a_frame_alone_is_its_own_neighbour(segmenter):
    frame, before, after = CINE[1], CINE[0], CINE[2]
    alone = segmenter.segment_frame(frame, SPACING)
    np.testing.assert_array_equal(alone, segmenter.segment_frame(frame, SPACING, frame, frame))
    expected = segmenter.segment_cine(CINE[:3], SPACING)[1]
    np.testing.assert_array_equal(segmenter.segment_frame(frame, SPACING, before, after), expected)


def test_each_frame_is_encoded_once_and_nothing_is_compiled_again(segmenter, monkeypatch):
    segmenter.segment_frame(CINE[0], SPACING)
    encoded, (encode, decode) = [], segmenter._network
    monkeypatch.setattr(segmenter, "_network", (lambda *args: encoded.append(1) or encode(*args), decode))
    segmenter.segment_cine(CINE, SPACING)
    segmenter.segment_cine(CINE[:, :1, :40], SPACING)
    assert len(encoded) == 4 * 2 + 4  # frames times depth windows
    assert segmenter.traces == 2  # encode and decode


@pytest.mark.parametrize("neighbours, seen", [("both", {1, 2, 3}), ("past", {1, 2}), ("two_past", {0, 1, 2}), ("none", {2})])
def test_a_neighbour_that_is_not_looked_at_is_not_encoded(neighbours, seen, monkeypatch):
    segmenter = Segmenter(Config.make(**SMALL, neighbours=neighbours))
    encoded, placement = [], segmenter.place(CINE.shape[1:], SPACING)
    monkeypatch.setattr(segmenter, "encode", lambda where, frame: encoded.append(float(frame[0, 0, 0])) or ["features"])
    monkeypatch.setattr(segmenter, "decode", lambda *features: [()])
    reach = segmenter.config.model.reach
    list(segmenter._read(CINE, Window(placement), [tuple(range(2 - reach, 3 + reach))]))
    assert set(encoded) == set(np.float32(CINE[sorted(seen), 0, 0, 0]).tolist()) and len(encoded) == len(seen)


def test_mirrored_views_make_a_mirrored_frame_a_mirrored_result(segmenter):
    mirrored = Segmenter(CONFIG, segmenter.variables, mirror=True)
    mirrored._network = segmenter._network
    placement = segmenter.place(CINE.shape[1:], SPACING)
    there = next(mirrored.logits(CINE, placement, [(0, 1, 2)]))
    for axis in (1, 2):
        back = next(mirrored.logits(np.flip(CINE, axis + 1), placement, [(0, 1, 2)]))
        np.testing.assert_allclose(np.flip(back, axis), there, atol=1e-4 * np.abs(there[placement.inside]).max())


def test_what_is_no_run_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="name the --workdir of a training"):
        load(tmp_path)


def test_a_run_without_batch_statistics_is_loaded(tmp_path):
    config = Config.make(**SMALL, norm="group", workdir=str(tmp_path))
    run_folder.open_run(config, {"train": ["a"], "val": ["b"]})
    params = variables(config.model)["params"]
    saved = Checkpoints(tmp_path)
    saved.save(State(np.int32(2), params, params, {}, {}), 0.5)
    saved.close()
    loaded = load(tmp_path)
    assert loaded.step == 2
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, {"params": params, "batch_stats": {}})


def test_the_short_way_from_python(tiny_run):
    frames = np.random.default_rng(1).gamma(2, 100, (2, 2, 64, 64)).astype(np.float32)
    labels = inference.load(tiny_run).segment(frames, (10.0, 1.5, 1.5))
    assert (labels == load(tiny_run).segment(frames, (10.0, 1.5, 1.5))).all() and labels.shape == frames.shape
    done = subprocess.run([sys.executable, "-c", "import sys, ica_unet_jax.inference; print('jax' in sys.modules)"], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
