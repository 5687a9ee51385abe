import json
from collections import Counter

import pytest

from ica_unet_jax.data import cohort
from ica_unet_jax.data.case import Case
from ica_unet_jax.data.splits import fold_split, read_split, select
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
