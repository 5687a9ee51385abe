"""What the tables call decided, of made-up sweeps that can be checked by hand."""

import itertools
import json
import math
import shutil

import pytest
from made_up import (  # noqa: F401
    HALF,
    blocks,
    fail,
    finish,
    fixture_pictures,
    fixture_quick,
    lines_of_csv,
    markdown,
    plan,
    ten,
)

from ablations.studies import KNOWN
from ica_unet_jax.sweeps import tables

DELTA = "Δ Dice [95 %]"


def sentence(folder, study="trial"):
    """What a page answers."""
    return (folder / f"{study}.md").read_text().split("\n\n")[3]


def test_seeds_of_one_fold_are_one_block_which_decides_nothing(tmp_path, pictures):
    plan(tmp_path, ["a=1", "b=1"], seeds=(0, 1, 2))
    for seed in range(3):
        for cell, value in (("ref", 0.8), ("c1", 0.6), ("c2", 0.85)):
            finish(tmp_path, cell, ten(value), seed=seed)
    tables.write_all(tmp_path)
    line = lines_of_csv(tmp_path)["a = 1"]
    assert line["low"] == line["high"] == line["p"] == line["p_holm"] == ""
    row = markdown(tmp_path)["a = 1"]
    assert (row[DELTA], row["p (Holm)"], row["Decision"]) == ("-0.200", "–", "one block, no decision")
    assert "One block (fold 0), of which 3 seeds are averaged: differences only, no p, no decision." in (tmp_path / "trial.md").read_text()
    assert sentence(tmp_path) == "Nothing is decided, one block (fold 0) has differences alone: Dice changes by -0.200 (`a = 1`) to +0.050 (`b = 1`)."
    assert "| nothing, one block |" in (tmp_path / "index.md").read_text()


def test_decided_as_good_and_undecided(tmp_path, pictures):
    plan(tmp_path, ["a=1", "b=1"], runs=[(k, k) for k in range(4)])
    noise = 0.002
    blocks(tmp_path, "ref", (noise, -noise, noise, -noise))
    blocks(tmp_path, "c1", (-0.1 - noise, -0.1 + noise, -0.1 - noise, -0.1 + noise))
    blocks(tmp_path, "c2", (0, 0, 0, 0))
    tables.write_all(tmp_path)
    # Residuals: ±noise of two cells in four folds, (3 - 1)(4 - 1) degrees of freedom.
    error = math.sqrt(8 * noise**2 / 6 * 2 / 4)
    line = lines_of_csv(tmp_path)["a = 1"]
    assert (float(line["error"]), line["freedom"]) == (pytest.approx(error, rel=1e-5), "6")
    rows = markdown(tmp_path)
    low, high = -0.1 - 2.446912 * error, -0.1 + 2.446912 * error
    assert rows["a = 1"][DELTA] == f"-0.100 [{low:.3f}, {high:.3f}]"
    assert (rows["a = 1"]["p (Holm)"], rows["a = 1"]["Decision"]) == ("< 0.001", "worse")
    assert (rows["a = 1"]["over patients [95 %]"], rows["b = 1"]["Decision"]) == ("[-0.100, -0.100]", "as good within 0.01")
    assert sentence(tmp_path).startswith("`a = 1` changes Dice by -0.100 [") and sentence(tmp_path).endswith("; as good within 0.01: `b = 1`.")
    limit = 2.968687 * error  # t of 6 degrees of freedom at 0.05 / 2 / 2
    note = f"at the first of Holm's 2 steps: {limit:.3f} for a cell against the reference (residual SD {math.sqrt(2) * error:.4f}, 6 degrees of freedom)"
    assert note in (tmp_path / "trial.md").read_text()
    index = (tmp_path / "index.md").read_text()
    assert "| trial | reference: Dice 0.875 | -0.100, a = 1 | worse: a = 1; as good within 0.01: b = 1 (2 of 2) |" in index
    tables.write_all(tmp_path, delta=0.003)
    assert markdown(tmp_path)["b = 1"]["Decision"] == "undecided"
    assert f"undecided, too noisy for effects below {limit:.3f}: `b = 1`." in sentence(tmp_path)


def test_a_cell_far_off_is_told_and_leaves_the_error_to_the_others(tmp_path, pictures):
    plan(tmp_path, ["a=1", "b=1", "d=1"], runs=[(k, k) for k in range(4)])
    noise = 0.002
    blocks(tmp_path, "ref", (noise, -noise, noise, -noise))
    blocks(tmp_path, "c1", (-0.2, -0.3, -0.3, -0.2))
    blocks(tmp_path, "c2", (0, 0, 0, 0))
    blocks(tmp_path, "c3", (0.02, 0.02, 0.02, 0.02))
    tables.write_all(tmp_path)
    lines = lines_of_csv(tmp_path)
    # Of three cells: residuals of 2, 1 and 1 thirds of the noise in four folds, six degrees of freedom.
    error = math.sqrt(4 * (4 + 1 + 1) / 9 * noise**2 / 6 * 2 / 4)
    assert [float(lines[f"{name} = 1"]["error"]) for name in "bd"] == pytest.approx([error, error], rel=1e-5)
    assert [lines[f"{name} = 1"]["freedom"] for name in "abd"] == ["9", "6", "6"] and float(lines["a = 1"]["error"]) > 5 * error
    assert [lines[f"{name} = 1"]["decision"] for name in "abd"] == ["worse", "as good within 0.01", "better"]
    text = (tmp_path / "trial.md").read_text()
    assert "for a cell more than 0.1 from it;" in text and f"(residual SD {math.sqrt(2) * error:.4f}, 6 degrees of freedom, without a = 1)" in text


FACTORS = ("sparsity_weight", "independence_weight", "reconstruction_weight")


def factorial(folder, of_reconstruction=-0.02, **options):
    """A sweep of loss_terms, with a cell that is none of the factorial."""
    off = [()] + [group for size in (1, 2) for group in itertools.combinations(FACTORS, size)]
    labels = [", ".join(f"{name}=0" for name in group) for group in off[1:]] + ["ica_weight=0", "whiten_bases=True"]
    plan(folder, labels, runs=[(0, 0), (1, 1), (2, 2)], name="loss_terms")
    changes = [dict.fromkeys(group, 0.0) for group in off] + [dict(ica_weight=0.0), dict(whiten_bases=True)]
    for i, change in enumerate(changes):
        there = "reconstruction_weight" not in change and "ica_weight" not in change
        noise = (0.001 * (i % 3 - 1), 0.001 * (i % 2), 0.0)
        effect = [of_reconstruction * there + error for error in noise]
        blocks(folder, f"c{i}" if i else "ref", effect, **dict.fromkeys(FACTORS, 1.0) | change, **options)
    tables.write_all(folder, KNOWN)


def test_a_factorial_speaks_by_its_effects(tmp_path, pictures):
    factorial(tmp_path)
    rows, effects = markdown(tmp_path, "loss_terms"), markdown(tmp_path, "loss_terms", 1)
    ticks = {title: tuple(rows[title][letter] for letter in "SIR") for title in rows}
    assert ticks["reference"] == ("✓", "✓", "✓") and ticks["without R"] == ("✓", "✓", "") and ticks["none"] == ("", "", "")
    assert ticks["I alone"] == ("", "✓", "") and ticks["whitened bases"] == ("–", "–", "–")
    assert (rows["without R"]["Decision"], rows["without R"]["p (Holm)"]) == ("see the effects", "–")
    assert rows["whitened bases"]["Decision"] == "as good within 0.01"
    assert list(effects) == ["S", "I", "R", "S x I", "S x R", "I x R", "S x I x R"]
    assert effects["R"]["Decision"] == "worse" and effects["R"]["Change of Dice [95 %]"].startswith("-0.020 [")
    assert {effects[title]["Decision"] for title in effects if title != "R"} == {"no effect above 0.01"}
    text = (tmp_path / "loss_terms.md").read_text()
    assert text.count("at the first of Holm's 8 steps") == 2  # seven effects and a cell; under both tables
    assert "**What does each of the three ICA terms do" in text and "(Sect. 3, Eq. 1)**" in text  # not what the sweep says
    assert lines_of_csv(tmp_path, "loss_terms")["S x R"]["kind"] == "effect"


def test_a_cell_far_off_has_no_part_in_the_error_of_other_cells_of_a_factorial(tmp_path, pictures):
    factorial(tmp_path)
    shutil.rmtree(tmp_path / "cells" / "c8")  # whitened bases
    blocks(tmp_path, "c8", (-0.3, -0.5, -0.4), **dict.fromkeys(FACTORS, 1.0), whiten_bases=True)
    tables.write_all(tmp_path, KNOWN)
    lines, text = lines_of_csv(tmp_path, "loss_terms"), (tmp_path / "loss_terms.md").read_text()
    assert [lines[title]["freedom"] for title in ("S", "R", "whitened bases")] == ["14", "14", "16"]  # of eight cells, and of nine
    assert lines["R"]["decision"] == "worse" and float(lines["whitened bases"]["error"]) > 5 * float(lines["R"]["error"])
    assert "14 degrees of freedom, without whitened bases)" in text


def test_without_all_of_its_cells_there_is_no_factorial(tmp_path):
    factorial(tmp_path)
    for path in tmp_path.glob("cells/c3/*/done.json"):
        path.unlink()
    tables.write_all(tmp_path, KNOWN)
    rows = markdown(tmp_path, "loss_terms")
    assert "S" not in rows["reference"] and rows["without I"]["Decision"] != "see the effects"
    assert rows["without R"]["Decision"] == "incomplete: 0 of 3 trainings"
    assert "## Effects" not in (tmp_path / "loss_terms.md").read_text()


def test_trends_over_the_number_of_bases(tmp_path, pictures):
    sizes = [dict(bases=4), dict(bases=16), dict(bases=4, stream_width=16), dict(bases=16, stream_width=4)]
    plan(tmp_path, [", ".join(f"{k}={v}" for k, v in size.items()) for size in sizes], runs=[(0, 0), (1, 1)], name="basis_dimension")
    for i, size in enumerate([{}, *sizes]):
        rise = 0.03 * math.log2(size.get("bases", 8)) if "stream_width" not in size else 0.09
        blocks(tmp_path, f"c{i}" if i else "ref", [rise + 0.001 * (i % 2), rise - 0.001 * (i % 2)], value=0.5, **dict(bases=8, stream_width=8) | size)
    tables.write_all(tmp_path, KNOWN)
    effects = markdown(tmp_path, "basis_dimension", 1)
    assert list(effects) == ["m from 4 to 16, p constant", "m from 4 to 16, m x p constant"]
    assert effects["m from 4 to 16, p constant"]["Change of Dice [95 %]"].startswith("+0.060 [")
    assert [row["Decision"] for row in effects.values()] == ["better", "no effect above 0.01"]
    assert list(markdown(tmp_path, "basis_dimension")) == ["reference", "m = 4", "m = 16", "m = 4, p = 16", "m = 16, p = 4"]


def test_studies_of_one_sweep_have_trainings_of_their_own(tmp_path):
    plan(tmp_path, runs=[(0, 0), (1, 1)], doses=[0, 1])
    sweep = json.loads((tmp_path / "sweep.json").read_text())
    sweep["studies"][1]["runs"] = [[0, 0]]
    (tmp_path / "sweep.json").write_text(json.dumps(sweep))
    for cell in ("ref", "c1"):
        blocks(tmp_path, cell, (0.0, 0.01))
    tables.write_all(tmp_path)
    assert markdown(tmp_path)["a = 1"]["Decision"] != "one block, no decision"
    assert markdown(tmp_path, "doses")["a = 1"]["Decision"] == "one block, no decision"
    assert "of 4 runs 4 done" in (tmp_path / "index.md").read_text()


def test_failures_stand_in_the_sentence(tmp_path):
    plan(tmp_path, ["a=1", "b=1", "c=1"])
    finish(tmp_path, "ref", {"A": [HALF]})
    finish(tmp_path, "c1", {"A": [HALF]})
    fail(tmp_path, "c2", "crashed", "no memory", 0)
    tables.write_all(tmp_path)
    assert sentence(tmp_path).endswith("Dice changes by 0.000 (`a = 1`); incomplete: `c = 1`; failed: `b = 1`.")


def test_no_reference_no_answer(tmp_path, pictures):
    plan(tmp_path)
    finish(tmp_path, "c1", {"A": [HALF]})
    fail(tmp_path, "ref", "diverged", "the loss is nan", 3)
    tables.write_all(tmp_path)
    assert markdown(tmp_path)["a = 1"]["Decision"] == "no finished reference yet"
    assert sentence(tmp_path) == "No answer yet, the reference has no figures: diverged at step 3 (seed 0): the loss is nan."


def test_every_commit_is_printed_and_contrasts_of_several_are_marked(tmp_path):
    plan(tmp_path, ["a=1", "b=1"], runs=[(0, 0), (1, 1)])
    blocks(tmp_path, "ref", (0, 0), commit="aaa")
    blocks(tmp_path, "c1", (0.01, 0.02), commit="aaa")
    blocks(tmp_path, "c2", (0.01, 0.02), commit="bbb-dirty")
    tables.write_all(tmp_path)
    text = (tmp_path / "trial.md").read_text()
    assert "Commits: aaa: 4 runs, bbb-dirty (with changes that were not committed): 2 runs. † over trainings of different commits." in text
    rows = markdown(tmp_path)
    assert "†" not in rows["a = 1"][DELTA] and rows["b = 1"][DELTA].endswith(" †")
    assert "Commits: aaa: 4 runs" in (tmp_path / "index.md").read_text()


