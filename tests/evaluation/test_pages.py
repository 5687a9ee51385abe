"""The table of an evaluation, of three patients made up."""

import math

import numpy as np
import pytest

from ica_unet_jax.evaluation import pages
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


def test_the_table_by_hand(rows):
    lines = [line.strip("| ").split(" | ") for line in pages.cases_table(rows).splitlines()]
    header, _, *body = lines
    assert [tuple(line[:3]) for line in body] == [
        *(("all", "ED", "3"), ("all", "ES", "3"), ("all", "both", "3")),
        *(("DCM", "ED", "1"), ("DCM", "ES", "1"), ("DCM", "both", "1")),
        *(("NOR", "ED", "2"), ("NOR", "ES", "2"), ("NOR", "both", "2")),
    ]
    both = dict(zip(header, body[2], strict=True))
    assert both["Dice RV"] == "0.833 ± 0.289"
    assert both["n mm"] == "2" and both["NSD RV (2 mm)"] == "0.750"
    assert both["Missed RV / MYO / LV"] == "1 / 0 / 0"
    lost = dict(zip(header, body[4], strict=True))
    assert (lost["Dice RV"], lost["HD95 RV (mm)"], lost["NSD RV (2 mm)"]) == ("0.000 ± –", "–", "0.000")
    assert "NSD RV (1.5 mm)" in pages.cases_table(rows, nsd_mm=1.5)


def test_other_frames_than_ed_and_es_have_a_line_of_their_own(rows):
    parts = {line.split(" | ")[1] for line in pages.cases_table([*rows, rows[0] | {"phase": ""}]).splitlines()[2:]}
    assert parts == {"ED", "ES", "all frames"}


def test_what_an_earlier_version_did_not_measure_is_a_dash(rows):
    old = [row | {f"nsd_{name}": math.nan for name in STRUCTURES} for row in rows]
    assert "| – | – | – | 2 |" in pages.cases_table(old)
