"""The systems of the paper's tables are timed, trained and judged where that is missing; what is there is kept."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
import tiny
from timings import timing

from ica_unet_jax.benchmarking import measuring
from ica_unet_jax.benchmarking.systems import System
from ica_unet_jax.benchmarking.timing import Ceilings
from ica_unet_jax.config import Config
from ica_unet_jax.errors import Diverged, UserError
from ica_unet_jax.runtime.files import write_json, write_text
from ica_unet_jax.sweeps import comparing, system_results, trials


def made_up(rows, seconds):
    """A benchmark's result."""
    found = {row.name: timing(row.name, 20, 20, 1)["rows"][row.name] | dict(model=measuring.described_model(row), runtime=row.runtime) for row in rows}
    return timing("any", 20, 20, 1) | {"rows": found}


def test_systems_are_timed_in_one_group_at_both_widths(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(measuring, "benchmark", lambda rows, seconds: asked.append(rows) or made_up(rows, seconds))
    configs = {tmp_path / model: Config.make(model=model, width_multiplier=0.25) for model in ("grid_net", "ica_unet", "msu_net")}
    comparing.time_systems(configs, 0.0, "openvino")
    [rows] = asked
    assert [(row.name, row.config.model.width_multiplier, row.runtime) for row in rows] == [
        ("grid_net", 1.0, "openvino"), ("grid_net/0.25", 0.25, "openvino"), ("ica_unet", 1.0, "openvino"),
        ("msu_net", 1.0, "jax"), ("msu_net/0.25", 0.25, "jax"),
    ]  # fmt: skip
    assert len({row.group for row in rows}) == 1
    known = {run.name: set(json.loads((run / "timing.json").read_text())["rows"]) for run in configs}
    assert known == {"grid_net": {"grid_net", "grid_net/0.25"}, "ica_unet": {"ica_unet"}, "msu_net": {"msu_net", "msu_net/0.25"}}
    comparing.time_systems(configs, 0.0, "openvino")
    assert len(asked) == 1  # what is there is kept
    comparing.time_systems(configs, 0.0, "jax")
    assert len(asked) == 2 and {row.runtime for row in asked[1]} == {"jax"}


def test_tables_say_under_which_runtime_they_were_timed(reference, monkeypatch):
    monkeypatch.setattr(trials.loop, "train", tiny.write_run)
    monkeypatch.setattr(measuring, "benchmark", made_up)
    monkeypatch.setattr(comparing.runtimes, "choose", lambda name, dtype="float32": name)
    folder = comparing.compare(reference, runtime="openvino")
    assert "Timed under openvino: Narrow, Steady." in (folder / "tables.md").read_text()


@pytest.fixture
def reference(cohort, tmp_path, monkeypatch):
    """Two cheap systems, of which the second is judged cleaned, and one that does not fit the grid."""
    some = (
        System("narrow", "Narrow", (1, 2), dict(model="unet2d")),
        System("large", "Large", (1,), dict(model="ica_unet")),
        System("steady", "Steady", (2,), dict(model="unet2d", flip=True)),
    )
    for module in (comparing, system_results):
        monkeypatch.setattr(module, "SYSTEMS", some)
    cleaning = property(lambda trial: dict.fromkeys(("mirror", "largest_component"), trial.title == "Steady"))
    monkeypatch.setattr(trials.Trial, "cleaning", cleaning)
    monkeypatch.setattr(measuring, "ceilings", lambda seconds: Ceilings(1e11, 4e11, 1e10))
    return Config.make(**tiny.LOOP, data_dir=str(cohort), cache_dir=str(tmp_path / "cache"), workdir=str(tmp_path / "tables"))


def test_tables_are_made_and_what_is_there_is_kept(reference, monkeypatch, capsys):
    monkeypatch.setattr(trials.loop, "train", tiny.write_run)
    timed = []

    monkeypatch.setattr(measuring, "benchmark", lambda rows, seconds: timed.extend(row.name for row in rows) or made_up(rows, seconds))
    folder = comparing.compare(reference)
    text = (folder / "tables.md").read_text()
    for told in (capsys.readouterr().out, text):
        assert "Large is left out: --crop=2,32,32: height and width" in told
    with (folder / "table_2.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["System"] for row in rows] == ["Narrow", "Steady"]
    summaries = [json.loads((folder / name / "evaluation_val" / "summary.json").read_text()) for name in ("narrow", "steady")]
    assert [row["Dice mean"] for row in rows] == [f"{summary['dice']['mean']:.3f}" for summary in summaries]
    assert [(summary["mirror"], summary["largest_component"]) for summary in summaries] == [(False, False), (True, True)]
    assert (folder / "tables.png").read_bytes().startswith(b"\x89PNG")
    assert rows[0]["Parameters (M)"] == rows[1]["Parameters (M)"] == "2.50"
    assert "2 patients, 2 of known voxel size, 4 steps" in text and "One seed and 2 patients decide nothing" in text and "\\begin{tabular}" in (folder / "table_1.tex").read_text()
    monkeypatch.setattr(trials.loop, "train", None)
    comparing.compare(reference)
    assert (folder / "tables.md").read_text() == text and timed == ["narrow", "steady"]
    with pytest.raises(UserError, match="holds a run with other settings"):
        comparing.compare(reference.replace(learning_rate=1.0))
    with pytest.raises(UserError, match="--split_by=none: nobody validates, so nothing can be compared"):
        comparing.compare(reference.replace(split_by="none"))
    split = json.loads((folder / "steady" / "split.json").read_text())
    write_json(folder / "steady" / "split.json", split | {"val": split["train"]})
    with pytest.raises(UserError, match=r"cannot stand in one table \(narrow and steady differ in split\)"):
        comparing.compare(reference)


def test_folds_are_pooled_so_that_each_patient_is_judged_once(reference, monkeypatch):
    seen, asked = [], []

    def train(config):
        seen.append((config.data.fold, config.train.seed))
        tiny.write_run(config)
        halves = [["patient001", "patient002"], ["patient003", "patient004"]]
        write_json(Path(config.train.workdir) / "split.json", dict(train=halves[1 - config.data.fold], val=halves[config.data.fold]))

    monkeypatch.setattr(trials.loop, "train", train)
    monkeypatch.setattr(measuring, "benchmark", lambda rows, seconds: asked.append(rows) or made_up(rows, seconds))
    folder = comparing.compare_folds(reference.replace(folds=2, seed=5), [0, 1], only=["narrow"])
    assert seen == [(0, 5), (1, 6)] and len(asked) == 1  # timed once
    [pooled] = system_results.read(folder, "val")
    alone = [system_results.read(folder / f"fold{k}", "val")[0] for k in (0, 1)]
    names = [{row["patient"] for row in result.cases} for result in alone]
    assert not names[0] & names[1] and pooled.summary["n_patients"] == sum(map(len, names)) and not pooled.state and pooled.timings == alone[0].timings
    weighed = sum(result.summary["dice"]["mean"] * len(patients) for result, patients in zip(alone, names, strict=True)) / pooled.summary["n_patients"]
    assert pooled.summary["dice"]["mean"] == pytest.approx(weighed)
    assert "split val of fold 0, 1, each row one network for each fold, hours their mean, 4 patients" in (folder / "tables.md").read_text()
    shutil.rmtree(folder / "fold1" / "narrow" / "evaluation_val")
    assert system_results.read(folder, "val")[0].state == "1 of 2 folds (not trained yet)"


@pytest.mark.parametrize(
    "folds, split, changes, why",
    [
        ([0], "test", {}, "--split=test: these are the same patients for all folds; leave one of the two out."),
        ([0], "val", dict(split_by="published"), "--split_by=published: these are the same patients"),
        ([0, 2], "val", {}, "--fold=2 does not exist: folds are 0 to 1"),
    ],
)
def test_folds_that_cannot_be(reference, monkeypatch, folds, split, changes, why):
    """Before anything is trained."""
    monkeypatch.setattr(trials.loop, "train", lambda config: pytest.fail("trained"))
    with pytest.raises(UserError, match=re.escape(why)):
        comparing.compare_folds(reference.replace(folds=2, **changes), folds, split=split)


@pytest.mark.slow
def test_times_of_other_networks_and_other_judgements_are_not_kept(reference, monkeypatch):
    monkeypatch.setattr(trials.loop, "train", tiny.write_run)
    folder = comparing.compare(reference, only=["steady"], seconds=0.0)
    timed, summary = folder / "steady" / "timing.json", folder / "steady" / "evaluation_val" / "summary.json"
    before = json.loads(timed.read_text())["rows"]["steady"]["parameters"]
    trials.judging.evaluate(folder / "steady", split="val", cines=0, pictures=False)  # as `evaluate` does, into the same folder
    assert not json.loads(summary.read_text())["mirror"]
    comparing.compare(reference, only=["steady"], seconds=0.0)
    assert json.loads(summary.read_text())["mirror"]
    comparing.time_systems({folder / "steady": reference.replace(model="unet2d", unet_width=2)}, 0.0, "jax")
    assert json.loads(timed.read_text())["rows"]["steady"]["parameters"] > before


def test_a_divergence_is_a_row_and_not_repeated(reference, monkeypatch):
    def diverge(config):
        tiny.write_run(config)
        raise Diverged(1, "loss not finite", ".")

    monkeypatch.setattr(trials.loop, "train", diverge)
    folder = comparing.compare(reference, only=["steady"], timed=False)
    assert "| Steady: diverged at step 1 (loss not finite) |" in (folder / "tables.md").read_text()
    monkeypatch.setattr(trials.loop, "train", None)
    comparing.compare(reference, only=["steady"], timed=False)
    write_text(folder / "steady" / "config.json", reference.replace(flip=True, learning_rate=1.0).to_json())
    with pytest.raises(UserError, match="learning_rate 1.0 -> "):  # perhaps it would not with other settings
        comparing.compare(reference, only=["steady"], timed=False)


@pytest.mark.slow
def test_a_kill_costs_what_was_not_finished(reference, monkeypatch):
    """Timed, trained to the last step, and killed before it was judged: it is judged."""
    evaluate = trials.judging.evaluate

    def kill(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(trials.judging, "evaluate", kill)
    with pytest.raises(KeyboardInterrupt):
        comparing.compare(reference, only=["narrow"], seconds=0.0)
    monkeypatch.setattr(trials.judging, "evaluate", evaluate)
    monkeypatch.setattr(measuring, "benchmark", None)
    monkeypatch.setattr(trials.loop, "make_step", lambda config: None)  # no step is made
    folder = comparing.compare(reference, only=["narrow"])
    with (folder / "table_1.csv").open() as file:
        [row] = csv.DictReader(file)
    summary = json.loads((folder / "narrow" / "evaluation_val" / "summary.json").read_text())
    assert row["System"] == "Narrow" and row["Dice mean"] == f"{summary['dice']['mean']:.3f}" and float(row["FPS"]) > 0


def test_all_are_timed_before_one_is_trained(reference, monkeypatch):
    """Their ratios are of one machine in one state; bad data are refused before."""
    order = []
    monkeypatch.setattr(comparing, "time_systems", lambda configs, seconds, runtime: order.append(f"time {' '.join(run.name for run in configs)}"))
    monkeypatch.setattr(trials.Trial, "run", lambda trial: order.append(f"train {trial.folder.name}"))
    with pytest.raises(UserError, match="nowhere"):
        comparing.compare(reference.replace(data_dir="nowhere"))
    assert order == []
    comparing.compare(reference)
    assert order == ["time narrow steady", "train narrow", "train steady"]


def test_a_word_that_fits_no_system(reference):
    with pytest.raises(UserError, match="--only=foo fits no system: give parts of narrow, large, steady"):
        comparing.compare(reference, only=["foo"])
