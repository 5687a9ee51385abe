"""A run folder explains itself and refuses to become another run."""

import errno
import json
import subprocess
import sys

import pytest
from filelock import FileLock

from ica_unet_jax.config import Config
from ica_unet_jax.errors import UserError
from ica_unet_jax.runs import provenance
from ica_unet_jax.runs.run_folder import held, open_run, read_config, read_split, refuse_changes

SPLIT = {"train": ["a", "b"], "val": ["c"]}


@pytest.fixture
def config(tmp_path):
    return Config.make(workdir=str(tmp_path / "runs" / "one"))


def test_what_a_folder_holds(config, monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", ["/somewhere/bin/python3", "-m", "ica_unet_jax.train", "--steps=3"])
    monkeypatch.setattr(provenance, "threads", lambda: 3)  # bound to as many cores of the machine's
    folder = open_run(config, SPLIT)
    assert {path.name for path in folder.iterdir()} == {"config.json", "split.json", "provenance.json"}
    assert Config.from_json((folder / "config.json").read_text()) == config
    assert json.loads((folder / "split.json").read_text()) == SPLIT
    known = provenance.read(folder)
    assert known["command"] == ["python", "-m", "ica_unet_jax.train", "--steps=3"]
    assert known["versions"]["jax"] and known["devices"] == 2 and known["cores"] == 3


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


def test_what_the_network_does_not_read_may_differ(config):
    """Older versions recorded it from the launch file."""
    rival = config.replace(model="unet3d")
    folder = open_run(rival.replace(bases=16, remat=True), SPLIT)
    assert open_run(rival, SPLIT) == folder
    with pytest.raises(UserError, match=r"\(anisotropy 6.5 -> 3.0\)"):
        open_run(rival.replace(anisotropy=3.0), SPLIT)


def test_other_patients_are_refused(config):
    open_run(config, SPLIT)
    with pytest.raises(UserError, match=r"split as in split.json -> other patients"):
        open_run(config, {"train": ["a", "c"], "val": ["b"]})


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


def test_a_killed_training_leaves_no_lock(tmp_path):
    script = "import sys, time; from pathlib import Path; from ica_unet_jax.runs.run_folder import held\nwith held(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
    other = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"--workdir={tmp_path} is in use by another training"), held(tmp_path):
            pass
    finally:
        other.kill()
        other.communicate()
    with held(tmp_path):
        pass


def test_where_nothing_can_be_locked_it_is_told_and_goes_on(tmp_path, monkeypatch, capsys):
    def acquire(self, timeout):
        raise OSError(errno.ENOLCK, "No locks available", self.lock_file)

    monkeypatch.setattr(FileLock, "acquire", acquire)
    with held(tmp_path):
        pass
    assert capsys.readouterr().err == f"{tmp_path} cannot be locked (No locks available): see to it that no other training runs there.\n"


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file cannot be written .*choose another place or make room.$"), held(tmp_path / "file"):
        pass


def test_more_steps_than_a_run_had_are_told_how(config):
    open_run(config, SPLIT)
    with pytest.raises(UserError, match="To train its network further, name a new --workdir and --init_from="):
        refuse_changes(config.replace(steps=config.train.steps + 1))
    with pytest.raises(UserError) as fewer:
        refuse_changes(config.replace(steps=config.train.steps - 1))
    assert "--init_from" not in str(fewer.value)
