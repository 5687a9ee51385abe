"""How sure a network is of a frame, and of those that it learned from."""

import csv
import json
import shutil

import numpy as np
import pytest

from ica_unet_jax.data import reading
from ica_unet_jax.errors import UserError
from ica_unet_jax.evaluation import certainty, frames
from ica_unet_jax.inference import exporting, prediction, segmenters
from ica_unet_jax.metrics import doubts
from ica_unet_jax.runs.trained import find


def test_entropy_of_voxels_that_may_be_heart(tiny_run):
    """Voxels that are surely background do not count; of two views each counts."""
    unsure = segmenters.load(tiny_run).unsure
    logits = np.zeros((1, 2, 3, 4, 4), np.float32)
    assert unsure((logits,)) == pytest.approx(np.log(4))
    logits[..., 0] = 50
    assert unsure((logits,)) == 0
    logits[0, 0, 0, 0] = (0, 0, -50, -50)  # background or RV
    assert unsure((logits,)) == pytest.approx(np.log(2))
    sure = np.full_like(logits, -50)
    sure[..., 3] = 50
    assert unsure((sure,)) == pytest.approx(0, abs=1e-6)
    assert unsure((logits, sure)) == pytest.approx(np.log(2) / (1 + sure[..., 0].size), abs=1e-6)


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
            for _, logits in frames.logits(segmenter, cine, sorted(cine.labels)):
                entropies.append(segmenter.unsure((logits,)))  # of the native grid, which is the network's own
    limit = json.loads((learned / "doubts.json").read_text())["unsure"]
    assert len(entropies) == 4 and limit == pytest.approx(np.percentile(entropies, 99), rel=0.05)
    assert find(learned).limits == doubts.LIMITS | {"unsure": limit}


def test_a_weights_file_tells_it_too(learned, tmp_path):
    exporting.export_weights(learned, tmp_path / "w.safetensors")
    assert find(tmp_path / "w.safetensors").limits == find(learned).limits


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
    (run / "doubts.json").write_text('{"unsure": "often"}')
    with pytest.raises(UserError, match=r"doubts.json must be as"):
        _ = find(run).limits
