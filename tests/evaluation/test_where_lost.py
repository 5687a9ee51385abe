import numpy as np
import pytest

from ica_unet_jax.errors import UserError
from ica_unet_jax.evaluation import where_lost
from ica_unet_jax.metrics.faults import slice_faults


def stack(*sides):
    """An LV of a square in each slice."""
    truth = np.zeros((len(sides), 16, 16), np.uint8)
    for z, side in enumerate(sides):
        truth[z, 3 : 3 + side, 3 : 3 + side] = 3
    return truth


@pytest.fixture
def rows():
    """A has lost its apex at ES, B is right, C's prediction is shifted by a row."""
    about = dict(patient="A", group="NOR", phase="ES", frame=9)
    truth, found = stack(8, 8, 4), stack(8, 8, 0)
    several = [about | row for row in slice_faults(found, truth, (10, 1, 1))]
    several += [about | dict(patient="B") | row for row in slice_faults(truth, truth, (10, 1, 1))]
    larger = stack(10, 10, 10)
    return several + [about | dict(patient="C") | row for row in slice_faults(np.roll(larger, 1, axis=1), larger, (10, 1, 1))]


def cells(page, first):
    return [line.strip("|").split("|") for line in page.splitlines() if line.startswith(f"| {first}")]


def test_tables_by_hand(rows):
    page = where_lost.page(rows, {"RV": 0.97, "MYO": 0.95, "LV": 0.98})
    assert "RV 0.970, MYO 0.950, LV 0.980" in page
    apex = [line for line in cells(page, "ES") if "apex" in line[1]]
    assert [cell.strip() for cell in apex[0][2:]] == ["–", "–", "0.633"]  # (0 + 1 + .9) / 3
    whole = 2 * 128 / (2 * 128 + 16)
    sizes = {line[0].strip(): line[3].strip() for third in where_lost.THIRDS for line in cells(page, third)}
    assert sizes == {"smallest third": f"{whole:.3f}", "middle third": "1.000", "largest third": "0.900"}
    mended = {line[0].strip()[:6]: line[3].strip() for start in ("slices", "voxels within", "islands") for line in cells(page, start)}
    assert mended == {"slices": f"+{(1 - whole) / 3:.3f}", "voxels": "+0.033", "island": "0.000"}


def test_by_place_by_hand(rows):
    found = {row["patient"]: row for row in where_lost.by_place(rows)}
    assert (found["A"]["frame"], found["A"]["phase"], found["A"]["dice_base_LV"], found["A"]["dice_apex_LV"]) == (9, "ES", 1, 0)
    assert found["C"]["dice_middle_LV"] == pytest.approx(0.9) and np.isnan(found["C"]["dice_middle_RV"])
    by_hand = np.mean([row["dice_apex_LV"] for row in found.values()])
    [[_, _, dice]] = [line for line in where_lost.figures(rows)["places"] if line[1] == "apex"]
    assert len(found) == 3 and dice["LV"] == pytest.approx(by_hand)


def test_csv_comes_back(rows, tmp_path):
    where_lost.write_csv(tmp_path / "faults.csv", rows)
    assert where_lost.read_csv(tmp_path / "faults.csv") == rows
    (tmp_path / "other.csv").write_text("patient,frame\nA,1\n")
    with pytest.raises(UserError, match="other.csv cannot be read as a table of faults"):
        where_lost.read_csv(tmp_path / "other.csv")
