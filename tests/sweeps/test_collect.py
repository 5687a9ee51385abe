"""Runs that were trained by themselves, in the tables of a sweep."""

import csv
import functools
import json

import pytest

from ablations.collect import collect
from ica_unet_jax.errors import UserError
from ica_unet_jax.evaluation import judging, pictures
from ica_unet_jax.sweeps import cross_validation
from ica_unet_jax.training import experiment

pytestmark = pytest.mark.usefixtures("compiled_once")


def cross_validated(make, name, **changes):
    """The folder of a short cross-validation without pictures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "training_report", lambda *arguments: None)
        patch.setattr(judging, "evaluate", functools.partial(judging.evaluate, cines=0, pictures=False))
        config = make(name, steps=2, **changes)
        cross_validation.run(config)
    return cross_validation.Path(config.train.workdir)


@pytest.fixture(scope="module")
def runs(make, compiled_once):
    """Two cross-validations that differ in one knob."""
    return cross_validated(make, "plain"), cross_validated(make, "smooth", ema_decay=0.5)


def table(workdir):
    with (workdir / "compared.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_table_of_cross_validations_is_over_all_patients(runs, tmp_path):
    plain, smooth = runs
    before = sorted(plain.rglob("*"))
    collect([plain, smooth], tmp_path / "out")
    first, second = table(tmp_path / "out")
    assert (first["title"], second["title"]) == ("ema_decay = 0.99", "ema_decay = 0.5")
    assert first["patients"] == second["patients"] == "4" and not first["state"]
    pooled = [json.loads((folder / "summary.json").read_text())["dice"]["mean"] for folder in (plain, smooth)]
    assert [float(line["dice_mean"]) for line in (first, second)] == pytest.approx(pooled, rel=1e-5)
    assert float(second["difference"]) == pytest.approx(pooled[1] - pooled[0], abs=1e-6)
    assert sorted(plain.rglob("*")) == before
    assert "2 of 2 cells finished" in (tmp_path / "out" / "compared.md").read_text()


def test_seeds_are_one_cell(runs, make, tmp_path):
    collect([runs[0], cross_validated(make, "again", seed=1)], tmp_path / "out")
    (line,) = table(tmp_path / "out")
    assert line["trainings"] == "4"  # of two folds each
    assert "folds 0, 1, each with seeds 0, 1" in (tmp_path / "out" / "compared.md").read_text()


def test_single_runs_with_the_same_split_share_a_table(runs, tmp_path):
    plain, smooth = runs
    collect([plain / "fold1", smooth / "fold1"], tmp_path / "out")
    assert [line["patients"] for line in table(tmp_path / "out")] == ["2", "2"]


@pytest.mark.parametrize("which, words", [
    (("plain", "plain"), "the same settings, seed and fold"),
    (("plain", "nothing"), "config.json"),
    (("plain", "unjudged"), "not trained and judged"),
    (("plain", "coarse"), "different grids"),
])  # fmt: skip
def test_what_cannot_be_collected_is_named_and_nothing_is_written(runs, make, tmp_path, which, words):
    folders = {"plain": runs[0], "nothing": tmp_path / "nothing", "unjudged": tmp_path / "unjudged"}
    folders["coarse"] = tmp_path / "coarse"
    if "unjudged" in which:
        experiment.run(make("unjudged", workdir=str(folders["unjudged"]), steps=2, final_evaluation=False))
    if "coarse" in which:
        experiment.run(make("coarse", workdir=str(folders["coarse"]), steps=2, spacing=2.5))
    with pytest.raises(UserError, match=words):
        collect([folders[name] for name in which], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_another_sweep_is_left_alone(runs, tmp_path):
    plain, smooth = runs
    collect([plain], tmp_path / "out", name="first")
    collect([plain, smooth], tmp_path / "out", name="first")  # again, with one more
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="other studies"):
        collect([plain], tmp_path / "out", name="second")
    assert before == {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
