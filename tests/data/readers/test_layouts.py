"""The layouts of the field: each hands over the same arrays as the cohort that it was rewritten from."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
from layouts import LAYOUTS, WHERE, save
from places import ROOT, SHARED_DATA
from tiny import LOOP

from ica_unet_jax import check_data
from ica_unet_jax.config import Config
from ica_unet_jax.data import cache, reading, splits
from ica_unet_jax.data.case import LATE
from ica_unet_jax.errors import BadData, UserError
from ica_unet_jax.evaluation import judging
from ica_unet_jax.inference import jobs, prediction
from ica_unet_jax.training import loading, loop

MINI = SHARED_DATA / "acdc_mini"
VENDORS = {"mms": ["Siemens", "Philips"] * 2, "mms2": ["Siemens", "Philips"] * 2}
PARTS = {"mms": [{"Training/Labeled": "train", "Validation": "val", "Testing": "test"}[place] for place in WHERE["mms"]],
         "mms2": ["train"] * 4, "nnunet": ["train"] * 3 + ["test"]}  # fmt: skip


def assert_same(originals, folder, layout, names):
    """Whether a folder is found to be of that layout, and gives what it was rewritten from; nnU-Net's has no other frames than the labelled."""
    cases = {case.name: case for case in reading.find_cases(folder)}
    assert {case.reader for case in cases.values()} == {layout}
    for number, cine in enumerate(originals):
        case = cases[names[cine.case.name]]
        read = reading.read(case)
        times = sorted(cine.labels) if layout == "nnunet" else list(cine.times)
        assert list(read.times) == times and read.spacing == cine.spacing
        np.testing.assert_array_equal(read.frames, np.stack([cine.frame(time) for time in times]))
        np.testing.assert_array_equal(read.affine, cine.header.get_best_affine())
        assert sorted(read.labels) == sorted(cine.labels)
        for time, labels in cine.labels.items():
            np.testing.assert_array_equal(read.labels[time], labels)
        if layout not in ("nnunet", "folder"):
            assert (read.case.ed, read.case.es) == (cine.case.ed, cine.case.es)
        if len(originals) == 4:
            assert case.vendor == VENDORS.get(layout, [""] * 4)[number] and case.part == PARTS.get(layout, [""] * 4)[number]
    return cases


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_gives_what_it_was_rewritten_from(layout, originals, written):
    folder, names = written[layout]
    cases = assert_same(originals, folder, layout, names)
    assert set(cases) - set(names.values()) == ({"U0S9V9"} if layout == "mms" else set())
    assert {case.name for case in reading.find_cases(folder, reader=layout)} == set(cases)


@pytest.mark.slow
@pytest.mark.skipif(not MINI.is_dir(), reason="needs ACDC-mini beside the checkout")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_real_patients_too(layout, tmp_path):
    originals = [reading.read(case) for case in reading.find_cases(MINI)]
    assert_same(originals, tmp_path / layout, layout, LAYOUTS[layout](tmp_path / layout, originals))


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_command_takes_a_layout_as_it_is(layout, written, tmp_path, capsys, compiled_once):
    folder, names = written[layout]
    config = Config.make(**LOOP | dict(data_dir=str(folder), cache_dir=str(tmp_path / "cache"), workdir=str(tmp_path / "run"), steps=20, evaluate_every=20))
    check_data.check(config.data)
    assert f"{len(names) + (layout == 'mms')} cases, 0 bad, 0 problems" in capsys.readouterr().out
    loop.train(config)
    summary = json.loads((judging.evaluate(config.train.workdir, pictures=False) / "summary.json").read_text())
    assert summary["patients"] and summary["dice"]["mean"] > 0 and {"ED", "ES"} == set(phases_in(config.train.workdir))
    prediction.predict(config.train.workdir, folder, tmp_path / "masks")
    masks = {path.name for path in (tmp_path / "masks").glob("*_seg.nii.gz")}
    assert len(masks) == (2 * len(names) if layout == "nnunet" else len(names) + (layout == "mms"))


def phases_in(workdir):
    with open(f"{workdir}/evaluation_val/cases.csv") as file:
        return [row["phase"] for row in csv.DictReader(file)]


def case_of(folder, name, **options):
    return next(case for case in reading.find_cases(folder, **options) if case.name == name)


def test_mms_unlabelled_patients_have_no_ground_truth_and_train(written):
    folder, names = written["mms"]
    case = case_of(folder, "U0S9V9")
    assert not case.labelled and reading.read(case).labels == {}
    assert cache.preprocessed(case, crop=(2, 32, 32), spacing=1.5, cache_dir=folder.parent / "cache") == []
    for fold in range(2):
        split = splits.split_by(reading.find_cases(folder), "folds", 2, fold, 0)
        assert "U0S9V9" in split["train"] and set(split["val"]) < set(names.values())
        assert names["patient004"] not in split["train"] + split["val"]  # Testing
    published = splits.split_by(reading.find_cases(folder), "published", 5, 0, 0)
    assert published == {"train": sorted([names["patient001"], names["patient002"], "U0S9V9"]), "val": [names["patient003"]]}
    assert [case.name for case in splits.select(published, reading.find_cases(folder), "test")] == [names["patient004"]]


def test_a_part_of_mms_by_itself_knows_its_table_and_its_part(written):
    folder, names = written["mms"]
    [case] = reading.find_cases(folder / "Testing")
    assert (case.name, case.vendor, case.part) == (names["patient004"], "Philips", "test")


def test_a_vendor_validates(written):
    folder, names = written["mms2"]
    split = splits.split_by(reading.find_cases(folder), "vendor=philips", 5, 0, 0)
    assert split["val"] == [names["patient002"], names["patient004"]] and split["train"] == [names["patient001"], names["patient003"]]
    for by, sentence in (("vendor=Canon", "leaves nobody in val: there are Philips, Siemens; choose"), ("vendors", "--split_by=vendors is not known")):
        with pytest.raises(UserError, match=sentence):
            splits.split_by(reading.find_cases(folder), by, 5, 0, 0)


def test_nnunets_own_folds_are_honoured(written):
    cases = reading.find_cases(written["nnunet"][0])
    for fold, name in enumerate(("patient001", "patient002")):
        assert splits.split_by(cases, "folds", 5, fold, 0)["val"] == [name]
    with pytest.raises(UserError, match="--fold=2: the splits_final.json of the data has 2 folds; choose one of 0 to 1."):
        splits.split_by(cases, "folds", 5, 2, 0)


def test_phases_without_a_cine_are_no_neighbours(copied):
    folder = copied("mms2")
    (folder / "dataset" / "001" / "001_SA_CINE.nii.gz").unlink()
    cine = reading.read(case_of(folder, "001"))
    assert cine.times == (0, LATE) and sorted(cine.labels) == [0, LATE]
    assert cine.window(0, reach=10) == (0,) * 21 and (cine.case.ed, cine.case.es) == (0, LATE)


def test_nnunets_phases_are_joined_to_patients(copied):
    folder = copied("nnunet")
    for path in [*folder.rglob("patient004_frame0*")]:
        path.rename(path.with_name(path.name.replace("frame01", "ED").replace("frame02", "ES")))
    case = case_of(folder, "patient004")
    assert (case.ed, case.es, sorted(case.frames)) == (0, LATE, [0, LATE]) and reading.check(case) == []


def test_a_label_map_of_the_user_wins(written):
    folder, names = written["ukbb"]
    own = reading.read(case_of(folder, names["patient002"])).labels
    plain = reading.read(case_of(folder, names["patient002"]), "1:1,2:2,3:3,4:3").labels
    for time, labels in own.items():
        np.testing.assert_array_equal(plain[time], np.array([0, 3, 2, 1])[labels])


def test_what_is_odd_is_said_once(written, copied):
    seen = [reading.examine(case) for case in reading.find_cases(written["mms2"][0])]
    assert ["long-axis images" in remark for one in seen for remark in one.remarks] == [True]
    seen = [reading.examine(case) for case in reading.find_cases(written["ukbb"][0])]
    assert ["label 4 is taken as RV" in remark for one in seen for remark in one.remarks] == [True]
    for layout, file in (("mms", "*.csv"), ("mms2", "*.csv"), ("nnunet", "dataset.json")):
        folder = copied(layout)
        next(folder.glob(file)).unlink()
        remarks = [remark for case in reading.find_cases(folder) for remark in reading.examine(case).remarks]
        assert ["there is no" in remark for remark in remarks].count(True) == 1, layout


def test_labelled_frames_of_a_whole_ground_truth(written):
    folder, _ = written["folder"]
    assert sorted(reading.read(case_of(folder, "patient001")).labels) == [0, 1]
    labels = reading.read(case_of(folder, "patient001", labelled_frames="1,4")).labels
    assert sorted(labels) == [0, 1, 3] and not labels[3].any() and labels[0].any()
    with pytest.raises(UserError, match="--labelled_frames=0 must be frame numbers counted from 1, as 1,12."):
        reading.find_cases(folder, labelled_frames="0")


def test_the_recipe_for_a_cohort_that_is_none_of_these(originals, tmp_path):
    """As docs/data.md prints it."""
    [recipe] = [block for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "data.md").read_text(), re.DOTALL) if "def write" in block]
    exec(recipe, names := {})
    cine = originals[0]
    names["write"](tmp_path, "someone", cine.frames, {time + 1: labels for time, labels in cine.labels.items()}, cine.spacing)
    [case] = reading.find_cases(tmp_path)
    read = reading.read(case)
    np.testing.assert_array_equal(read.frames, cine.frames)
    assert read.spacing == cine.spacing and list(read.labels) == list(cine.labels)
    for time, labels in cine.labels.items():
        np.testing.assert_array_equal(read.labels[time], labels)


def test_an_exchanged_order_of_labels_is_remarked_on(cohort):
    for case in reading.find_cases(cohort):
        for label_map, told in (("", False), ("1:3,2:2,3:1", True)):
            remarks = reading.examine(case, label_map).remarks
            assert any("what is taken as RV lies within the myocardium" in remark for remark in remarks) == told


def test_a_plain_folder_with_names_like_those_of_mms_stays_plain(originals, tmp_path):
    """Otherwise its RV and LV would be exchanged."""
    cine = originals[0]
    save(tmp_path / "x_sa.nii.gz", cine.frames, cine)
    save(tmp_path / "x_sa_gt.nii.gz", np.stack([cine.labels.get(time, np.zeros_like(cine.labels[0])) for time in cine.times]), cine)
    [case] = reading.find_cases(tmp_path)
    assert case.reader == "folder" and case.name == "x_sa"
    np.testing.assert_array_equal(reading.read(case).labels[0], cine.labels[0])


def renamed(folder, pattern, name):
    for path in [*folder.rglob("patient*")]:
        path.rename(path.with_name(re.sub(pattern, name, path.name)))


@pytest.mark.parametrize("name", [r"A0S9V\1_000\2_A_1", r"A_1_A0S9V\1_000\2", r"A0S9V\1_000\2", r"A0S9V\1_Frame0\2"])
def test_frames_of_mms_in_nnunets_layout_are_joined_to_patients(name, copied):
    """As nnU-Net's own conversions name them; otherwise a patient could train and validate."""
    folder = copied("nnunet")
    renamed(folder, r"patient00(\d)_frame0(\d)", name)
    assert [(case.name, len(case.frames), len(case.labels)) for case in reading.find_cases(folder)] == [(f"A0S9V{n}", 2, 2) for n in (1, 2, 3, 4)]


def test_phases_are_joined_in_any_case(copied):
    folder = copied("nnunet")
    renamed(folder, "_frame01", "_ed")
    renamed(folder, "_frame0[23]", "_Es")
    assert {(case.ed, case.es, tuple(case.frames)) for case in reading.find_cases(folder)} == {(0, LATE, (LATE, 0))}


def test_ukbbs_parts_are_known_from_inside(written, tmp_path, monkeypatch):
    test = shutil.copytree(written["ukbb"][0], tmp_path / "test")
    for place, dots in ((test, "."), (test / "1000001", "..")):
        monkeypatch.chdir(place)
        assert {(case.name, case.part) for case in reading.find_cases(dots)} == {(f"100000{n}", "test") for n in (1, 2, 3, 4)}
    [case] = reading.find_cases(".")
    assert (case.name, case.part) == ("1000001", "test")


def test_other_images_of_mms2_are_no_patients(copied):
    folder = copied("mms2")
    next(folder.glob("*.csv")).unlink()
    shutil.copy(folder / "dataset" / "001" / "001_SA_ED.nii.gz", folder / "note_SA_x.nii.gz")
    assert [case.name for case in reading.find_cases(folder)] == ["001", "002", "003", "004"]


SPOILT = {
    "mms": lambda folder: [path.write_text(path.read_text().replace("A0S9V9", "B0S9V9")) for path in folder.glob("*.csv")],
    "mms2": lambda folder: [path.write_text(path.read_text().replace("\n1,", "\n9,")) for path in folder.glob("*.csv")],
    "ukbb": lambda folder: (folder / "1000001" / "sa_ES.nii.gz").unlink(),
    "nnunet": lambda folder: [(folder / "labelsTr" / "patient001_frame01.nii.gz").unlink(), (folder / "imagesTr" / "patient002_frame01_0000.nii.gz").unlink()],
    "folder": lambda folder: [(folder / "patient001_gt.nii.gz").rename(folder / "alone_gt.nii.gz"), (folder / "patient002_frame00_gt.nii.gz").write_bytes(b"")],
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_are_segmented_whatever_their_ground_truths_and_tables(layout, copied, tmp_path):
    folder = copied(layout)
    SPOILT[layout](folder)
    count = len(reading.find_cases(folder))
    assert any(reading.check(case) for case in reading.find_cases(folder))
    todo = jobs.find_jobs(folder, tmp_path / "masks")
    assert len(todo) == (2 * count - 1 if layout == "nnunet" else count - (layout == "folder"))  # nobody has an image of the one that is alone


def test_an_image_that_is_not_there_is_told_to_who_segments(copied, tmp_path):
    """And not left out in silence: git-annex leaves such links for what it has not fetched."""
    cine = copied("folder") / "patient002_4d.nii.gz"
    cine.unlink()
    cine.symlink_to("nowhere")
    with pytest.raises(BadData, match="patient002_4d.nii.gz is a link that leads nowhere; put the file itself there."):
        jobs.find_jobs(cine.parent, tmp_path / "masks")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_training_takes_a_layout_as_it_is(layout, written, tmp_path):
    """All that comes before its first step; `test_every_command_takes_a_layout_as_it_is` does the rest."""
    folder, names = written[layout]
    samples, cines, split, left_out = loading.load(Config.make(**LOOP, data_dir=str(folder), cache_dir=str(tmp_path), workers=1))
    learned, validated = {sample.case_name for sample in samples}, {cine.case.name for cine in cines}
    assert learned == set(split["train"]) - {"U0S9V9"} and validated == set(split["val"]) and not left_out
    assert learned | validated == set(names.values()) - {case.name for case in reading.find_cases(folder) if case.part == "test"}
    assert all({1, 2, 3} <= set(np.unique(sample.labels)) for sample in samples)
