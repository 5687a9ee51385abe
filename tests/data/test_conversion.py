"""A cohort as nnU-Net's raw data: the same frames, labels and folds come back."""

import dataclasses
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from layouts import LAYOUTS

from ica_unet_jax.config import DataConfig
from ica_unet_jax.data import cohort, conversion, reading
from ica_unet_jax.errors import UserError


@pytest.fixture(scope="module")
def data(cohort):
    return DataConfig(data_dir=str(cohort), folds=2)


@pytest.fixture(scope="module")
def converted(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("converted") / "Dataset027_ACDC"
    assert conversion.to_nnunet(data, out) == {"Tr": 8, "Ts": 0}
    return out


def test_frames_labels_and_folds_come_back(data, converted):
    cases = reading.find_cases(converted)
    for case, before in zip(cases, map(reading.read, cohort.open_cohort(data)), strict=True):
        cine = reading.read(case)
        assert case.reader == "nnunet" and case.name == before.case.name and cine.spacing == before.spacing
        assert sorted(cine.labels) == list(cine.times) == sorted(before.labels)
        for time, labels in before.labels.items():
            np.testing.assert_array_equal(cine.labels[time], labels)
            np.testing.assert_array_equal(cine.frame(time), before.frame(time))
    for fold in range(2):
        ours = cohort.choose_split(dataclasses.replace(data, fold=fold), cohort.open_cohort(data))
        assert cohort.choose_split(dataclasses.replace(data, fold=fold, folds=5), cases) == ours
    assert len(json.loads((converted / "splits_final.json").read_text())) == 2
    assert not list(converted.parent.glob(".writing*"))


def test_it_is_laid_out_as_nnunet_wants_it(converted):
    known = json.loads((converted / "dataset.json").read_text())
    assert known["labels"] == {"background": 0, "RV": 1, "MYO": 2, "LV": 3} and known["file_ending"] == ".nii.gz"
    images, labels = (sorted(converted.glob(f"{kind}Tr/*.nii.gz")) for kind in ("images", "labels"))
    assert known["numTraining"] == len(images) == len(labels) == 8
    for image, truth in zip(images, labels, strict=True):
        assert image.name == truth.name.replace(".nii.gz", "_0000.nii.gz")
        header, other = nib.load(image).header, nib.load(truth).header
        assert header.get_zooms() == other.get_zooms() and header.get_data_shape() == other.get_data_shape() and len(header.get_zooms()) == 3
        np.testing.assert_array_equal(header.get_best_affine(), other.get_best_affine())


def test_published_test_patients_are_for_the_test(data, tmp_path):
    originals = [reading.read(case) for case in cohort.open_cohort(data)]
    names = LAYOUTS["mms"](tmp_path / "mms", originals)
    chosen = dataclasses.replace(data, data_dir=str(tmp_path / "mms"), split_by="published")

    def frames_of(number):
        cine = originals[number]
        return [f"{names[cine.case.name]}_frame{time + 1:02d}" for time in sorted(cine.labels)]

    assert conversion.to_nnunet(chosen, tmp_path / "out") == {"Tr": 6, "Ts": 2}
    assert {path.name for path in (tmp_path / "out" / "imagesTs").iterdir()} == {f"{name}_0000.nii.gz" for name in frames_of(3)}
    [fold] = json.loads((tmp_path / "out" / "splits_final.json").read_text())
    assert fold["val"] == frames_of(2) and fold["train"] == frames_of(0) + frames_of(1)  # U0S9V9 has no ground truth
    assert np.unique(nib.load(tmp_path / "out" / "labelsTs" / f"{frames_of(3)[0]}.nii.gz").dataobj).tolist() == [0, 1, 2, 3]


def test_nothing_is_written_over(data, converted):
    with pytest.raises(UserError, match="--out=.*Dataset027_ACDC exists already: name a new folder"):
        conversion.to_nnunet(data, converted)


def test_only_test_patients_go_to_the_test(data, tmp_path, capsys):
    """Who is in no part of the split is not written."""
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"train": ["patient001"], "val": ["patient002"], "test": ["patient003"]}))
    assert conversion.to_nnunet(dataclasses.replace(data, split_file=str(split)), tmp_path / "out") == {"Tr": 4, "Ts": 2}
    assert {path.name[:10] for path in (tmp_path / "out").glob("images*/*")} == {"patient001", "patient002", "patient003"}
    assert "note: in no part of the split, and not written: patient004" in capsys.readouterr().err


def test_a_cohort_without_ground_truth_is_refused(data, tmp_path):
    (tmp_path / "plain").mkdir()
    for case in cohort.open_cohort(data):
        shutil.copy(case.cine, tmp_path / "plain")
    with pytest.raises(UserError, match="plain holds no ground truth, so that there is nothing to write"):
        conversion.to_nnunet(dataclasses.replace(data, data_dir=str(tmp_path / "plain")), tmp_path / "out")
