"""How sure a network is of a frame, and of those that it learned from."""

import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest

from ica_unet_jax.data import reading
from ica_unet_jax.errors import UserError
from ica_unet_jax.evaluation import certainty, frames
from ica_unet_jax.inference import exporting, prediction, segmenters
from ica_unet_jax.inference.options import Options
from ica_unet_jax.metrics import doubts
from ica_unet_jax.runs.trained import find


def test_entropy_of_voxels_that_may_be_heart(tiny_run):
    """Voxels that are surely background do not count."""
    segmenter = segmenters.load(tiny_run)
    d, h, w = segmenter.config.model.crop
    placement = segmenter.place((d, h, w), (10.0, *[segmenter.config.data.spacing] * 2))
    logits = np.zeros((1, d, h, w, 4), np.float32)
    assert segmenter.unsure(placement, (logits,)) == pytest.approx(np.log(4))
    logits[..., 0] = 50
    assert segmenter.unsure(placement, (logits,)) == 0
    logits[0, 0, 5, 6] = (0, 0, -50, -50)  # background or RV
    assert segmenter.unsure(placement, (logits,)) == pytest.approx(np.log(2))
    logits[0, 1, 5, 6] = (-50, -50, -50, 50)
    assert segmenter.unsure(placement, (logits,)) == pytest.approx(np.log(2) / 2)


def test_padding_does_not_count(tiny_run):
    """A stack of one slice in a window of two, and voxels beyond the image: what the network says there is nothing."""
    segmenter = segmenters.load(tiny_run)
    d, h, w = segmenter.config.model.crop
    placement = segmenter.place((1, h, w - 8), (10.0, *[segmenter.config.data.spacing] * 2))
    logits = np.zeros((1, d, h, w, 4), np.float32)
    logits[..., 0] = 50
    [[_, mask]] = segmenter.views(placement, segmenter.put(np.random.default_rng(0).random((1, h, w - 8))))
    outside = np.asarray(mask)[..., 0] < 0.5
    assert outside.any() and not outside.all()
    logits[outside] = 0
    assert segmenter.unsure(placement, (logits,)) == 0


@pytest.fixture(scope="module")
def learned(tiny_run, tmp_path_factory):
    run = tmp_path_factory.mktemp("learned") / "run"
    shutil.copytree(tiny_run, run)
    certainty.learn(run)
    return run


def test_the_limit_is_that_of_the_training_frames(learned):
    segmenter, entropies = segmenters.load(learned), []
    for case in reading.find_cases(find(learned).config.data.data_dir):
        if case.name in find(learned).split["train"]:
            cine = reading.read(case)
            frames.segment(segmenter, cine, sorted(cine.labels), watch=segmenter.noting(entropies))
    limit = json.loads((learned / "doubts.json").read_text())["unsure"]
    assert len(entropies) == 4 and limit == pytest.approx(np.percentile(entropies, 99))
    assert find(learned).doubt_limits == doubts.LIMITS | {"unsure": limit}


def test_a_weights_file_tells_it_too(learned, tmp_path):
    exporting.export_weights(learned, tmp_path / "w.safetensors")
    assert find(tmp_path / "w.safetensors").doubt_limits == find(learned).doubt_limits


@pytest.mark.parametrize("limit, told", [(-1.0, True), (2.0, False)])
def test_a_prediction_tells_frames_beyond_it(learned, tmp_path, limit, told):
    run = tmp_path / "run"
    shutil.copytree(learned, run)
    (run / "doubts.json").write_text(json.dumps({"unsure": limit}))
    image = next(case.cine for case in reading.find_cases(find(run).config.data.data_dir))
    prediction.predict(run, image, tmp_path / "masks.nii.gz")
    with (tmp_path / "masks_volumes.csv").open() as file:
        count = len(list(csv.DictReader(file)))
    signs = json.loads((tmp_path / "masks_summary.json").read_text())["doubts"]
    assert signs.get("unsure") == (list(range(1, count + 1)) if told else None)


def test_what_cannot_be_a_limit_is_a_sentence(learned, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(learned, run)
    for bad in ('{"unsure": "often"}', '{"unsure": NaN}', '{"unsure": true}', '{"gap": 3}'):
        (run / "doubts.json").write_text(bad)
        with pytest.raises(UserError, match=r"doubts.json must be as"):
            prediction.predict(run, next(case.cine for case in reading.find_cases(find(run).config.data.data_dir)), tmp_path / "masks.nii.gz")


def test_a_frame_that_shows_nothing_is_no_doubt_of_the_network(learned):
    segmenter = segmenters.load(learned)
    cine = reading.read(next(case for case in reading.find_cases(find(learned).config.data.data_dir) if case.cine))
    frames_ = cine.frames.copy()
    frames_[1] = 0
    _, unsure = prediction.segment(segmenter, dataclasses.replace(cine, frames=frames_), Options(), "x")
    assert unsure[1] == 0 and len(unsure) == len(frames_)
