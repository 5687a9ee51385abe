"""A run folder explains itself and refuses to become another run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ica_unet_jax.config import Config
from ica_unet_jax.errors import UserError
from ica_unet_jax.runs import run_folder
from ica_unet_jax.runs.run_folder import Log, Metrics, open_run, read_config, read_metrics, read_split
from ica_unet_jax.runtime.files import write_text

SPLIT = {"train": ["a", "b"], "val": ["c"]}


@pytest.fixture
def config(tmp_path):
    return Config.make(workdir=str(tmp_path / "runs" / "one"))


def test_what_a_folder_holds(config, monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", ["/somewhere/bin/python3", "-m", "ica_unet_jax.train", "--steps=3"])
    monkeypatch.setattr(run_folder, "threads", lambda: 3)  # bound to as many cores of the machine's
    folder = open_run(config, SPLIT)
    assert {path.name for path in folder.iterdir()} == {"config.json", "split.json", "provenance.json"}
    assert Config.from_json((folder / "config.json").read_text()) == config
    assert json.loads((folder / "split.json").read_text()) == SPLIT
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["command"] == ["python", "-m", "ica_unet_jax.train", "--steps=3"]
    assert provenance["versions"]["jax"] and provenance["devices"] == 2 and provenance["cores"] == 3


def test_the_commit_is_that_of_the_code_as_it_was_loaded(tmp_path, monkeypatch):
    def git(*words):
        subprocess.run(["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True, capture_output=True)

    tracked = tmp_path / "package" / "__init__.py"
    write_text(tracked, "")
    git("init")
    git("add", ".")
    git("commit", "-m", "one")
    monkeypatch.setattr(run_folder.ica_unet_jax, "__file__", str(tracked))
    run_folder.commit.cache_clear()
    found = run_folder.commit()
    tracked.write_text("written by a run")
    again = run_folder.commit()
    run_folder.commit.cache_clear()
    later = run_folder.commit()
    run_folder.commit.cache_clear()
    assert len(found) == 12 and again == found and later == f"{found}-dirty"


def test_the_same_again_changes_nothing(config):
    folder = open_run(config, SPLIT)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert open_run(config.replace(log_every=7, cache_dir="elsewhere"), SPLIT) == folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    "changes, difference",
    [
        (dict(bases=16), "bases 32 -> 16"),
        (dict(learning_rate=0.1, seed=1), "seed 0 -> 1, learning_rate 0.002 -> 0.1"),
    ],
)
def test_other_settings_are_refused(config, changes, difference):
    open_run(config, SPLIT)
    with pytest.raises(UserError, match=rf"\({difference}\): choose another --workdir, or the settings of before"):
        open_run(config.replace(**changes), SPLIT)


def test_other_patients_are_refused(config):
    open_run(config, SPLIT)
    with pytest.raises(UserError, match=r"split as in split.json -> other patients"):
        open_run(config, {"train": ["a", "c"], "val": ["b"]})


def test_metrics_beyond_the_step_that_goes_on_are_dropped(tmp_path):
    log = Metrics(tmp_path, 0)
    for step in (1, 2, 3):
        log.write(step=step, loss=1 / step)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # killed while writing
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3]
    Metrics(tmp_path, 2).write(step=3, loss=9.0)
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}, {"step": 3, "loss": 9.0}]
    assert read_metrics(tmp_path / "nowhere") == []


def test_a_damaged_line_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n\0\0\0\n{"step": 3}\n')
    with pytest.raises(UserError, match="metrics.jsonl, line 2, is no JSON: remove the line."):
        read_metrics(tmp_path)


def test_a_pending_validation_is_written_anew(tmp_path):
    log = Metrics(tmp_path, 0)
    log.write(step=2, loss=0.5)
    log.write(step=2, dice_mean=0.5)
    Metrics(tmp_path, 2)
    assert len(read_metrics(tmp_path)) == 2
    Metrics(tmp_path, 2, pending=True)
    assert read_metrics(tmp_path) == [{"step": 2, "loss": 0.5}]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_a_sentence(tmp_path):
    log, diary = Metrics(tmp_path, 0), Log(tmp_path, lambda text: None)
    log.path = diary.path = Path("/dev/full")
    for write in (lambda: log.write(step=1, loss=1.0), lambda: diary("something happened")):
        with pytest.raises(UserError, match=r"/dev/full cannot be written \(No space left on device\): .* make room\."):
            write()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"bases": "many"}', '{"no_such_knob": 1}', '{"crop": 3}', "\0", "[" * 100_000])
def test_a_config_that_describes_no_run_is_a_sentence(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config.json [^\n]*: name the --workdir of a training\.$"):
        read_config(tmp_path)


@pytest.mark.parametrize("text", ["{", "3", '{"train": []}', '{"train": "a", "val": []}'])
def test_a_split_that_is_none_is_a_sentence(tmp_path, text):
    (tmp_path / "split.json").write_text(text)
    with pytest.raises(UserError, match=r"split.json .*: name the --workdir of a training\."):
        read_split(tmp_path)
