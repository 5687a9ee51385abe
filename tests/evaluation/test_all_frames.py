"""Where each frame of a cine has a ground truth, each counts, and so does how the truth itself moves."""

import csv
import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from ica_unet_jax.data import reading
from ica_unet_jax.data.phantom.beating_heart import simulate, write_cohort
from ica_unet_jax.evaluation import judging
from ica_unet_jax.metrics.over_time import behaviour

SHAPE, FRAMES = (2, 64, 64), 4


@pytest.fixture
def all_labelled(tmp_path):
    """Two phantom patients, with a file of labels for each frame and, in another folder, for each cine."""
    frames, cines = tmp_path / "frames", tmp_path / "cines"
    write_cohort(frames, patients=2, shape=SHAPE, frames=FRAMES, label_every=True)
    cines.mkdir()
    for patient in frames.iterdir():
        shutil.copy(patient / f"{patient.name}_4d.nii.gz", cines)
        truths = [nib.load(path) for path in sorted(patient.glob("*_gt.nii.gz"))]
        whole = np.stack([np.asarray(truth.dataobj) for truth in truths], axis=-1)
        nib.save(nib.Nifti1Image(whole, truths[0].affine), cines / f"{patient.name}_gt.nii.gz")
    return frames, cines


def test_both_ways_of_labelling_all_frames_are_read_alike(all_labelled):
    for one, other in zip(*(reading.find_cases(folder) for folder in all_labelled), strict=True):
        one, other = reading.read(one), reading.read(other)
        assert list(one.labels) == list(other.labels) == list(one.times) == list(range(FRAMES))
        np.testing.assert_array_equal([*one.labels.values()], [*other.labels.values()])


def test_an_evaluation_counts_all_frames(tiny_run, all_labelled, tmp_path):
    out = judging.evaluate(tiny_run, tmp_path / "out", data_dir=all_labelled[1], split="all", cines=2, pictures=False)
    with (out / "cases.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["patient"], row["frame"]) for row in rows] == [(f"patient00{n}", str(t)) for n in (1, 2) for t in range(1, FRAMES + 1)]
    summary = json.loads((out / "summary.json").read_text())
    assert summary["n_cases"] == 2 * FRAMES and summary["n_patients"] == 2
    for index in range(2):
        phantom, told = simulate(0, index, SHAPE, FRAMES), summary["over_time"][f"patient00{index + 1}"]
        known = behaviour(phantom.labels, None, phantom.spacing)["prediction"]
        assert told["n_frames"] == FRAMES and told["truth"]["neighbour_dice"] == pytest.approx(known["neighbour_dice"])
        assert told["truth"]["roughness"] == pytest.approx(known["roughness"])
    table = (out / "table.md").read_text()
    assert "2 patients, 8 frames" in table and "| ground truth, mean of 2 |" in table
