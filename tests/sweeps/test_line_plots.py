"""The lines that a study draws: which figures they have, when they are drawn, and that the same figures give the same bytes."""

import json

from made_up import HALF, finish, fixture_quick, plan  # noqa: F401

from ica_unet_jax.sweeps import analysis, line_plots, results, tables
from ica_unet_jax.sweeps.study import Study

TRENDS = {"p constant": ("bases",)}


def curve(folder, cell, seed, dice):
    lines = [dict(step=step, loss=1.0) | ({} if value is None else dict(dice_mean=value)) for step, value in dice.items()]
    (folder / "cells" / cell / f"seed{seed}_fold0" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def bases(folder):
    plan(folder, ["bases=8", "bases=16", "alpha=1"], seeds=(0, 1))
    for seed in (0, 1):
        for cell, m, alpha in (("ref", 4, 0.75), ("c1", 8, 0.75), ("c2", 16, 0.75), ("c3", 4, 1.0)):
            finish(folder, cell, {"A": [HALF]}, seed=seed, bases=m, alpha=alpha, frame_ms=float(m))
    return folder


def test_a_trend_has_the_cells_that_turn_its_knob_alone(tmp_path):
    sweep = results.read(bases(tmp_path))
    [study] = sweep.studies
    found = analysis.analyse(sweep, study, Study("trial", "Does it help?", "3", [], trends=TRENDS))
    [(title, cells)] = found.series.items()
    assert title == "m from 4 to 16, p constant" == found.effects[0].title
    assert {m: line.cell.name for m, line in cells.items()} == {4: "ref", 8: "c1", 16: "c2"}
    assert [line.frame_ms for line in cells.values()] == [4.0, 8.0, 16.0]


def test_what_was_learned_is_the_mean_at_the_steps_that_all_trainings_have(tmp_path):
    bases(tmp_path)
    curve(tmp_path, "ref", 0, {1: None, 100: 0.5, 200: 0.7, 300: 0.9})
    curve(tmp_path, "ref", 1, {100: 0.7, 200: 0.8})
    sweep = results.read(tmp_path)
    whole = analysis.analyse(sweep, sweep.studies[0])
    found = line_plots.learned(sweep, whole)
    assert {step: round(dice, 9) for step, dice in found[whole.reference.title].items()} == {100: 0.6, 200: 0.75}
    assert [*found.values()][1:] == [{}, {}, {}]


def test_pictures_are_named_by_the_page_and_the_same_bytes_again(tmp_path):
    bases(tmp_path)
    studies = {"trial": Study("trial", "Does it help?", "3", [], trends=TRENDS)}
    tables.write_all(tmp_path, studies)
    page = (tmp_path / "trial.md").read_text()
    assert "](trial_trends.png)" in page and "learning" not in page and not (tmp_path / "trial_learning.png").exists()
    for cell, seed in (("ref", 0), ("ref", 1), ("c1", 0), ("c1", 1)):
        curve(tmp_path, cell, seed, {100: 0.5 + 0.1 * seed, 200: 0.7})
    tables.write_all(tmp_path, studies)
    names = ("trial_trends.png", "trial_learning.png")
    before = [(tmp_path / name).read_bytes() for name in names]
    assert all(f"]({name})" in (tmp_path / "trial.md").read_text() for name in names)
    assert (tmp_path / "report.html").read_text().count("<img") == 3
    tables.write_all(tmp_path, studies)
    assert [(tmp_path / name).read_bytes() for name in names] == before
    assert all(picture.startswith(b"\x89PNG") and b"tIME" not in picture for picture in before)
