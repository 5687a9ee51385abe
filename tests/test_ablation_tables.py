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
    ten,
    write_ica,
)

from ablations import analysis, tables
from ablations.results import Cell, Study
from ica_unet_jax.errors import UserError


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
    assert row["Seed spread"] == "0.0707"  # 0.65 and 0.75: 0.1/√2
    row = markdown(tmp_path)["sparsity_weight=0"]
    assert (row["Dice mean"], row["Δ Dice [95 %]"]) == ("0.575 ± 0.106", "-0.125")  # A 0.65 - 0.8, B 0.5 - 0.6
    line = lines_of_csv(tmp_path)["sparsity_weight=0"]
    assert float(line["difference"]) == pytest.approx(-0.125)
    assert (line["seeds_done"], line["patients"], line["parameters"]) == ("2", "2", "3000000")
    assert line["dice_by_seed"] == "0:0.55;1:0.6"


def test_too_few_patients_have_differences_only(tmp_path, pictures):
    plan(tmp_path, ["alpha=0.5", "alpha=1"], seeds=(0, 1))
    for seed in (0, 1):
        for cell, value in (("ref", 0.5), ("c1", 0.6), ("c2", 0.25)):
            finish(tmp_path, cell, {"A": [(value,) * 3], "B": [(value,) * 3]}, seed=seed)
    tables.write_all(tmp_path)
    line = lines_of_csv(tmp_path)["alpha=0.5"]
    assert line["low"] == line["high"] == line["p"] == line["p_holm"] == "" and line["verdict"] == "undecided"
    row = markdown(tmp_path)["alpha=0.5"]
    assert (row["Δ Dice [95 %]"], row["p (Holm)"]) == ("+0.100", "–")
    assert row["Verdict"] == "undecided: 2 patients, 10 are needed"
    assert "\n2 patients are too few for intervals and p: 10 are needed. " in (tmp_path / "loss_terms.md").read_text()
    sentence = (
        "Undecided: 2 patients are too few (10 are needed); the differences of mean Dice are between "
        "-0.250 (`alpha=1`) and +0.100 (`alpha=0.5`)."
    )
    assert sentence in (tmp_path / "index.md").read_text() and sentence in (tmp_path / "loss_terms.md").read_text()


def test_decided_and_undecided(tmp_path):
    plan(tmp_path, ["a=1", "b=1"], seeds=(0, 1))
    for seed, luck in enumerate((-0.01, 0.01)):
        finish(tmp_path, "ref", ten(0.8), seed=seed)
        finish(tmp_path, "c1", ten(0.8, -0.1), seed=seed)
        finish(tmp_path, "c2", ten(0.8, 0.005 + luck), seed=seed)
    tables.write_all(tmp_path)
    # All ten patients change alike: no width, and the smallest two-sided p of ten signs, 2/1024, twice by Holm.
    row = markdown(tmp_path)["a=1"]
    assert (row["Δ Dice [95 %]"], row["p (Holm)"], row["Verdict"]) == ("-0.100 [-0.100, -0.100]", "0.004", "worse")
    assert float(lines_of_csv(tmp_path)["a=1"]["p_holm"]) == pytest.approx(4 / 1024, rel=1e-5)
    row = markdown(tmp_path)["b=1"]
    assert row["Verdict"] == "undecided: inside the seed spread" and row["Seed spread"] == "0.0141"
    sentence = "With `a=1` Dice changes by -0.100 [-0.100, -0.100] (worse, p 0.004); "
    assert sentence + "undecided: `b=1` (inside the seed spread).\n" in (tmp_path / "index.md").read_text()


def test_one_seed_decides_nothing(tmp_path):
    plan(tmp_path)
    finish(tmp_path, "ref", ten(0.8))
    finish(tmp_path, "c1", ten(0.8, -0.1))
    tables.write_all(tmp_path)
    row = markdown(tmp_path)["sparsity_weight=0"]
    assert (row["Verdict"], row["Seed spread"]) == ("undecided: one seed", "–")
    assert "Undecided: `sparsity_weight=0` (one seed)." in (tmp_path / "index.md").read_text()


def test_a_seed_counts_with_all_of_its_folds(tmp_path):
    plan(tmp_path, ["a=1", "b=1", "c=1"], seeds=(0, 1, 2), folds=(0, 1))
    for cell, whole in (("ref", 6), ("c1", 5), ("c2", 1)):
        for i in range(whole):
            finish(tmp_path, cell, {f"p{i % 2}": [HALF]}, seed=i // 2, fold=i % 2)
    tables.write_all(tmp_path)
    rows = markdown(tmp_path)
    assert rows["reference"]["Dice mean"] == "0.500 ± 0.000"  # a patient of either fold
    assert [rows[label]["Verdict"] for label in ("a=1", "b=1", "c=1")] == [
        "incomplete: 2/3 seeds",
        "incomplete: 0/3 seeds",
        "incomplete: 0/3 seeds",
    ]
    assert {rows["a=1"][head] for head in rows["a=1"] if head.startswith(("Dice", "HD95", "Δ", "p"))} == {"–"}
    index = (tmp_path / "index.md").read_text()
    assert "1 of 4 cells finished; of 24 runs 12 done, 0 diverged, 0 crashed, 12 missing." in index
    assert "2 patients; seeds 0, 1, 2; folds 0, 1; 1 of 4 cells finished." in index


def test_failed_runs_are_rows(tmp_path, pictures):
    plan(tmp_path, ["a=1", "b=1", "c=1"], seeds=(0, 1))
    for seed in (0, 1):
        finish(tmp_path, "ref", {"A": [HALF]}, seed=seed)
        fail(tmp_path, "c2", "crashed", "out of | memory:\n $\\alpha_1$ \N{SNOWMAN} 100 %", 0, seed=seed)
    finish(tmp_path, "c1", {"A": [HALF]})
    fail(tmp_path, "c1", "diverged", "the loss is nan", 120, seed=1)
    fail(tmp_path, "c3", "diverged", "a gradient is inf", 7, seed=1)
    tables.write_all(tmp_path)
    states = {label: row["Verdict"] for label, row in markdown(tmp_path).items()}
    assert states["a=1"] == "incomplete: 1/2 seeds; diverged at step 120 (seed 1): the loss is nan"
    assert states["b=1"] == "crashed (seeds 0, 1): out of | memory: $alpha_1$ \N{SNOWMAN} 100 %"  # without backslashes
    assert states["c=1"] == "incomplete: 0/2 seeds; diverged at step 7 (seed 1): a gradient is inf"
    index = (tmp_path / "index.md").read_text()
    assert "3 done, 2 diverged, 2 crashed, 1 missing" in index
    assert "the reference has a mean Dice of 0.500, no other cell is finished." in index
    latex = (tmp_path / "loss_terms.tex").read_text()
    assert r"out of $|$ memory: \$\textbackslash{}alpha\_1\$ ? 100 \%" in latex


def test_a_failed_fold_is_named(tmp_path):
    plan(tmp_path, seeds=(0, 1), folds=(0, 1))
    for seed, fold in ((0, 1), (1, 0), (1, 1)):
        fail(tmp_path, "c1", "diverged", "nan", 9, seed=seed, fold=fold)
    tables.write_all(tmp_path)
    state = markdown(tmp_path)["sparsity_weight=0"]["Verdict"]
    assert state == "diverged at step 9 (seeds 0, 1, fold 1): nan; diverged at step 9 (seed 1, fold 0): nan"


def test_failures_stand_in_the_sentence(tmp_path):
    plan(tmp_path, ["a=1", "b=1", "c=1"])
    finish(tmp_path, "ref", {"A": [HALF]})
    finish(tmp_path, "c1", {"A": [HALF]})
    fail(tmp_path, "c2", "crashed", "no memory", 0)
    tables.write_all(tmp_path)
    ending = "the difference of mean Dice is 0.000 (`a=1`); incomplete: `c=1`; failed: `b=1`.\n"
    assert ending in (tmp_path / "index.md").read_text()


def test_no_reference_no_answer(tmp_path, pictures):
    plan(tmp_path)
    finish(tmp_path, "c1", {"A": [HALF]})
    fail(tmp_path, "ref", "diverged", "the loss is nan", 3)
    tables.write_all(tmp_path)
    assert markdown(tmp_path)["sparsity_weight=0"]["Verdict"] == "no finished reference yet"
    assert (
        "No answer yet, the reference has no figures: diverged at step 3 (seed 0): the loss is nan."
        in (tmp_path / "index.md").read_text()
    )


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
    assert rows["sparsity_weight=0"]["Δ HD95 [95 %] (cases)"] == "+0.75 (6)"
    assert (rows["sparsity_weight=0"]["HD95 cases"], rows["sparsity_weight=0"]["Missed"]) == ("7/12", "1")


def test_without_any_finite_distance(tmp_path):
    plan(tmp_path)
    for cell in ("ref", "c1"):
        finish(tmp_path, cell, {"A": [(0.0, 0.0, 0.0)]}, hd95={"A": [(math.inf,) * 3]})
    tables.write_all(tmp_path)
    row = markdown(tmp_path)["sparsity_weight=0"]
    assert (row["HD95 (mm)"], row["HD95 cases"], row["Missed"], row["Δ HD95 [95 %] (cases)"]) == ("–", "0/3", "3", "–")


def test_timings_by_hand(tmp_path):
    tables.write_all(fill(tmp_path))
    with (tmp_path / "timings.csv").open() as file:
        line = {row["cell"]: row for row in csv.DictReader(file)}["c1"]
    assert (line["runs"], line["seconds_per_step"], line["training_seconds"]) == ("2", "0.5", "1500")
    text = (tmp_path / "timings.md").read_text()
    assert "2.63 hours" in text  # three cells at 1080 s and 2080 s
    assert "| loss_terms | bases=8 | 2 | 0.5000 | 20 | 1500 | 80 | 1 | cpu |" in text


def test_quality_of_the_ica(tmp_path):
    plan(tmp_path, ["bases=8", "model=unet2d"], seeds=(0, 1), folds=(0, 1))
    for seed in (0, 1):
        for fold, patient in enumerate("AB"):
            dice = {patient: [HALF, HALF]}
            ica = {patient: [0.2 + 0.2 * seed, 0.4 + 0.2 * seed]} if fold == 0 else {patient: [0.8, math.nan]}
            finish(tmp_path, "ref", dice, seed, fold, ica=ica)
            finish(tmp_path, "c1", dice, seed, fold, ica=ica, bases=8)
            finish(tmp_path, "c2", dice, seed, fold, bases=4)
    for fold, patient in enumerate("AB"):
        write_ica(tmp_path / "peers" / f"fastica_m4_fold{fold}.csv", {patient: [0.5 * (fold + 1)] * 2})
    write_ica(tmp_path / "peers" / "fastica_m8_fold0.csv", {"A": [0.5, 0.5]})
    tables.write_all(tmp_path)
    rows = markdown(tmp_path, table=1)
    assert rows["reference"]["Hoyer ↑"] == "0.600"  # A 0.3 and 0.5 with the two seeds, B 0.8 by its finite frame
    assert rows["FastICA, m = 4"]["|correlation| ↓"] == "0.750"
    assert rows["model=unet2d"]["Hoyer ↑"] == "–"
    assert "incomplete: some folds are missing" in rows["FastICA, m = 8"].values()
    assert float(lines_of_csv(tmp_path)["FastICA, m = 4"]["negentropy"]) == 0.75
    write_ica(tmp_path / "peers" / "fastica_m4_fold1.csv", {"B": [0.5]})
    with pytest.raises(UserError, match="fastica_m4_fold1.csv and the cell ref .* different frames"):
        tables.write_all(tmp_path)


def test_the_reference_names_its_own_value(tmp_path):
    tables.write_all(fill(tmp_path))
    assert "| reference (bases=4) |" in (tmp_path / "second.md").read_text()
    assert "| reference |" in (tmp_path / "loss_terms.md").read_text()  # which turns two knobs that differ in kind


def test_of_many_knobs_the_reference_names_those_that_every_cell_turns():
    labels = ("reference", "neighbours=past", "neighbours=past, distillation_weight=1, unlabelled=1")
    study = Study("causal", "?", "", "a", tuple(Cell(name, label, 1.0, 1.0) for name, label in zip("abc", labels, strict=True)))
    config = dict(neighbours="both", distillation_weight=0.0, unlabelled=0)
    assert analysis._reference_label(study, config) == "reference (neighbours=both)"
