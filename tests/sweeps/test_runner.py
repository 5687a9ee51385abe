"""A sweep on the smallest network: every run once, failures are rows, and a cell is what `train` would have made."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import pytest
from places import ROOT

from ica_unet_jax.config import Config
from ica_unet_jax.errors import UserError
from ica_unet_jax.metrics.cases import METRICS_VERSION
from ica_unet_jax.runs.log import read_metrics
from ica_unet_jax.sweeps import records, runner, slurm, tables
from ica_unet_jax.sweeps.plan import Sweep
from ica_unet_jax.sweeps.study import Study

TINY = dict(
    model="unet2d", crop=(2, 32, 32), unet_width=1, batch_size=1, steps=6, evaluate_every=3, log_every=1, warmup_steps=0
)  # fmt: skip
CELLS = [dict(weight_decay=0.1), dict(learning_rate=1e6), dict(label_map="7:9")]


@pytest.fixture(scope="module", autouse=True)
def shared_compilation():
    """The runs' processes use the tests' cache of compiled programs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
        patch.setenv("JAX_PLATFORMS", "cpu")
        yield


def make_sweep(workdir, cohort, cells=CELLS, seeds=1):
    base = Config.make(**TINY, data_dir=str(cohort), cache_dir=str(workdir.parent / "cache"))
    study = Study("trial", "Does anything matter?", "2", cells)
    return Sweep(workdir, base, [study], 1, seeds=seeds)


def write_sweep(sweep):
    facts = {"command": "trial", "commit": "", "hardware": {}} | sweep.description()
    sweep.workdir.mkdir(parents=True, exist_ok=True)
    (sweep.workdir / "sweep.json").write_text(json.dumps(facts))


def folder(sweep, label):
    """The finished folder of the cell of that label, seed 0."""
    cells = {cell["label"]: cell["cell"] for cell in sweep.description()["studies"][0]["cells"]}
    return sweep.workdir / "cells" / cells[label] / "seed0_fold0"


def without_clock(path):
    clock = {"seconds_per_step", "compiled"}
    return [{k: v for k, v in line.items() if k not in clock} for line in read_metrics(path)]


@pytest.fixture(scope="module")
def finished(cohort, tmp_path_factory):
    """A finished sweep and the statuses in the order of their ends."""
    sweep, ends = make_sweep(tmp_path_factory.mktemp("sweep") / "sweep", cohort), []
    write_sweep(sweep)
    shares = runner.slots(2, 1)
    runner.run_all(sweep.workdir, list(sweep.runs()), shares, lambda run, status: ends.append((run.cell, status)))
    return sweep, ends


def test_a_divergence_and_a_crash_are_rows_and_the_others_finish(finished):
    sweep, ends = finished
    assert sorted(status for _, status in ends) == ["crashed", "diverged", "done", "done"]
    done = {
        label: json.loads((folder(sweep, label) / "done.json").read_text())
        for label in ("reference", "weight_decay=0.1", "learning_rate=1e+06", "label_map=7:9")
    }
    assert done["reference"] == {"status": "done", "message": "", "step": 6, "metrics_version": METRICS_VERSION}
    assert done["learning_rate=1e+06"]["status"] == "diverged" and 0 < done["learning_rate=1e+06"]["step"] <= 6
    assert "not finite" in (why := done["learning_rate=1e+06"]["message"]) or "chance" in why
    assert done["label_map=7:9"]["status"] == "crashed" and "label_map" in done["label_map=7:9"]["message"]
    tables.write_all(sweep.workdir)
    page = (sweep.workdir / "trial.md").read_text()
    assert "diverged at step" in page and "crashed" in page


def test_a_finished_folder_is_small_whole_and_names_no_place(finished):
    sweep, _ = finished
    names = {path.name for path in folder(sweep, "reference").iterdir()}
    assert names == {"config.json", "split.json", "provenance.json", "metrics.jsonl", "cases.csv", "places.csv", "timing.json", "done.json"}
    text = "".join(path.read_text() for path in folder(sweep, "reference").iterdir())
    assert str(sweep.workdir) not in text and str(ROOT) not in text and sys.executable not in text
    assert not list((sweep.workdir / "running").rglob("checkpoints"))  # of what ended; the crash came before the first
    timing = json.loads((folder(sweep, "reference") / "timing.json").read_text())
    assert timing["threads"] == 1 and timing["steps"] == 6 and timing["seconds_per_step"] > 0
    assert timing["frame_ms"] > 0 and timing["wall_seconds"] > timing["evaluation_seconds"] > 0
    assert "commit" in json.loads((folder(sweep, "reference") / "provenance.json").read_text())
    diverged = json.loads((folder(sweep, "learning_rate=1e+06") / "timing.json").read_text())
    assert diverged["frame_ms"] is diverged["wall_seconds"] is diverged["evaluation_seconds"] is None


def test_what_is_finished_is_never_run_again_but_a_crash_is(finished):
    sweep, _ = finished
    left = runner.missing(sweep.workdir, sweep.runs())
    assert [run.cell.split("-")[0] for run in left] == ["label_map=7_9"]
    assert len(runner.missing(sweep.workdir, make_sweep(sweep.workdir, sweep.base.data.data_dir, seeds=2).runs())) == 1 + 4


@pytest.mark.parametrize("compacted", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_sweep_goes_on_elsewhere_with_its_finished_cells_alone(finished, cohort, tmp_path, compacted):
    """As in a fresh clone: the data, the cache and the folder of the sweep lie in other places."""
    sweep, _ = finished
    data = shutil.copytree(cohort, tmp_path / "data")
    there = make_sweep(tmp_path / "clone" / "sweep", data)
    shutil.copytree(sweep.workdir / "cells", there.workdir / "cells")
    shutil.copy(sweep.workdir / "sweep.json", there.workdir)
    again = folder(there, "weight_decay=0.1")
    shutil.rmtree(again)
    shutil.rmtree(folder(there, "label_map=7:9"))
    if compacted:
        records.compact(there.workdir)
    before = {path: path.read_bytes() for path in there.workdir.rglob("*") if path.is_file()}
    left, ends = runner.missing(there.workdir, there.runs()), []
    assert {Path(runner.finished(there.workdir, run)) for run in left} == {again, folder(there, "label_map=7:9")}
    runner.run_all(there.workdir, [left[0]], runner.slots(1, 1), lambda run, status: ends.append(status))
    assert ends == ["done"] and all(path.read_bytes() == content for path, content in before.items())
    for name in ("cases.csv", "config.json", "split.json"):
        assert (again / name).read_bytes() == (folder(sweep, "weight_decay=0.1") / name).read_bytes()


def test_a_killed_cell_is_a_row_and_goes_on_from_its_checkpoint(cohort, tmp_path, monkeypatch):
    sweep = make_sweep(tmp_path / "sweep", cohort, cells=[])
    sweep = dataclasses.replace(sweep, base=sweep.base.replace(steps=5000, evaluate_every=2))
    [run], shares = sweep.runs(), runner.slots(1, 1)
    real = subprocess.Popen

    def whole():
        return [int(path.name) for path in Path(run.config.train.workdir).glob("checkpoints/*") if path.name.isdigit()]

    def popen(*arguments, **options):
        process = real(*arguments, **options)
        threading.Thread(target=kill, args=[process], daemon=True).start()
        return process

    def kill(process):
        while not whole():
            time.sleep(0.02)
        process.kill()

    monkeypatch.setattr(runner.subprocess, "Popen", popen)
    assert runner.execute(sweep.workdir, run, shares[0]) == "crashed"
    done = json.loads((runner.finished(sweep.workdir, run) / "done.json").read_text())
    assert done["status"] == "crashed" and done["message"] == "killed by signal 9" and runner.missing(sweep.workdir, [run]) == [run]
    reached, log = max(whole()), Path(run.config.train.workdir) / "training.log"
    process = real(
        [sys.executable, "-m", "ica_unet_jax.sweeps.cell", str(log.parent / "cell.json"), str(runner.finished(sweep.workdir, run))],
        stdin=subprocess.PIPE, env=runner.environment(shares[0]),
    )  # fmt: skip
    while "going on from step" not in log.read_text():
        assert process.poll() is None
        time.sleep(0.05)
    process.stdin.close()  # and it ends, as it does when the runner is killed
    assert process.wait() and int(log.read_text().split("going on from step ")[1].split()[0]) >= reached > 0


def test_a_knob_of_a_later_version_leaves_what_is_finished_a_changed_default_does_not(finished, tmp_path):
    sweep, _ = finished
    copy = shutil.copytree(sweep.workdir, tmp_path / "sweep")
    run = next(sweep.runs())
    path = runner.finished(copy, run) / "config.json"
    knobs = json.loads(path.read_text())
    added = {name: value for name, value in knobs.items() if name != "remat"}  # as if it had not existed then
    path.write_text(json.dumps(added))
    assert runner.status(copy, run) == "done"
    path.write_text(json.dumps(knobs | {"ema_decay": 0.5}))
    with pytest.raises(UserError, match="other defaults of ema_decay: take another --workdir"):
        runner.status(copy, run)


def test_the_reference_cell_is_what_train_makes(finished, tmp_path):
    sweep, _ = finished
    run = next(iter(sweep.runs()))
    config = run.config.replace(workdir=str(tmp_path / "run"), final_evaluation=True)
    flags = [f"--{k}={','.join(map(str, v)) if isinstance(v, tuple) else v}" for k, v in config.diff(Config()).items()]
    slot = runner.slots(1, 1)[0]
    bind = f"os.sched_setaffinity(0, {slot.cores});" if slot.cores else ""  # in the child: a fork is nothing for JAX
    start = f"import os, runpy; {bind} runpy.run_module('ica_unet_jax.train', run_name='__main__', alter_sys=True)"
    subprocess.run([sys.executable, "-c", start, *flags], env=runner.environment(slot), cwd=ROOT, check=True, capture_output=True)
    assert (tmp_path / "run/evaluation_val/cases.csv").read_bytes() == (folder(sweep, "reference") / "cases.csv").read_bytes()
    assert without_clock(tmp_path / "run") == without_clock(folder(sweep, "reference"))


def test_slots_share_out_cores_and_gpus(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(runner, "gpus", lambda: [])
    assert [slot.cores for slot in runner.slots(0, 3)] == [(0, 1, 2), (3, 4, 5)]
    assert [len(slot.cores) for slot in runner.slots(0, 0)] == [1] * 8  # one job a core
    assert [(slot.threads, len(slot.cores)) for slot in runner.slots(1, 0)] == [(8, 8)]  # a job alone has them all
    assert [slot.cores for slot in runner.slots(3, 0)] == [(0, 1), (2, 3), (4, 5)]
    assert len(runner.slots(0, 1)) == 8 and all(slot.gpu is None for slot in runner.slots(2, 4))
    with pytest.raises(UserError, match="--jobs=5 with --threads=2 asks for 10 cores of 8"):
        runner.slots(5, 2)
    monkeypatch.setattr(runner, "gpus", lambda: [0, 1])
    assert [slot.gpu for slot in runner.slots(0, 2)] == [0, 1]
    assert [slot.threads for slot in runner.slots(0, 0)] == [4, 4]  # one job a GPU
    four = runner.slots(4, 2)
    assert [slot.gpu for slot in four] == [0, 1, 0, 1] and {slot.gpu_share for slot in four} == {2}
    assert runner.environment(four[3])["CUDA_VISIBLE_DEVICES"] == "1"


@pytest.mark.slow
def test_the_cluster_executor_runs_them_too(finished, cohort, tmp_path):
    pytest.importorskip("submitit")
    sweep = make_sweep(tmp_path / "sweep", cohort, cells=[dict(label_map="7:9")])
    ends = []
    slurm.run_all(
        sweep.workdir, sweep.runs(), lambda run, status: ends.append(status), jobs=2, threads=1, parameters={}, cluster="local"
    )
    assert sorted(ends) == ["crashed", "done"]
    assert (folder(sweep, "reference") / "cases.csv").read_bytes() == (folder(finished[0], "reference") / "cases.csv").read_bytes()


@pytest.mark.slow
def test_kill_9_costs_nothing(cohort, tmp_path):
    def command(name):
        flags = TINY | dict(crop="2,32,32", data_dir=cohort, cache_dir=tmp_path / "cache", studies="neighbours,alpha", seeds=2)
        flags |= dict(model="unet2d", workdir=tmp_path / name, jobs=1)
        return [sys.executable, str(ROOT / "ablations" / "run_all.py"), *(f"--{k}={v}" for k, v in flags.items())]

    subprocess.run(command("whole"), check=True)
    process = subprocess.Popen(command("killed"))
    while len(list((tmp_path / "killed").glob("cells/*/*/done.json"))) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob("cells/*/*/done.json")}
    subprocess.run(command("killed"), check=True)
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    for path in sorted((tmp_path / "whole").glob("cells/*/*/cases.csv")):
        place = path.relative_to(tmp_path / "whole")
        assert path.read_bytes() == (tmp_path / "killed" / place).read_bytes(), place
        assert without_clock(path.parent) == without_clock(tmp_path / "killed" / place.parent), place
    shutil.rmtree(tmp_path / "killed")
