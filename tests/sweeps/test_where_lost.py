"""What several evaluations of several trainings say together."""

import json

import pytest

from ablations import where_lost
from ica_unet_jax.errors import UserError
from ica_unet_jax.evaluation.where_lost import COLUMNS, write_csv
from ica_unet_jax.metrics.faults import COUNTS

EVALUATIONS = ("val", "val_nsd_1mm", "val_follow", "train")


def run(folder, dice, commit="abc", right=8):
    for name in EVALUATIONS:
        figures = {structure: dice for structure in ("RV", "MYO", "LV")}
        (folder / f"evaluation_{name}").mkdir(parents=True)
        summary = dict(dice=figures | {"mean": dice}, nsd=figures, grid_dice=figures, patients=["a"], checkpoint_step=5)
        summary |= {"provenance": {"training": {"commit": commit}}}
        (folder / f"evaluation_{name}" / "summary.json").write_text(json.dumps(summary))
        counts = dict.fromkeys(COUNTS, 0) | {"right": right, "missing_edge": 10 - right}
        row = dict.fromkeys(COLUMNS, "") | dict(patient="a", frame=1, phase="ED", structure="LV", slice=0, position="base") | counts
        write_csv(folder / f"evaluation_{name}" / "faults.csv", [row])
    return folder


def test_the_mean_of_two_trainings(tmp_path):
    found = where_lost.of_runs([run(tmp_path / "a", 0.8), run(tmp_path / "b", 0.9, right=6)])
    assert found["runs"] == 2 and found["steps"] == 5 and found["patients"] == {"val": 1, "train": 1}
    assert all(values == pytest.approx(dict.fromkeys(("RV", "MYO", "LV"), 0.85)) for _, values in found["whole"]) and len(found["whole"]) == 6
    [phase, place, dice] = found["val"]["places"][0]
    assert (phase, place) == ("ED", "base") and dice == {"RV": None, "MYO": None, "LV": pytest.approx((16 / 18 + 12 / 16) / 2)}
    assert "0.850" in where_lost.whole_table(found)


def test_runs_that_differ_in_more_than_their_seed(tmp_path):
    with pytest.raises(UserError, match="b has trained_at def"):
        where_lost.of_runs([run(tmp_path / "a", 0.8), run(tmp_path / "b", 0.9, commit="def")])
    with pytest.raises(UserError, match="make the four"):
        where_lost.of_runs([tmp_path / "none"])
