"""The engine: what is done is not done again, a divergence is noted, and each network is judged as it was published."""

import pytest

from ica_unet_jax.config import Config
from ica_unet_jax.errors import Diverged
from ica_unet_jax.runs import run_folder, status
from ica_unet_jax.sweeps import trials
from ica_unet_jax.sweeps.trials import Trial, run_missing

SPLIT = {"train": ["a"], "val": ["b"]}


@pytest.fixture
def ran(monkeypatch):
    """Titles of the folders that were trained; the learning rate 9 diverges, all else is judged."""
    names = []

    def train(config):
        folder = run_folder.open_run(config, SPLIT)
        names.append(folder.name)
        if config.train.learning_rate == 9:
            raise Diverged(7, "loss not finite", "")

    monkeypatch.setattr(trials.loop, "train", train)
    monkeypatch.setattr(trials.judging, "evaluate", lambda folder, out, **options: status.note(folder, status.DONE, "", 10))
    return names


def trial(folder, **changes):
    return Trial("any", Config.make(model="unet2d", workdir=str(folder), **changes))


def test_a_divergence_is_noted_and_the_others_run(ran, tmp_path):
    three = [trial(tmp_path / "a"), trial(tmp_path / "b", learning_rate=9.0), trial(tmp_path / "c")]
    begun, ended = [], []
    run_missing(three, lambda trial: begun.append(trial.folder.name), lambda trial: ended.append(trial.status()))
    assert begun == ran == ["a", "b", "c"] and ended == [status.DONE, status.DIVERGED, status.DONE]
    assert status.read(tmp_path / "b")["message"] == "loss not finite" and status.read(tmp_path / "b")["step"] == 7
    run_missing(three)
    assert ran == ["a", "b", "c"]


def test_a_crash_is_tried_again(ran, tmp_path):
    one = trial(tmp_path / "a")
    run_folder.open_run(one.config, SPLIT)
    status.note(one.folder, status.CRASHED, "no memory", 3)
    run_missing([one])
    assert ran == ["a"] and one.status() == status.DONE


@pytest.mark.parametrize("settings, cleaned", [
    (dict(model="ensemble_unet", published_loss=True), True),
    (dict(model="ensemble_unet"), False),
    (dict(model="unet3d", published_loss=True), False),
    (dict(model="ica_unet"), False),
])  # fmt: skip
def test_a_network_is_judged_as_it_was_published(settings, cleaned):
    assert Trial("any", Config.make(**settings)).cleaning == dict(mirror=cleaned, largest_component=cleaned)
    assert Trial("any", Config.make(**settings), reported=True).cleaning == {}  # as `train` judges
