import json
from collections import Counter

import pytest

from ica_unet_jax.data import cohort
from ica_unet_jax.data.case import Case
from ica_unet_jax.data.splits import fold_split, read_split, remarks, select, split_by
from ica_unet_jax.errors import UserError

GROUPS = ("NOR", "MINF", "DCM", "HCM", "RV")
ACDC = [Case(f"patient{n:03d}", GROUPS[n % 5]) for n in range(1, 151)]


def test_folds_are_stratified_and_disjoint():
    groups = {case.name: case.group for case in ACDC}
    seen = []
    for fold in range(5):
        split = fold_split(ACDC, 5, fold, seed=0)
        assert len(split["train"]) == 80 and not set(split["train"]) & set(split["val"])
        assert Counter(groups[name] for name in split["val"]) == {group: 4 for group in GROUPS}
        seen += split["val"]
    assert sorted(seen) == [f"patient{n:03d}" for n in range(1, 101)]


def test_folds_depend_on_the_seed_and_not_on_the_order():
    first = fold_split(ACDC, 5, 1, seed=3)
    assert fold_split(ACDC[::-1], 5, 1, seed=3) == first != fold_split(ACDC, 5, 1, seed=4)


def test_uneven_groups_give_even_folds():
    cases = [Case(name, group) for name, group in zip("abcdefghijk", "xxxxxxxyyzz", strict=True)]
    counts = [len(fold_split(cases, 3, fold, 0)["val"]) for fold in range(3)]
    assert sorted(counts) == [3, 4, 4]
    with pytest.raises(UserError, match="--folds=12 needs at least 12 patients outside the test set, the data have 11"):
        fold_split(cases, 12, 0, 0)


def test_with_none_all_but_published_test_patients_train():
    assert split_by(ACDC, "none", 5, 0, 0) == {"train": [f"patient{n:03d}" for n in range(1, 101)], "val": []}
    with pytest.raises(UserError, match="--split_by=none leaves nobody in train; choose another split."):
        split_by(ACDC[100:], "none", 5, 0, 0)


def test_select():
    split = fold_split(ACDC, 5, 0, seed=0)
    assert [case.name for case in select(split, ACDC, "val")] == split["val"]
    assert [case.name for case in select(split, ACDC, "test")] == [f"patient{n}" for n in range(101, 151)]
    assert select(split, ACDC, "all") == ACDC
    own = {"train": ["patient001"], "val": [], "test": ["patient007"]}
    assert select(own, ACDC, "test") == [ACDC[6]]
    with pytest.raises(UserError, match="--split=val: the data hold no such patients"):
        select(own, ACDC, "val")


def test_read_split(tmp_path):
    path = tmp_path / "split.json"
    split = {"train": ["patient001", "patient002"], "val": ["patient003"]}
    path.write_text(json.dumps(split))
    assert read_split(path, ACDC) == split


@pytest.mark.parametrize("text, reason", [
    ("{", "cannot be read as JSON"),
    ('["patient001"]', "must be"),
    ('{"train": ["patient001"]}', "must be"),
    ('{"train": ["patient001"], "val": "patient002"}', "must be"),
    ('{"train": ["patient001"], "val": [2]}', "must be"),
    ('{"train": ["patient001"], "val": ["patient999"]}', "patient999 of 'val' is not in the data"),
    ('{"train": ["patient001", "patient001"], "val": []}', "patient001 stands twice in 'train'"),
    ('{"train": ["patient001"], "val": ["patient001"]}', "patient001 stands in 'train' and 'val'"),
    ('{"train": [], "val": ["patient001"]}', "nobody in 'train'"),
])
def test_bad_split_files(tmp_path, text, reason):
    path = tmp_path / "split.json"
    path.write_text(text)
    with pytest.raises(UserError, match=reason) as error:
        read_split(path, ACDC)
    assert str(error.value).startswith(f"--split_file={path}")


def test_missing_split_file(tmp_path):
    with pytest.raises(UserError, match="cannot be read as JSON"):
        read_split(tmp_path / "none.json", ACDC)


def test_folds_spread_vendors_centres_and_groups():
    cases = [Case(f"{vendor}{centre}{n:02d}", "HCM" if n % 2 else "NOR", vendor, centre) for vendor in "AB" for centre in "12" for n in range(10)]
    for fold in range(5):
        val = set(fold_split(cases, 5, fold, seed=1)["val"])
        assert Counter((case.vendor, case.centre, case.group) for case in cases if case.name in val) == Counter(
            {(vendor, centre, group): 1 for vendor in "AB" for centre in "12" for group in ("HCM", "NOR")})


def test_a_table_of_patients(tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("name,group,vendor,centre,age\na,HCM,GE,,50\nz,NOR,GE,1,60\n")
    a, b = cohort.described([Case("a", "NOR", centre="3"), Case("b", "DCM")], table)
    assert (a.group, a.vendor, a.centre) == ("HCM", "GE", "3") and b == Case("b", "DCM")
    for text, sentence in (("patient,group\na,HCM\n", "tells nothing of these patients; its columns must be name and some of"),
                           ("name,group\na,HCM\na,NOR\n", "has two rows for a; remove one of them.")):
        table.write_text(text)
        with pytest.raises(UserError, match=f"--cohort_csv=.*{sentence}"):
            cohort.described([a], table)
    with pytest.raises(UserError, match="--cohort_csv=.*none.csv cannot be read"):
        cohort.described([a], tmp_path / "none.csv")


def test_no_cohort_is_left_out_in_silence():
    """Of several cohorts some have folds, or parts, of their own, and others do not."""
    own = [Case(name, cohort="A", folds=("val" if name == "a" else "train",), part="val" if name == "a" else "train") for name in "abc"]
    for by in ("folds", "published"):
        assert split_by(own, by, 5, 0, 0) == {"train": ["b", "c"], "val": ["a"]}
        with pytest.raises(UserError, match=f"--split_by={by} leaves out all of B, which does not say who trains; give a --split_file"):
            split_by([*own, Case("x", cohort="B")], by, 5, 0, 0)
        assert split_by([*own, Case("x", cohort="B", part="test")], by, 5, 0, 0)["train"] == ["b", "c"]


def test_who_is_in_no_part_is_told_and_published_test_patients_are_in_no_fold():
    cases = [Case(name, folds=(part,)) for name, part in (("a", "train"), ("b", "val"), ("c", ""), ("patient101", "train"))]
    split = split_by([*cases, Case("patient102")], "folds", 5, 0, 0)
    assert split == {"train": ["a"], "val": ["b"]}
    assert remarks(split, [*cases, Case("patient102")]) == ["2 of 5 patients are in no part of the split (c, patient101)."]
    assert remarks(split, cases[:2]) == []


def test_frames_that_may_be_of_one_patient_are_told():
    def told(*names):
        cases = [Case(name, reader="nnunet") for name in names]
        return remarks({"train": list(names[::2]), "val": list(names[1::2])}, cases)

    assert told("a_1", "a_2", "b_1", "b_2")[0].startswith("a_1 trains and a_2 validates; if these are frames of one patient, call them a_frame01")
    assert told("case_0001", "case_0002", "case_0003", "case_0004") == []  # patients, by nnU-Net's habit
    assert told("a", "b") == told("a_1", "b_1") == []
