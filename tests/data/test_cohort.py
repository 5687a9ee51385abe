"""Several cohorts at once: each is read by its own reader, known by its folder, and shown as often as the others."""

import dataclasses
import json
import shutil
from collections import Counter

import numpy as np
import pytest
from layouts import mms2

from ica_unet_jax.config import Config, DataConfig
from ica_unet_jax.data import cohort, reading
from ica_unet_jax.data.case import Case
from ica_unet_jax.data.learning_frame import LearningFrame
from ica_unet_jax.errors import UserError
from ica_unet_jax.training import loading, loop


@pytest.fixture(scope="module")
def other(cohort, tmp_path_factory):
    """Two of the phantom patients as M&Ms-2 lays them out, with its labels."""
    folder = tmp_path_factory.mktemp("cohorts") / "MnM2"
    mms2(folder, [reading.read(case) for case in reading.find_cases(cohort)[:2]])
    return folder


@pytest.fixture(name="phantom")
def phantom_cohort(cohort):
    return cohort


def both(phantom, other):
    return DataConfig(data_dir=f"{phantom},{other}", folds=2)


def test_each_cohort_has_its_own_reader_and_labels(phantom, other):
    cases = {case.name: case for case in cohort.open_cohort(both(phantom, other))}
    assert {name: (case.cohort, case.reader) for name, case in cases.items() if name in ("001", "patient001")} == {
        "001": ("MnM2", "mms2"), "patient001": (phantom.name, "acdc")}  # fmt: skip
    one, same = (reading.read(cases[name]).labels for name in ("001", "patient001"))
    for time, labels in same.items():
        np.testing.assert_array_equal(one[time], labels)
    assert {case.cohort for case in cohort.open_cohort(DataConfig(data_dir=str(phantom)))} == {""}


def test_folds_and_who_validates(phantom, other):
    data = both(phantom, other)
    cases = cohort.open_cohort(data)
    home = {case.name: case.cohort for case in cases}
    split = cohort.choose_split(data, cases)
    assert Counter(home[name] for name in split["val"]) == {"MnM2": 1, phantom.name: 2}
    alone = cohort.choose_split(Config.make(split_by="cohort=MnM2").data, cases)
    assert {home[name] for name in alone["val"]} == {"MnM2"} and {home[name] for name in alone["train"]} == {phantom.name}


def test_the_same_name_twice_is_refused(phantom, tmp_path):
    shutil.copytree(phantom, tmp_path / "again")
    with pytest.raises(UserError, match=f"again has a patient patient001, as {phantom.name}; rename one of them."):
        cohort.open_cohort(DataConfig(data_dir=f"{phantom},{tmp_path / 'again'}"))
    with pytest.raises(UserError, match="none is not a folder"):
        cohort.open_cohort(DataConfig(data_dir=f"{phantom},{tmp_path / 'none'}"))


def frame(name, time, labelled=True):
    empty = np.zeros((1, 1, 1))
    return LearningFrame(name, time, empty, empty, empty, labelled)


def test_balanced_domains_come_equally_often():
    samples = [frame(name, time) for name in "abcde" for time in (0, 1)] + [frame("x", time) for time in range(4)] + [frame("y", 0, labelled=False)]
    found = cohort.balanced(samples, dict.fromkeys("abcde", "large") | {"x": "small", "y": "small"})
    often = Counter((sample.case_name, sample.time) for sample in found)
    assert sum(count for (name, _), count in often.items() if name == "x") == 10 == sum(often[name, time] for name in "abcde" for time in (0, 1))
    assert sorted(often["x", time] for time in range(4)) == [2, 2, 3, 3] and often["y", 0] == 1
    assert cohort.balanced(samples[:10], dict.fromkeys("abcde", "")) == samples[:10]


def test_training_takes_balanced_frames(phantom, other, tmp_path):
    config = Config.make(data_dir=f"{phantom},{other}", folds=2, balance="cohort", cache_dir=str(tmp_path), crop=(2, 32, 32), model="unet2d")
    samples, _, _, _ = loop.load(config)
    assert Counter(sample.case_name.startswith("patient") for sample in samples) == {True: 4, False: 4}
    assert len(loop.load(config.replace(balance="none"))[0]) == 6


def test_what_is_of_one_cohort_is_refused_for_several(phantom, other):
    for flag, value in (("label_map", "1:3,2:2,3:1"), ("labelled_frames", "1,4")):
        with pytest.raises(UserError, match=f"--{flag}={value} with several cohorts: it would be taken for all of them"):
            cohort.open_cohort(dataclasses.replace(both(phantom, other), **{flag: value}))


def test_cohorts_of_one_name_are_refused_and_dots_have_one(phantom, other, tmp_path, monkeypatch):
    twin = tmp_path / phantom.name.upper()
    twin.mkdir()
    with pytest.raises(UserError, match=f"two cohorts are called {phantom.name}, by their folders"):
        cohort.open_cohort(DataConfig(data_dir=f"{phantom},{twin}"))
    monkeypatch.chdir(other)
    assert {case.cohort for case in cohort.open_cohort(DataConfig(data_dir=f".,{phantom}"))} == {other.name, phantom.name}


def test_who_validates_must_have_a_ground_truth(phantom, tmp_path):
    """By names before anything is read, and otherwise before the first step."""
    folder = shutil.copytree(phantom, tmp_path / "data")
    for path in (folder / "patient002").glob("*frame*"):
        path.unlink()
    (folder / "patient003" / "patient003_4d.nii.gz").write_bytes(b"")
    config = Config.make(data_dir=str(folder), cache_dir=str(tmp_path), crop=(2, 32, 32), model="unet2d", skip_bad_cases=True, workers=1)

    def validated_by(*names):
        split = tmp_path / f"{len(names)}.json"
        split.write_text(json.dumps({"train": ["patient001"], "val": names}))
        return config.replace(split_file=str(split))

    with pytest.raises(UserError, match="--split_file=.*: none of those who validate has a ground truth"):
        cohort.choose_split(validated_by("patient002").data, cohort.open_cohort(config.data))
    with pytest.raises(UserError, match="No frame of the patients who validate has a ground truth"):
        loading.load(validated_by("patient002", "patient003"))


def test_a_table_may_lack_leading_zeros(tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("name,vendor\n7,GE\n")
    assert [case.vendor for case in cohort.described([Case("007"), Case("8")], table)] == ["GE", ""]
    with pytest.raises(UserError, match="--cohort_csv=.* cannot tell 007 and 7 apart"):
        cohort.described([Case("007"), Case("7")], table)
