"""What a sweep takes: by what runs took, by measured parts, and how both are told."""

import dataclasses
import json

import jax
import pytest

from ica_unet_jax.config import Config
from ica_unet_jax.runs.provenance import processor
from ica_unet_jax.sweeps import cost, runner
from ica_unet_jax.sweeps.plan import Sweep
from ica_unet_jax.sweeps.probe import Compiling, Parts
from ica_unet_jax.sweeps.study import Study

TINY = dict(model="unet2d", crop=(2, 32, 32), unet_width=1, batch_size=1, steps=60, evaluate_every=20, warmup_steps=0)
PARTS = Parts(
    reading=1, first_step=2, compiling=30, step=0.5, saving=0.25, grid=0.1, network=3, validated=0.01, judged=0.02, read=0.03, bases=0,
    frames=40, patients=20, grids=10, start=4,
)  # fmt: skip
DECAY = [("more decay", dict(weight_decay=0.1)), ("wider", dict(unet_width=2))]


@pytest.fixture
def sweep(tmp_path):
    studies = [Study("trial", "?", "2", DECAY), Study("other", "?", "2", [("more decay", DECAY[0][1])])]
    return Sweep(tmp_path / "sweep", Config.make(**TINY), studies, 3)


def finish(sweep, run, wall, threads=1, machine=None):
    """The files of a finished run that an estimate reads."""
    folder = runner.finished(sweep.workdir, run)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(run.config.to_json())
    (folder / "timing.json").write_text(json.dumps({"wall_seconds": wall, "threads": threads}))
    (folder / "provenance.json").write_text(json.dumps({"machine": machine or processor()}))
    (folder / "done.json").write_text(json.dumps({"status": "done"}))


def estimate(sweep, shares=1):
    return cost.Estimate(sweep.workdir, sweep, [runner.Slot(threads=1)] * shares)


def test_a_cell_is_the_sum_of_its_parts():
    config = Config.make(**TINY)  # 60 steps, three validations
    begin, train, validate = 4 + 1 + 2, 60 * 0.5, 3 * (40 * 0.01 + 0.25)
    judge = 3 * 3 + 2 * 10 * 0.1 + 20 * 0.03 + 40 * 0.02 + 2  # the last: frames in a stream
    assert PARTS.seconds(config, compiled=True) == pytest.approx(begin + train + validate + judge)
    assert PARTS.seconds(config, compiled=False) - PARTS.seconds(config, compiled=True) == pytest.approx(30)
    with_bases = dataclasses.replace(PARTS, bases=0.5)
    assert with_bases.seconds(config, compiled=True) - PARTS.seconds(config, compiled=True) == pytest.approx(40 * 0.5)


def test_what_runs_took_goes_before_all_else(sweep):
    runs = list(sweep.runs())
    reference, decay, wider = (run.cell for run in runs[:3])
    assert estimate(sweep).seconds(reference) is None
    finish(sweep, runs[0], 100)
    finish(sweep, runs[3], 140)
    finish(sweep, runs[1], 1, threads=2)
    finish(sweep, runs[2], 1, machine="another")
    found = estimate(sweep)
    assert found.seconds(reference) == (120, "took")
    assert found.seconds(decay) == (120, "took, another cell of this network") and found.seconds(wider) is None


def test_measured_parts_follow_what_runs_took(sweep):
    runs = list(sweep.runs())
    reference, decay, wider = (run.cell for run in runs[:3])
    found = estimate(sweep)
    for config in found.cells.values():
        found.parts[cost.network(config)] = PARTS
    found.warm = {reference}
    whole = PARTS.seconds(found.cells[reference], compiled=True)
    assert found.seconds(reference, first=True) == (whole, "measured")
    assert found.seconds(decay, first=True) == (whole + 30, "measured, this network")
    assert found.total(decay, 3) == pytest.approx(3 * whole + 30)
    finish(sweep, runs[0], 2 * whole)
    found.look()
    assert found.correction() == pytest.approx(2)
    assert found.seconds(wider)[0] == pytest.approx(2 * whole)


def test_the_time_left(sweep):
    runs = list(sweep.runs())
    assert estimate(sweep).left([]) == (0, 0) and estimate(sweep).left(runs) == (None, 9)
    finish(sweep, runs[0], 100)
    assert estimate(sweep).left(runs[1:]) == (800, 3)  # the wider ones count as the others
    assert estimate(sweep, 2).left(runs[1:]) == (400, 3)
    assert estimate(sweep, 3).left(runs[2:]) == (pytest.approx(300), 3)  # the last round has a share idle
    assert cost.duration(90, 0) == "1.5 minutes" and cost.duration(1500, 0) == "25 minutes"
    assert cost.duration(5400, 2) == "90 minutes (1.5 hours), 2 runs of unknown length among them"
    assert cost.duration(None, 9) == "an unknown time"


def test_the_plan_is_told_by_study_and_title(sweep):
    runs = list(sweep.runs())
    finish(sweep, runs[0], 120)
    found = estimate(sweep)
    found.failed[cost.network(found.cells[runs[2].cell])] = "out of memory"
    lines = cost.report(sweep, runs, runs[1:], found).splitlines()
    assert lines[0] == "9 runs, 8 left; 1 at a time, on 1 core each."
    cells = [[item.strip() for item in line.strip("|").split("|")] for line in lines if line.startswith("|")][2:]
    assert cells == [
        ["trial", "reference", "2", "2.0", "4.0", "took"],
        ["trial", "more decay", "3", "2.0", "6.0", "took, another cell of this network"],
        ["trial", "wider", "3", "?", "?", "out of memory"],
        ["other", "reference", "as above", "", "", ""],
        ["other", "more decay", "as above", "", "", ""],
    ]
    assert lines[-1] == "Together 16 minutes, 3 runs of unknown length among them."


@pytest.mark.slow
def test_networks_are_measured_once_and_one_that_cannot_be_is_named(cohort, tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    base = Config.make(**TINY, data_dir=str(cohort), cache_dir=str(tmp_path / "cache"))
    study = Study("trial", "?", "2", [*DECAY[:1], ("nothing", dict(label_map="7:9", unet_width=2))])
    sweep, told = Sweep(tmp_path / "sweep", base, [study], 2), []
    found, runs = estimate(sweep), list(sweep.runs())
    found.measure(runs, told.append)
    reference, decay, nothing = found.cells
    assert told[0].startswith("measuring 2 networks") and not (tmp_path / "sweep").exists()
    assert found.warm == {reference} and found.seconds(decay)[1] == "measured, this network"
    parts = found.parts[cost.network(base)]
    assert (parts.frames, parts.patients, parts.grids) == (4, 2, 1) and parts.bases == 0
    assert all(getattr(parts, name) > 0 for name in ("start", "reading", "first_step", "step", "saving", "network", "validated", "judged", "read"))
    assert "label_map" in next(iter(found.failed.values())) and any("nothing: cannot be measured" in line for line in told)
    count = len(told)
    found.measure(runs, told.append)
    assert len(told) == count


def test_a_silent_measurement_says_that_it_goes_on(monkeypatch, tmp_path):
    monkeypatch.setattr(cost, "SILENCE", 0.01)
    stub = tmp_path / "ica_unet_jax" / "sweeps"
    stub.mkdir(parents=True)
    (stub.parent / "__init__.py").touch()
    (stub / "cell.py").write_text("import time; time.sleep(0.3); raise SystemExit('no: memory')")
    monkeypatch.chdir(tmp_path)  # where -m looks first
    told = []
    assert cost.probe(Config.make(**TINY), runner.Slot(), told.append) == (None, "no: memory")
    assert told and told[0].startswith("still measuring after ")


def test_compilations_are_told_apart_from_what_is_loaded():
    with Compiling() as found:
        for event, seconds in (("compile_time_saved_sec", 29.0), ("backend", 1.0), ("backend", 20.0), ("backend", 0.01)):
            found._heard("/jax/compilation_cache/" + event if event != "backend" else "/jax/core/compile/backend_compile_duration", seconds)
    assert found.observed == pytest.approx(21.01) and found.cold == pytest.approx(50.01)
    assert found.cached == pytest.approx(1 + 0.03 * 20 + 0.01)  # loaded; compiled now, and loaded from now on; never kept
    assert found.warm(25) == pytest.approx(25 - 21.01 + 1.61) and found.extra == pytest.approx(50.01 - 1.61)
