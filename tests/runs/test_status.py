"""Whether anything is left to do for a run."""

from pathlib import Path

import pytest

from ica_unet_jax.config import Config
from ica_unet_jax.errors import UserError
from ica_unet_jax.runs import status
from ica_unet_jax.runs.run_folder import open_run
from ica_unet_jax.runtime.files import write_json


@pytest.fixture
def config(tmp_path):
    return Config.make(workdir=str(tmp_path / "run"), steps=7)


@pytest.fixture
def folder(config):
    return open_run(config, {"train": ["a"], "val": ["b"]})


def judged(folder, split="val", **changes):
    summary = {"checkpoint": "latest", "checkpoint_step": 7, "mirror": False}
    write_json(folder / f"evaluation_{split}" / "summary.json", summary | changes)


def test_a_run_is_done_when_its_last_state_is_judged(config, folder):
    assert status.of(config) == status.OPEN == status.of(config.replace(workdir="nowhere"))
    for short in (dict(checkpoint_step=6), dict(checkpoint="best")):
        judged(folder, **short)
        assert status.of(config) == status.OPEN
    judged(folder)
    assert status.of(config) == status.DONE and status.of(config, split="test") == status.OPEN
    judged(folder, "test", mirror=True)
    assert [status.of(config, split="test", mirror=mirror) for mirror in (True, False)] == [status.DONE, status.OPEN]


def test_a_run_of_other_settings_is_no_answer(config, folder):
    judged(folder)
    with pytest.raises(UserError, match="steps 7 -> 8"):
        status.of(config.replace(steps=8))


def test_what_is_noted_stands_without_an_evaluation(config, folder, tmp_path):
    kept = folder.rename(tmp_path / "kept")
    for ending in (status.CRASHED, status.DIVERGED, status.DONE):
        status.note(kept, ending, "why", 5, metrics_version=2)
        assert status.of(config, kept) == ending and status.of(config) == status.OPEN
    assert status.read(kept) == {"status": "done", "message": "why", "step": 5, "metrics_version": 2}


def test_a_note_of_older_versions(config, folder):
    Path(folder, "diverged.txt").write_text("diverged at step 3 (loss not finite)\n")
    assert status.of(config) == status.DIVERGED and status.read(folder)["message"] == "diverged at step 3 (loss not finite)"


def test_a_damaged_note_is_a_sentence(config, folder):
    (folder / "done.json").write_text("{")
    with pytest.raises(UserError, match="done.json cannot be read .*: remove it, and the run is judged anew.$"):
        status.of(config)
