"""A batch divided over devices and processes is the batch of one device: losses to 1e-5, one run folder, one end."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from places import ROOT
from tiny import LOOP, SMALL, folder, lines

from ica_unet_jax.config import Config
from ica_unet_jax.data import cache, reading
from ica_unet_jax.data.batches import Batches
from ica_unet_jax.data.learning_frame import LearningFrame
from ica_unet_jax.errors import UserError
from ica_unet_jax.runs import checkpoints, run_folder
from ica_unet_jax.runtime import processes
from ica_unet_jax.training import loop, stepping


def assert_same_figures(found, expected):
    """The terms of steps to 1e-5; a validation Dice to a voxel or two."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            np.testing.assert_allclose(value, other[name], rtol=1e-5, atol=0.01 if "dice_" in name else 1e-5, err_msg=name)


# --- two devices of this process ---


def test_two_devices_step_as_one(cohort, tmp_path):
    """The network itself, with augmentation and batch statistics; traced once."""
    # Adam would take round-off in a gradient of nearly zero for a step, and a voxel at the kink of a leaky ReLU to its other side.
    config = Config.make(**SMALL, batch_size=2, warmup_steps=0, learning_rate=1e-3, optimizer="sgd")
    case = reading.find_cases(str(cohort))[0]
    samples = cache.preprocessed(case, crop=config.model.crop, spacing=1.5, cache_dir=tmp_path)
    traces, augment = [], stepping.augment
    found = {}
    for count in (1, 2):
        config = config.replace(devices=count)
        devices = processes.Devices(config.train)
        batches = Batches(samples, 2, 2, 0, devices.rows)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stepping, "augment", lambda *args: traces.append(1) or augment(*args))
            step, state = stepping.make_step(config), devices.replicate(stepping.init_state(config))
            terms = []
            for number in range(3):
                batch = devices.divide(batches[number])
                assert {shard.data.shape[0] for shard in batch.frames.addressable_shards} == {2 // count}
                state, told = step(state, batch)
                terms.append({name: float(value) for name, value in told.items()})
        assert len(traces) == count
        found[count] = terms, jax.device_get(state.batch_stats)
        assert all(len(leaf.sharding.device_set) == count for leaf in jax.tree.leaves(state))
    assert_same_figures(found[2][0], found[1][0])
    for one, two in zip(*(jax.tree.leaves(stats) for _, stats in found.values()), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_state_of_two_devices_goes_on_on_one(make):
    """And back again; the figures are those of one device all along."""
    alone, moved = make("alone", batch_size=2), make("moved", batch_size=2, devices=2)
    loop.train(alone)
    for devices in (2, 1, 2):
        state = loop.train(moved.replace(devices=devices))
        assert all(len(leaf.sharding.device_set) == devices for leaf in jax.tree.leaves(state))
        assert_same_figures(lines(moved), lines(alone))
        shutil.rmtree(folder(moved) / "checkpoints" / "4")  # it goes on from step 2


def test_a_batch_that_cannot_be_divided_is_a_sentence():
    with pytest.raises(UserError, match=r"--batch_size=3 cannot be divided over 2 devices: take a multiple of 2, or fewer of them by --devices."):
        processes.Devices(Config.make(batch_size=3, devices=2).train)
    with pytest.raises(UserError, match=r"--devices=3, but there are 2: ask for fewer, or leave it to --devices=0."):
        processes.Devices(Config.make(batch_size=3, devices=3).train)
    assert processes.Devices(Config.make(batch_size=3, devices=1).train).rows == [0, 1, 2]


def test_devices_for_which_the_batch_does_not_go_round_stay_idle():
    for batch, used in ((3, 1), (4, 2)):
        devices = processes.Devices(Config.make(batch_size=batch).train)
        assert (devices.everywhere.num_devices, devices.idle) == (used, 2 - used)


def test_a_process_reads_its_rows_of_the_batch():
    sample = LearningFrame("x", 0, np.arange(3 * 9, dtype=np.float16).reshape(3, 9, 1, 1), np.zeros((9, 1, 1), np.uint8), np.ones((9, 1, 1), bool))
    whole, part = Batches([sample] * 3, 2, 4, 0), Batches([sample] * 3, 2, 4, 0, [1, 3])
    for step in range(5):
        for all_rows, own_rows in zip(whole[step], part[step], strict=True):
            np.testing.assert_array_equal(all_rows[[1, 3]], own_rows)


# --- who is connected ---


@pytest.fixture
def initialized(monkeypatch):
    """What `jax.distributed.initialize` is called with."""
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args, **options: calls.append((args, options)))
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS", raising=False)
    return calls


def test_a_process_alone_connects_to_nobody(initialized, monkeypatch):
    processes.connect()
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    processes.connect()
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    processes.connect(processes=1)
    assert initialized == []


def test_tasks_of_a_slurm_step_find_each_other(initialized, monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    processes.connect()
    processes.connect("node1:1234", 2, 1)  # what is told wins
    assert initialized == [((), {"cluster_detection_method": "slurm"}), (("node1:1234", 2, 1), {"cluster_detection_method": "deactivate"})]


@pytest.mark.parametrize("told", [("node1:1234", None, None), ("", 2, None), ("", 2, 1), ("node1:1234", 2, None)])
def test_half_an_address_is_refused(initialized, told):
    with pytest.raises(UserError, match="--coordinator, --processes and --process_id belong together"):
        processes.connect(*told)
    with pytest.raises(UserError, match="--coordinator=node1 is no HOST:PORT"):
        processes.connect("node1", 2, 1)
    with pytest.raises(UserError, match="--process_id=2 does not exist: the ids of --processes=2 are 0 to 1."):
        processes.connect("node1:1234", 2, 2)


# --- as processes ---


def environment():
    """As a newcomer's, with what is compiled kept."""
    return os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        "PYTHONPATH": str(ROOT),
    }


def command(cohort, workdir, *flags, **changes):
    """The shortest training with batches of two."""
    values = LOOP | dict(crop="2,32,32", batch_size=2, data_dir=cohort, cache_dir=workdir.parent / "cache", workdir=workdir) | changes
    return [sys.executable, "-m", "ica_unet_jax.train", *(f"--{name}={value}" for name, value in values.items()), *flags]


def pair(cohort, workdir, **changes):
    """Two processes on loopback that train together."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    return [
        subprocess.Popen(
            command(cohort, workdir, f"--coordinator=localhost:{port}", "--processes=2", f"--process_id={number}", **changes),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
        )
        for number in range(2)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def alone(cohort, tmp_path_factory):
    """The run folder of one process with one device."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    subprocess.run(command(cohort, workdir), check=True, capture_output=True, env=environment())
    return workdir


def figures(workdir):
    return lines(Config.make(workdir=str(workdir)))


@pytest.mark.slow
def test_all_devices_of_a_process_are_used_unless_told_otherwise(alone, cohort, tmp_path):
    two = environment() | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    subprocess.run(command(cohort, tmp_path / "run", devices=0), check=True, capture_output=True, env=two)
    assert_same_figures(figures(tmp_path / "run"), figures(alone))
    refused = subprocess.run(command(cohort, tmp_path / "odd", devices=2, batch_size=3), capture_output=True, text=True, env=two)
    assert refused.returncode == 2 and not (tmp_path / "odd").exists()
    assert refused.stderr.startswith("error: --batch_size=3 cannot be divided over 2 devices") and refused.stderr.count("\n") == 1


@pytest.mark.slow  # half a minute; that two devices step as one, and that errors end both, is quick
def test_two_processes_train_as_one_and_one_goes_on(alone, cohort, tmp_path):
    both = pair(cohort, tmp_path / "run")
    told = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert_same_figures(figures(tmp_path / "run"), figures(alone))
    assert ["report in" in output for output, _ in told] == [True, False]  # the first speaks
    assert "Dice" in (tmp_path / "run" / "evaluation_val" / "table.md").read_text()
    ends = [checkpoints.restore(workdir) for workdir in (tmp_path / "run", alone)]
    for one, other in zip(*(jax.tree.leaves(end) for end in ends), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_at_the_same_step(cohort, tmp_path):
    workdir, steps = tmp_path / "run", 300
    both = pair(cohort, workdir, steps=steps, evaluate_every=steps, final_evaluation=False)
    while not (workdir / "metrics.jsonl").is_file() or not (workdir / "metrics.jsonl").read_text():
        assert both[0].poll() is None, both[0].communicate()
        time.sleep(0.01)
    both[1].send_signal(signal.SIGTERM)
    told = [process.communicate(timeout=300)[1] for process in both]
    assert [process.returncode for process in both] == [143, 143], told
    assert len({text.splitlines()[-1] for text in told}) == 1
    step = int(told[0].split("SIGTERM at step ")[1].split(":")[0])
    assert int(checkpoints.restore(workdir).step) == step < steps
    rest = command(cohort, workdir, steps=steps, evaluate_every=steps, final_evaluation=False)
    subprocess.run(rest, check=True, capture_output=True, env=environment())
    assert int(checkpoints.restore(workdir).step) == steps
    assert [line["step"] for line in figures(workdir) if "loss" in line] == [*range(1, steps + 1)]


def test_an_error_of_the_first_alone_ends_both(cohort, tmp_path):
    workdir = tmp_path / "run"
    workdir.mkdir()
    with run_folder.held(workdir):
        both = pair(cohort, workdir)
        told = [process.communicate(timeout=120)[1] for process in both]
    assert both[0].returncode == 2 and told[0].endswith("choose another --workdir.\n") and told[0].count("\n") == 1
    assert both[1].returncode != 0
