"""Figures of the tables, of made-up sweeps that can be checked by hand."""

import csv
import math

import pytest
from made_up import (  # noqa: F401
    HALF,
    fail,
    fill,
    finish,
    fixture_pictures,
    fixture_quick,
    lines_of_csv,
    markdown,
    plan,
    write_ica,
)

from ica_unet_jax.errors import UserError
from ica_unet_jax.sweeps import results, tables

DELTA = "Δ Dice [95 %]"


def test_means_by_hand(tmp_path):
    plan(tmp_path, seeds=(0, 1))
    # Frames are averaged first: A has 0.6, 0.8, 0.7 with seed 0 (mean 0.7) and 0.9 with seed 1, so 0.8; B has 0.6.
    finish(tmp_path, "ref", {"A": [(0.5, 0.7, 0.6), (0.7, 0.9, 0.8)], "B": [(0.6,) * 3] * 2})
    finish(tmp_path, "ref", {"A": [(0.9,) * 3] * 2, "B": [(0.6,) * 3] * 2}, seed=1)
    finish(tmp_path, "c1", {"A": [(0.6,) * 3] * 2, "B": [(0.5,) * 3] * 2})
    finish(tmp_path, "c1", {"A": [(0.7,) * 3] * 2, "B": [(0.5,) * 3] * 2}, seed=1)
    tables.write_all(tmp_path)
    row = markdown(tmp_path)["reference"]
    assert (row["Parameters (M)"], row["GFLOP"]) == ("1.50", "2.00")
    assert (row["Dice RV"], row["Dice MYO"]) == ("0.675 ± 0.106", "0.725 ± 0.177")  # A 0.75 and 0.85, B 0.6
    assert row["Dice mean"] == "0.700 ± 0.141"  # A 0.8, B 0.6: SD 0.2/√2
    row = markdown(tmp_path)["a = 1"]
    assert (row["Dice mean"], row[DELTA]) == ("0.575 ± 0.106", "-0.125")  # A 0.65 - 0.8, B 0.5 - 0.6
    line = lines_of_csv(tmp_path)["a = 1"]
    assert float(line["difference"]) == pytest.approx(-0.125)
    assert (line["trainings"], line["patients"], line["parameters"]) == ("2", "2", "3000000")
    assert line["dice_by_training"] == "seed0_fold0:0.55;seed1_fold0:0.6"


def test_a_cell_has_figures_with_all_of_its_trainings(tmp_path):
    plan(tmp_path, ["a=1", "b=1", "c=1"], runs=[(0, 0), (1, 1), (2, 0)])
    for cell, whole in (("ref", 3), ("c1", 2), ("c2", 1)):
        for seed, fold in [(0, 0), (1, 1), (2, 0)][:whole]:
            finish(tmp_path, cell, {f"p{fold}": [HALF]}, seed=seed, fold=fold)
    tables.write_all(tmp_path)
    rows = markdown(tmp_path)
    assert rows["reference"]["Dice mean"] == "0.500 ± 0.000"  # a patient of either fold
    assert [rows[title]["Decision"] for title in ("a = 1", "b = 1", "c = 1")] == [f"incomplete: {done} of 3 trainings" for done in (2, 1, 0)]
    assert {rows["a = 1"][head] for head in rows["a = 1"] if head.startswith(("Dice", "HD95", "Δ", "p"))} == {"–"}
    index = (tmp_path / "index.md").read_text()
    assert "1 of 4 cells finished; of 12 runs 6 done, 0 diverged, 0 crashed, 6 missing." in index
    assert "2 patients; trainings fold 0 with seed 0, fold 0 with seed 2, fold 1 with seed 1; 1 of 4 cells finished." in index


def test_failed_runs_are_rows(tmp_path, pictures):
    plan(tmp_path, ["a=1", "b=1", "c=1"], seeds=(0, 1))
    for seed in (0, 1):
        finish(tmp_path, "ref", {"A": [HALF]}, seed=seed)
        fail(tmp_path, "c2", "crashed", "out of | memory:\n $\\alpha_1$ \N{SNOWMAN} 100 %", 0, seed=seed)
    finish(tmp_path, "c1", {"A": [HALF]})
    fail(tmp_path, "c1", "diverged", "the loss is nan", 120, seed=1)
    fail(tmp_path, "c3", "diverged", "a gradient is inf", 7, seed=1)
    tables.write_all(tmp_path)
    states = {title: row["Decision"] for title, row in markdown(tmp_path).items()}
    assert states["a = 1"] == "incomplete: 1 of 2 trainings; diverged at step 120 (seed 1): the loss is nan"
    assert states["b = 1"] == "crashed (seeds 0, 1): out of | memory: $alpha_1$ \N{SNOWMAN} 100 %"  # without backslashes
    assert states["c = 1"] == "incomplete: 0 of 2 trainings; diverged at step 7 (seed 1): a gradient is inf"
    index = (tmp_path / "index.md").read_text()
    assert "3 done, 2 diverged, 2 crashed, 1 missing" in index
    assert "the reference has a mean Dice of 0.500, no other cell is finished." in index
    latex = (tmp_path / "trial.tex").read_text()
    assert r"out of $|$ memory: \$\textbackslash{}alpha\_1\$ ? 100 \%" in latex


def test_a_failed_fold_is_named(tmp_path):
    plan(tmp_path, seeds=(0, 1), folds=(0, 1))
    for seed, fold in ((0, 1), (1, 0), (1, 1), (0, 0)):
        fail(tmp_path, "c1", "diverged", "nan", 9, seed=seed, fold=fold)
    tables.write_all(tmp_path)
    state = markdown(tmp_path)["a = 1"]["Decision"]
    assert state == "diverged at step 9 (seeds 0, 1, fold 0): nan; diverged at step 9 (seeds 0, 1, fold 1): nan"


def test_missed_structures_and_nominal_spacing(tmp_path):
    plan(tmp_path)
    inf, nan = math.inf, math.nan
    dice = {"A": [(0.0, 0.9, 0.9), (0.6, 0.9, 0.9)], "B": [(1.0, 0.9, 0.9)], "C": [(0.3, 0.9, 0.9)]}
    hd95 = {"A": [(inf, 1.0, 2.0), (6.0, 3.0, 2.0)], "B": [(nan, 5.0, 7.0)], "C": [(99.0, 99.0, inf)]}
    finish(tmp_path, "ref", dice, hd95=hd95, nominal=["C"])
    finish(
        tmp_path, "c1", dice, nominal=["C"],
        hd95={"A": [(9.0, 2.0, 2.0), (8.0, inf, 2.0)], "B": [(nan, 6.0, 7.0)], "C": [(1.0, 1.0, 1.0)]},
    )  # fmt: skip
    tables.write_all(tmp_path)
    rows = markdown(tmp_path)
    assert rows["reference"]["Dice RV"] == "0.533 ± 0.404"  # A 0.3, a miss being 0; B 1, C 0.3
    # A: RV 6, MYO 2, LV 2, so 10/3; B: MYO 5, LV 7, so 6; C has no known voxel size. Missed: A's RV and C's LV.
    assert rows["reference"]["HD95 (mm)"] == "4.67"
    assert (rows["reference"]["HD95 cases"], rows["reference"]["Missed"]) == ("7/12", "2")
    # Finite in both: of A RV 8 - 6, MYO 2 - 1, LV 0, mean 1; of B MYO 6 - 5, LV 0, mean 1/2.
    assert rows["a = 1"]["Δ HD95 (cases)"] == "+0.75 (6)"
    assert (rows["a = 1"]["HD95 cases"], rows["a = 1"]["Missed"]) == ("7/12", "1")


def test_without_any_finite_distance(tmp_path):
    plan(tmp_path)
    for cell in ("ref", "c1"):
        finish(tmp_path, cell, {"A": [(0.0, 0.0, 0.0)]}, hd95={"A": [(math.inf,) * 3]})
    tables.write_all(tmp_path)
    row = markdown(tmp_path)["a = 1"]
    assert (row["HD95 (mm)"], row["HD95 cases"], row["Missed"], row["Δ HD95 (cases)"]) == ("–", "0/3", "3", "–")


def test_surface_dice_where_every_run_has_it(tmp_path):
    plan(tmp_path, other=[0])
    finish(tmp_path, "ref", {"A": [HALF], "B": [HALF]}, nsd={"A": [(0.9, 0.6, math.nan)], "B": [(1.0, 0.5, 0.6)]})
    finish(tmp_path, "c1", {"A": [HALF], "B": [HALF]})
    tables.write_all(tmp_path)
    assert markdown(tmp_path, "other")["reference"]["NSD 2 mm"] == "0.725"  # A 0.75 by what there is, B 0.7
    assert "NSD 2 mm" not in markdown(tmp_path)["reference"]
    assert float(lines_of_csv(tmp_path)["reference"]["nsd_MYO"]) == 0.55


def test_time_of_a_frame_is_the_median_over_runs(tmp_path):
    plan(tmp_path, seeds=(0, 1, 2))
    for seed, time in enumerate((40.0, 20.0, 30.0)):
        finish(tmp_path, "ref", {"A": [HALF]}, seed=seed, frame_ms=time)
        finish(tmp_path, "c1", {"A": [HALF]}, seed=seed)
    tables.write_all(tmp_path)
    rows = markdown(tmp_path)
    assert (rows["reference"]["ms"], rows["reference"]["FPS"]) == ("30.0", "33.3")
    assert (rows["a = 1"]["ms"], rows["a = 1"]["FPS"]) == ("–", "–")


def test_timings_by_hand(tmp_path):
    tables.write_all(fill(tmp_path))
    with (tmp_path / "timings.csv").open() as file:
        line = {row["cell"]: row for row in csv.DictReader(file)}["c1"]
    assert (line["runs"], line["seconds_per_step"], line["training_seconds"]) == ("2", "0.5", "1500")
    text = (tmp_path / "timings.md").read_text()
    assert "2.63 hours" in text  # three cells at 1080 s and 2080 s
    assert "| trial | m = 8 | 2 | 0.5000 | 20 | 1500 | 80 | 1 | cpu |" in text


def test_quality_of_the_ica(tmp_path):
    plan(tmp_path, ["bases=8", "model=unet2d"], seeds=(0, 1), folds=(0, 1))
    for seed in (0, 1):
        for fold, patient in enumerate("AB"):
            dice = {patient: [HALF, HALF]}
            ica = {patient: [0.2 + 0.2 * seed, 0.4 + 0.2 * seed]} if fold == 0 else {patient: [0.8, math.nan]}
            finish(tmp_path, "ref", dice, seed, fold, ica=ica)
            finish(tmp_path, "c1", dice, seed, fold, ica=ica, bases=8)
            finish(tmp_path, "c2", dice, seed, fold, bases=4, model="unet2d")
    for fold, patient in enumerate("AB"):
        write_ica(tmp_path / "peers" / f"fastica_m4_fold{fold}.csv", {patient: [0.5 * (fold + 1)] * 2})
    write_ica(tmp_path / "peers" / "fastica_m8_fold0.csv", {"A": [0.5, 0.5]})
    tables.write_all(tmp_path)
    rows = markdown(tmp_path, table=1)
    assert rows["reference"]["Hoyer ↑"] == rows["reference"]["|X|"] == "0.600"  # A 0.3 and 0.5 with the two seeds, B 0.8 by its finite frame
    assert rows["FastICA, m = 4"]["|correlation| ↓"] == "0.750"
    assert rows["model = unet2d"]["Hoyer ↑"] == "–"
    assert "incomplete: some folds are missing" in rows["FastICA, m = 8"].values()
    assert "Cross-entropy" not in rows["reference"]
    assert float(lines_of_csv(tmp_path)["FastICA, m = 4"]["negentropy"]) == 0.75
    write_ica(tmp_path / "peers" / "fastica_m4_fold1.csv", {"B": [0.5]})
    with pytest.raises(UserError, match="FastICA at m = 4 in fold 1 and the cell ref .* different frames"):
        tables.write_all(tmp_path)


def test_weighted_terms_stand_beside_the_cross_entropy(tmp_path):
    plan(tmp_path)
    for cell in ("ref", "c1"):
        finish(tmp_path, cell, {"A": [HALF]}, ica={"A": [0.5]})
        write_ica(tmp_path / "cells" / cell / "seed0_fold0" / "ica.csv", {"A": [0.25]}, results.ICA_EXTRA)
    tables.write_all(tmp_path)
    row = markdown(tmp_path, table=1)["a = 1"]
    heads = ("Cross-entropy", "Weighted sparsity", "Weighted independence", "Weighted reconstruction", "Share of X's energy between frames")
    assert [row[head] for head in heads] == ["0.250", "0.2500", "0.2500", "0.2500", "0.250"]
    assert row["Negentropy ↑"] == "0.25000" and "Cross-entropy and weighted terms" in (tmp_path / "trial.md").read_text()


def test_the_reference_is_named_by_what_the_cells_turn(tmp_path):
    tables.write_all(fill(tmp_path))
    assert "| m = 4 (reference) |" in (tmp_path / "second.md").read_text()
    names = "neighbours=past", "neighbours=past, distillation_weight=1, unlabelled=1"
    plan(tmp_path / "causal", names)
    for cell in ("ref", "c1", "c2"):
        finish(tmp_path / "causal", cell, {"A": [HALF]})
    tables.write_all(tmp_path / "causal")
    rows = list(markdown(tmp_path / "causal"))
    assert rows == ["reference", "t-1 alone", "t-1 alone, taught, unlabelled frames = 1"]
    assert "| t-1 and t+1 (reference) |" in (tmp_path / "causal" / "trial.md").read_text()


def test_pages_captions_and_index_open_with_what_they_are_about(tmp_path, monkeypatch):
    launch = tmp_path / "acdc.flags"
    launch.write_text("--bases=32\n--contracting_blocks=4\n--dice_weight=0.5\n")
    monkeypatch.setattr(tables.html_report.setting, "LAUNCH", launch)
    tables.write_all(fill(tmp_path))
    opening = (
        "Data: hearts, 20 patients. Reference: grid 4x64x64 at 1.5 mm; n = 3, m = 4, u = 4, p = 8; 10000 steps of 4 frames; loss: "
        "cross-entropy + 0.2 (sparsity + independence + reconstruction); unlike launch/acdc.flags: contracting_blocks=3 (there 4), bases=4 (there 32), "
        "masked_statistics=False (there True), dice_weight=0 (there 0.5)."
    )
    for name in ("trial.md", "second.md", "index.md", "timings.md"):
        assert (tmp_path / name).read_text().split("\n\n")[1] == opening
    latex = (tmp_path / "trial.tex").read_text()
    assert latex.count("\\caption{Data: hearts, 20 patients.") == latex.count("\\caption{") == 2
    launch.unlink()
    tables.write_all(tmp_path)
    assert "unlike" not in (tmp_path / "trial.md").read_text()


def test_simulated_hearts_are_no_patients(tmp_path):
    plan(tmp_path)
    for cell in ("ref", "c1"):
        finish(tmp_path, cell, {"A": [HALF], "B": [HALF]}, phantom_patients=6)
    tables.write_all(tmp_path)
    text = (tmp_path / "trial.md").read_text()
    assert "Data: 2 simulated hearts of a phantom cohort of 6. Reference:" in text
    assert "\n2 simulated hearts; fold 0, with seed 0; 2 of 2 cells finished.\n" in text
    assert "over 2 simulated hearts" in (tmp_path / "trial.tex").read_text()


def test_dice_by_place_in_the_stack(tmp_path):
    """A has two frames, the first without an RV at the apex; of B one place is known."""
    plan(tmp_path, seeds=(0, 1))
    places = {"A": [{"dice_base_RV": 0.5, "dice_apex_RV": ""}, {"dice_base_RV": 0.7, "dice_apex_RV": 0.2}], "B": [{"dice_base_RV": 0.8, "dice_apex_RV": ""}]}
    for seed in (0, 1):
        finish(tmp_path, "ref", {"A": [HALF] * 2, "B": [HALF]}, seed=seed, places=places)
        finish(tmp_path, "c1", {"A": [HALF] * 2, "B": [HALF]}, seed=seed, places=None if seed else places)  # one of an earlier version
    tables.write_all(tmp_path)
    assert markdown(tmp_path, table=1).keys() == {"reference"}
    row = markdown(tmp_path, table=1)["reference"]
    assert (row["base RV"], row["apex RV"], row["middle LV"]) == ("0.700", "0.200", "–")  # A .6, B .8
    assert float(lines_of_csv(tmp_path)["reference"]["dice_base_RV"]) == pytest.approx(0.7)
    assert lines_of_csv(tmp_path)["a = 1"]["dice_base_RV"] == ""
