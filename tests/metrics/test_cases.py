import csv
import json
import math

import numpy as np
import pytest

from ica_unet_jax.errors import UserError
from ica_unet_jax.labels import STRUCTURES
from ica_unet_jax.metrics import cases

SPACING = (10.0, 2.0, 1.0)


def labels(rv=2, myo=2, lv=2):
    """One slice of three rows, with so many voxels of each structure from the left."""
    volume = np.zeros((1, 3, 8), np.uint8)
    for label, size in enumerate((rv, myo, lv), start=1):
        volume[0, label - 1, :size] = label
    return volume


def row(patient, phase, prediction, truth, group="NOR", nominal=False, outside=0):
    case = dict(patient=patient, group=group, frame=1 if phase == "ED" else 9, phase=phase)
    case |= dict(nominal_spacing=nominal, labelled_outside=outside)
    return case | cases.case_metrics(prediction, truth, SPACING)


@pytest.fixture
def rows():
    """Three patients: A good, B has lost the RV at ES, C has nominal spacing and an absent RV."""
    return [
        row("A", "ED", labels(lv=6), labels(lv=6)),
        row("A", "ES", labels(lv=1), labels(lv=3)),  # Dice 2/4, two voxels too short
        row("B", "ED", labels(lv=4), labels(lv=4), group="DCM", outside=5),
        row("B", "ES", labels(rv=0, lv=2), labels(lv=2), group="DCM"),
        row("C", "ED", labels(rv=0, lv=2), labels(rv=0, lv=4), nominal=True),
        row("C", "ES", labels(rv=0, lv=1), labels(rv=0, lv=1), nominal=True),
    ]


def test_one_case_by_hand():
    case = cases.case_metrics(labels(lv=1), labels(lv=3), SPACING)
    assert set(case) == set(cases.COLUMNS) - set(cases.CASE) | {"labelled_voxels"}
    assert (case["dice_LV"], case["hd_mm_LV"], case["dice_RV"], case["hd_mm_RV"]) == (0.5, 2, 1, 0)
    assert case["assd_mm_LV"] == 0.5  # directed means 0 and (0 + 1 + 2) / 3
    assert case["hd95_mm_LV"] == pytest.approx(1.9)  # percentile 95 of 0, 1, 2
    assert (case["volume_ml_LV"], case["volume_ml_true_LV"]) == pytest.approx((0.02, 0.06))
    assert case["labelled_voxels"] == 7
    assert case["nsd_LV"] == 1  # 1 and 3 voxels of surface, none further than 2 mm
    assert cases.case_metrics(labels(lv=1), labels(lv=3), SPACING, nsd_mm=1)["nsd_LV"] == (1 + 2) / (1 + 3)


def test_missed_and_absent_structures():
    missed = cases.case_metrics(labels(rv=0), labels(), SPACING)
    assert (missed["dice_RV"], missed["hd95_mm_RV"], missed["volume_ml_RV"]) == (0, math.inf, 0)
    assert missed["nsd_RV"] == 0
    absent = cases.case_metrics(labels(rv=0), labels(rv=0), SPACING)
    assert absent["dice_RV"] == 1 and math.isnan(absent["assd_mm_RV"]) and math.isnan(absent["nsd_RV"])


def test_shapes_must_agree():
    with pytest.raises(UserError, match="native grid"):
        cases.case_metrics(labels(), labels()[:, :2], SPACING)
    with pytest.raises(UserError, match="native grid"):
        cases.case_metrics(labels()[0], labels()[0], SPACING)


def test_summary_averages_a_patient_first(rows):
    summary = cases.summarize(rows)
    a, b, c = (1 + 1 / 2) / 2, 1, (2 / 3 + 1) / 2
    assert summary["dice"]["LV"] == pytest.approx((a + b + c) / 3)
    assert summary["dice_sd"]["LV"] == pytest.approx(np.std([a, b, c], ddof=1))
    assert summary["dice"]["RV"] == pytest.approx((1 + 1 / 2 + 1) / 3)  # B's lost RV counts 0
    assert summary["dice"]["mean"] == pytest.approx(np.mean([summary["dice"][name] for name in STRUCTURES]))
    assert summary["dice_n"] == dict.fromkeys(("RV", "MYO", "LV", "mean"), 3)


def test_summary_counts_what_its_averages_leave_out(rows):
    summary = cases.summarize(rows)
    assert (summary["n_cases"], summary["n_patients"], summary["n_mm"]) == (6, 3, 2)
    assert summary["n_missed"] == {"RV": 1, "MYO": 0, "LV": 0}
    assert summary["n_absent"] == {"RV": 2, "MYO": 0, "LV": 0}
    assert summary["hd_mm"]["LV"] == pytest.approx((2 / 2 + 0) / 2)  # C has no mm
    assert (summary["hd95_mm"]["RV"], summary["hd95_mm_n"]["RV"]) == (0, 2)
    assert (summary["nsd"]["RV"], summary["nsd_n"]["RV"]) == ((1 + (1 + 0) / 2) / 2, 2)  # B's lost RV counts 0, C has no mm
    assert (summary["labelled_voxels"], summary["labelled_voxels_outside"]) == (10 + 7 + 8 + 6 + 6 + 3, 5)


def test_summary_of_clinical_figures(rows):
    summary = cases.summarize(rows)
    # EF of the LV, predicted and true: A 5/6 and 1/2, B 1/2 and 1/2, C 1/2 and 3/4 (no spacing needed).
    assert summary["ef"]["LV"]["bias"] == pytest.approx((1 / 3 + 0 - 1 / 4) / 3)
    assert summary["ef"]["LV"]["n"] == 3
    assert (summary["ef"]["RV"]["n"], summary["ef"]["RV"]["n_undefined"]) == (2, 1)  # C has no RV
    assert summary["esv_ml"]["LV"]["bias"] == pytest.approx(-0.02)  # A −0.04 mL, B 0
    assert summary["edv_ml"]["LV"]["limits"] == [0, 0]
    assert summary["edv_ml"]["LV"]["r"] == pytest.approx(1)
    assert summary["mass"]["n"] == 2
    assert summary["mass"]["r"] is None  # both have one mass


def test_summary_is_strict_json(rows):
    lost = [row("D", "ED", labels(0, 0, 0), labels())]
    for some in (rows, lost, []):
        assert json.loads(json.dumps(cases.summarize(some), allow_nan=False)) == cases.summarize(some)
    assert cases.summarize(lost)["hd95_mm"] == dict.fromkeys(("RV", "MYO", "LV", "mean"), None)
    assert cases.summarize(lost)["dice"]["mean"] == 0


def test_csv_keeps_inf_and_nan(tmp_path, rows):
    path = tmp_path / "cases.csv"
    cases.write_cases_csv(path, rows)
    with path.open(newline="") as file:
        read = list(csv.DictReader(file))
    assert tuple(read[0]) == cases.COLUMNS
    assert [line["hd95_mm_RV"] for line in read] == ["0.0", "0.0", "0.0", "inf", "nan", "nan"]
    assert [line["nominal_spacing"] for line in read] == ["0", "0", "0", "0", "1", "1"]
    assert [float(line["dice_LV"]) for line in read] == [case["dice_LV"] for case in rows]
    assert [entry.name for entry in tmp_path.iterdir()] == ["cases.csv"]


def test_a_file_of_an_earlier_version_is_read(tmp_path, rows):
    path = tmp_path / "cases.csv"
    cases.write_cases_csv(path, rows)
    columns = [name for name in cases.COLUMNS if not name.startswith("nsd_")]
    with path.open(newline="") as file:
        lines = [{name: line[name] for name in columns} for line in csv.DictReader(file)]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(lines)
    old = cases.read_cases_csv(path)
    assert all(math.isnan(line[f"nsd_{name}"]) for line in old for name in STRUCTURES)
    assert [line["dice_LV"] for line in old] == [line["dice_LV"] for line in rows]
    summary = cases.summarize(old)
    assert (summary["nsd"]["LV"], summary["nsd_n"]["LV"]) == (None, 0)
    path.write_text(path.read_text().replace("dice_LV", "dice"))
    with pytest.raises(UserError, match="cannot be read"):
        cases.read_cases_csv(path)


def test_a_failed_write_leaves_the_old_csv(tmp_path, rows):
    path = tmp_path / "cases.csv"
    cases.write_cases_csv(path, rows)
    before = path.read_text()
    with pytest.raises(ValueError, match="surprise"):
        cases.write_cases_csv(path, [*rows, rows[0] | {"surprise": 1}])
    assert path.read_text() == before
