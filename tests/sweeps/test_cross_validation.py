"""Every patient is judged once, by the fold that never saw it; what is done is not done again."""

import csv
import json
import shutil

import pytest

from ica_unet_jax.data import reading
from ica_unet_jax.errors import Diverged, UserError
from ica_unet_jax.metrics import cases
from ica_unet_jax.runs import run_folder
from ica_unet_jax.runs.trained import find
from ica_unet_jax.sweeps import cross_validation
from ica_unet_jax.training import experiment, loop

pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.fixture(scope="module")
def done(make, compiled_once):
    """A cross-validation of four patients in two folds, as a cluster would: fold 1, then fold 0."""
    config = make("cv", steps=2)
    assert cross_validation.run(config, only_fold=1) == [0]
    assert not list(folder_of(config).glob("*.*"))
    assert cross_validation.run(config, only_fold=0) == []
    return config


def folder_of(config):
    return cross_validation.Path(config.train.workdir)


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_all_patients_are_judged_out_of_fold(done):
    folder = folder_of(done)
    rows = rows_of(folder / "cases.csv")
    assert [row["patient"] for row in rows] == [f"patient00{i}" for i in (1, 1, 2, 2, 3, 3, 4, 4)]
    for fold in (0, 1):
        split = json.loads((folder / f"fold{fold}" / "split.json").read_text())
        judged = rows_of(folder / f"fold{fold}" / "evaluation_val" / "cases.csv")
        assert {row["patient"] for row in judged} == set(split["val"]) and not set(split["val"]) & set(split["train"])
        assert all(row in rows for row in judged)


def test_the_table_is_over_patients(done):
    folder = folder_of(done)
    text = (folder / "table.md").read_text()
    assert text.startswith("# cv: 4 patients out of fold, 8 frames, 2 folds")
    summary = json.loads((folder / "summary.json").read_text())
    rows = cases.read_cases_csv(folder / "cases.csv")
    patients = {}
    for row in rows:
        patients.setdefault(row["patient"], []).append(row["dice_LV"])
    means = [sum(values) / 2 for values in patients.values()]
    assert summary["dice"]["LV"] == pytest.approx(sum(means) / 4)
    assert "| all | 4 |" in text and f"{summary['dice']['mean']:.3f} ± {summary['dice_sd']['mean']:.3f} |" in text
    assert text.count("| 2 |") == 2  # each fold has two patients


def test_what_is_done_is_not_done_again(done, monkeypatch):
    monkeypatch.setattr(experiment, "run", None)
    before = (folder_of(done) / "table.md").read_bytes()
    assert cross_validation.run(done) == []
    assert (folder_of(done) / "table.md").read_bytes() == before
    with pytest.raises(UserError, match=r"fold0 holds a run with other settings \(seed 0 -> 1\)"):
        cross_validation.run(done.replace(seed=1))


def test_a_fold_is_what_train_makes(done, make):
    alone = make("alone", steps=2, fold=1)
    experiment.run(alone)
    one, other = (folder / "evaluation_val" / "cases.csv" for folder in (folder_of(alone), folder_of(done) / "fold1"))
    assert one.read_bytes() == other.read_bytes()
    assert "## Validation patients" in (folder_of(done) / "fold1" / "report.md").read_text()
    assert find(folder_of(alone)).doubt_limits["unsure"] > 0


@pytest.mark.slow
def test_a_fold_that_diverges_does_not_keep_the_others_from_running(make, monkeypatch):
    config, train = make("diverging", steps=2), loop.train

    def diverge(config, **options):
        if config.data.fold == 0:
            run_folder.open_run(config, {"train": ["patient001"], "val": ["patient002"]})
            raise Diverged(1, "loss not finite", ".")
        return train(config, **options)

    monkeypatch.setattr(loop, "train", diverge)
    with pytest.raises(Diverged, match="step 1"):
        cross_validation.run(config)
    monkeypatch.setattr(loop, "train", train)
    assert cross_validation.run(config, only_fold=1) == [0]
    with pytest.raises(Diverged, match=r"diverged at step 1 \(loss not finite\) in .*fold0: remove it"):  # it would again
        cross_validation.run(config)
    assert not (folder_of(config) / "table.md").exists()
    shutil.rmtree(folder_of(config) / "fold0")
    assert cross_validation.run(config) == []


def test_what_makes_no_folds_is_refused(make, tmp_path):
    with pytest.raises(UserError, match="--only_fold=2 does not exist: folds are 0 to 1"):
        cross_validation.run(make("none"), only_fold=2)
    with pytest.raises(UserError, match="--split_file is one split and no folds"):
        cross_validation.run(make("none", split_file="split.json"))
    with pytest.raises(UserError, match="--split_by=none is one split and no folds"):
        cross_validation.run(make("none", split_by="none"))


def test_patients_who_moved_between_the_folds_are_refused(done):
    path = folder_of(done) / "fold1" / "evaluation_val" / "cases.csv"
    before = path.read_bytes()
    path.write_bytes((folder_of(done) / "fold0" / "evaluation_val" / "cases.csv").read_bytes())
    with pytest.raises(UserError, match="was judged in two folds: the data have changed"):
        cross_validation.pool(done)
    path.write_bytes(before)


def test_rows_come_back_from_their_file(cohort, tmp_path):
    truth = reading.read(reading.find_cases(cohort)[0])
    row = cases.case_metrics(truth.labels[0] * 0, truth.labels[0], truth.spacing)
    row |= dict(patient="a", group="NOR", frame=1, phase="ED", nominal_spacing=True, labelled_outside=3)
    cases.write_cases_csv(tmp_path / "cases.csv", [row])
    assert cases.read_cases_csv(tmp_path / "cases.csv") == [row]
    (tmp_path / "cases.csv").write_text("patient,frame\na,1\n")
    with pytest.raises(UserError, match="cases.csv cannot be read as the cases of an evaluation"):
        cases.read_cases_csv(tmp_path / "cases.csv")
