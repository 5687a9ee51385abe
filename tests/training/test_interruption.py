"""However a training is stopped, the same command goes on, and the end is that of a training that was not."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import jax
import pytest
from places import ROOT
from tiny import LOOP, assert_same_bytes, folder, lines

from ica_unet_jax.data.batches import Batches
from ica_unet_jax.errors import Interrupted, UserError
from ica_unet_jax.evaluation import pictures
from ica_unet_jax.runs import checkpoints, run_folder
from ica_unet_jax.runs.checkpoints import Checkpoints
from ica_unet_jax.runtime.interruption import SIGNALS
from ica_unet_jax.training import loop, validation

pytestmark = pytest.mark.usefixtures("compiled_once", "signals_heard")


@pytest.fixture
def spans(monkeypatch):
    """The spans of steps for which batches were read."""
    read, iterate = [], Batches.iterate
    monkeypatch.setattr(loop.Batches, "iterate", lambda self, *span: read.append(span) or iterate(self, *span))
    return read


def same_end(config, whole):
    """Trains on, and compares with the training that nobody stopped."""
    assert_same_bytes(loop.train(config), whole[1])
    assert lines(config) == lines(whole[0])
    ends = [Checkpoints(folder(c)) for c in (config, whole[0])]
    assert ends[0].best_step() == ends[1].best_step() and ends[0].latest_step() == 4


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_saves_the_current_step(whole, make, monkeypatch, spans, number):
    config, update = make(f"stopped{number}"), loop.Progress.update

    def ask(self, done, loss=None):
        if self.unit == "step" and done == 3:
            os.kill(os.getpid(), number)
        update(self, done, loss)

    before = [signal.getsignal(n) for n in SIGNALS]
    monkeypatch.setattr(loop.Progress, "update", ask)
    with pytest.raises(Interrupted) as stop:
        loop.train(config)
    assert stop.value.number == number
    assert str(stop.value) == (
        f"{number.name} at step 3: the state is saved in {folder(config)}; the same command goes on from there"
    )
    assert [signal.getsignal(n) for n in SIGNALS] == before
    assert int(checkpoints.restore(folder(config)).step) == 3
    monkeypatch.setattr(loop.Progress, "update", update)
    same_end(config, whole)
    assert spans == [(0, 4), (3, 4)]
    assert "going on from step 3" in (folder(config) / "training.log").read_text()


@pytest.mark.parametrize("step", [2, 4])
def test_a_signal_cuts_a_validation_short_which_is_made_up_for(whole, make, monkeypatch, spans, step):
    config, entropy = make(f"validation{step}"), validation.cross_entropy
    calls = []

    def ask(*values):
        calls.append(1)
        if len(calls) == 1 + (step == 4) * 4:  # the first frame of four
            os.kill(os.getpid(), signal.SIGTERM)
        return entropy(*values)

    monkeypatch.setattr(validation, "cross_entropy", ask)
    with pytest.raises(Interrupted, match=f"at step {step}"):
        loop.train(config)
    assert not Checkpoints(folder(config)).validated(step)
    assert not [line for line in lines(config) if line["step"] == step and "dice_mean" in line]
    monkeypatch.setattr(validation, "cross_entropy", entropy)
    same_end(config, whole)
    assert spans == [(0, 4), (step, 4)]


def test_a_damaged_checkpoint_costs_the_way_from_the_one_before(whole, make, spans, capfd):
    shutil.copytree(folder(whole[0]), folder(make("damaged")))
    config = make("damaged")
    for path in (folder(config) / "checkpoints" / "4" / "default").rglob("manifest.ocdbt"):
        path.write_bytes(path.read_bytes()[:10])
    same_end(config, whole)
    assert spans == [(2, 4)]
    assert "checkpoints/4 is damaged" in capfd.readouterr().err
    assert "set aside: of step 4" in (folder(config) / "training.log").read_text()


def test_where_all_checkpoints_are_damaged_training_begins_anew(whole, make, spans):
    shutil.copytree(folder(whole[0]), folder(make("ruined")))
    config = make("ruined")
    for path in (folder(config) / "checkpoints").rglob("manifest.ocdbt"):
        path.write_bytes(b"")
    same_end(config, whole)
    assert spans == [(0, 4)]
    text = "set aside: of step 2, 4; none is left, so training begins anew"
    assert text in (folder(config) / "training.log").read_text()


def test_a_signal_in_a_validation_made_up_for_is_heard(whole, make, monkeypatch):
    config = make("pending")
    shutil.copytree(folder(whole[0]), folder(config))
    monkeypatch.setattr(Checkpoints, "validated", lambda self, step: False)
    with pytest.raises(Interrupted, match="at step 4"):
        loop.train(config, draw=lambda *_: os.kill(os.getpid(), signal.SIGTERM))


def test_two_trainings_never_share_a_folder(whole):
    with run_folder.held(folder(whole[0])), pytest.raises(UserError, match="is in use by another training"):
        loop.train(whole[0])


def test_a_disk_that_gets_full_wherever_it_does(whole, make, small_disk, capfd):
    """5 MB, of which more and more is free: the first write that fails is another one each time."""
    reasons = set()
    for free in (0, 200, 340, 440, 560, 800):  # kB; the run takes about 1000
        config = make("full", workdir=str(small_disk / "run"))
        filler = small_disk / "filler"
        filler.write_bytes(bytes((5 * 1024 - free) * 1024))
        try:
            loop.train(config, draw=pictures.training_report)
        except UserError as error:
            text = str(error)
            assert "No space left on device" in text and text.endswith(".") and "\n" not in text
            reasons.add(text.split(" cannot be written")[0].split("/")[-1])
        filler.unlink()
        same_end(config, whole)
        shutil.rmtree(small_disk / "run")
    assert len(reasons) >= 3, reasons


# --- as processes ---


def command(workdir, cohort):
    """Four validations, each with pictures and a checkpoint."""
    changes = LOOP | dict(crop="2,32,32", steps=16, evaluate_every=4, final_evaluation=False)
    changes |= dict(data_dir=cohort, cache_dir=workdir.parent / "cache", workdir=workdir)
    return [sys.executable, "-m", "ica_unet_jax.train", *(f"--{k}={v}" for k, v in changes.items())]


@pytest.fixture(scope="module")
def uninterrupted(cohort, tmp_path_factory):
    """The folder of a training as a process that nobody stopped."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_PLATFORMS", "cpu")
        patch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
        patch.setenv("PYTHONPATH", str(ROOT))
        workdir = tmp_path_factory.mktemp("processes") / "whole"
        subprocess.run(command(workdir, cohort), check=True, capture_output=True)
        yield workdir


def stop(workdir, cohort, number, wait):
    """Starts or resumes a training and sends a signal `wait` seconds after its first new line; its exit code and stderr."""
    log = workdir / "metrics.jsonl"
    before = log.stat().st_mtime_ns if log.is_file() else 0
    process = subprocess.Popen(command(workdir, cohort), stderr=subprocess.PIPE, text=True)
    while process.poll() is None and (not log.is_file() or log.stat().st_mtime_ns == before or not log.stat().st_size):
        time.sleep(0.01)
    time.sleep(wait)
    process.send_signal(number)
    _, told = process.communicate()
    return process.returncode, told


def finish(workdir, cohort, uninterrupted):
    subprocess.run(command(workdir, cohort), check=True, capture_output=True)
    assert_same_bytes(checkpoints.restore(workdir), checkpoints.restore(uninterrupted))
    best = [checkpoints.restore(place, "best") for place in (workdir, uninterrupted)]
    assert_same_bytes(*best)


def test_a_process_leaves_with_the_signals_exit_code(cohort, uninterrupted, tmp_path):
    workdir = tmp_path / "run"
    code, told = stop(workdir, cohort, signal.SIGTERM, 0.3)
    assert code == 143
    *_, last = told.splitlines()
    assert last.startswith("SIGTERM at step ") and "Traceback" not in told
    assert Checkpoints(workdir).latest_step() == int(last.split("step ")[1].split(":")[0])
    finish(workdir, cohort, uninterrupted)


def killed(cohort, uninterrupted, folder, kills):
    """Trainings killed with -9 at random moments, so many times in all; each then goes on to its end."""
    rng, done, number = random.Random(kills), 0, 0
    while done < kills:
        number += 1
        workdir = folder / f"run{number}"
        for _ in range(rng.randint(1, 5)):
            code, _ = stop(workdir, cohort, signal.SIGKILL, rng.uniform(0, 1.5))
            if code == 0:
                break
            assert code == -signal.SIGKILL
            done += 1
            if done == kills:
                break
        finish(workdir, cohort, uninterrupted)


def test_kill_9_costs_nothing(cohort, uninterrupted, tmp_path):
    killed(cohort, uninterrupted, tmp_path, 2)


@pytest.mark.slow
def test_thirty_times_kill_9_cost_nothing(cohort, uninterrupted, tmp_path):
    killed(cohort, uninterrupted, tmp_path, 30)


@pytest.mark.slow
def test_twenty_signals_in_the_first_minute(cohort, tmp_path, monkeypatch):
    """Whatever Python and the compiler do: the exit code of the signal, within 5 s, or a line within 1 s that says what is waited for."""
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("JAX_ENABLE_COMPILATION_CACHE", "0")
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for kill in range(20):
        workdir, number = tmp_path / f"run{kill}", SIGNALS[kill % 4 == 3]
        line = [sys.executable, "-m", "ica_unet_jax.train", f"--flagfile={ROOT}/launch/acdc.flags", f"--data_dir={cohort}", f"--workdir={workdir}", "--folds=2"]
        errors = tmp_path / f"stderr{kill}"
        with errors.open("wb") as stderr, subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=stderr) as process:
            time.sleep(1 + 59 * kill / 19)
            before = errors.stat().st_size
            process.send_signal(number)
            began = time.monotonic()
            time.sleep(1)
            told = errors.stat().st_size > before
            code = process.wait(timeout=600)
            seconds = time.monotonic() - began
        assert code == 128 + number and (told or seconds < 5), (kill, code, seconds)
        assert "Traceback" not in errors.read_text(encoding="utf-8")
