"""The line that says what a table is about."""

import shutil

import pytest
from made_up import fixture_quick  # noqa: F401
from places import ROOT

from ablations.studies import KNOWN
from ica_unet_jax.config import Config, LossConfig
from ica_unet_jax.sweeps import setting, tables

RESULTS = ROOT / "ablations" / "results"


@pytest.mark.parametrize("changes, text", [
    ({}, "cross-entropy + 0.2 (sparsity + independence + reconstruction)"),
    (dict(dice_weight=0.5, ica_weight=0.0), "cross-entropy + 0.5 soft Dice"),
    (dict(sparsity_weight=0.0, independence_weight=10.0), "cross-entropy + 0.2 (10 independence + reconstruction)"),
    (dict(independence="negentropy", distillation_weight=1.0),
     "cross-entropy + 0.2 (sparsity + negentropy + reconstruction) + 1 cross-entropy to a teacher"),
])  # fmt: skip
def test_the_loss_as_a_sum(changes, text):
    assert setting.loss(LossConfig(**changes)) == text


def test_a_rival_has_no_bases_and_a_network_nothing_of_the_rivals(tmp_path, monkeypatch):
    monkeypatch.setattr(setting, "LAUNCH", tmp_path / "acdc.flags")
    (tmp_path / "acdc.flags").write_text("--model=ica_unet\n")
    text = setting.opening(Config.make(model="unet2d", crop=(8, 96, 96)), "", 3)
    assert "; unet2d; " in text and "sparsity" not in text and "model=unet2d (there ica_unet)" in text
    round_heart = setting.opening(Config.make(train_window="heart"), "", 3)
    assert "grid 10x192x192 at 1.5 mm, round the heart; n = 4" in round_heart
    ours = setting.opening(Config.make(unet_width=3, span=2), "a --data_dir=x/y --b", 1)
    assert ours.startswith("Data: y, 1 patient. Reference: grid 10x192x192") and ours.endswith("; network and loss of launch/acdc.flags.")


def test_a_configuration_of_any_version_is_read():
    config = setting.recorded(dict(bases=8, crop=[4, 64, 64], a_later_knob=3))
    assert config.model.bases == 8 and not config.model.masked_statistics  # as it was then
    assert setting.turned(config.replace(bases=4, seed=3, fold=1, workdir="x"), config) == dict(bases=4)


def test_commits_with_changes_are_marked():
    text = setting.commits({"b-dirty": 1, "a": 2, "": 1})
    assert text == "Commits: unknown: 1 run, a: 2 runs, b-dirty (with changes that were not committed): 1 run."


@pytest.mark.parametrize("name", ["acdc_mini", "phantom", "causal_acdc_mini"])
def test_committed_tables_are_made_of_the_committed_figures(tmp_path, name):
    """--tables_only leaves no difference; after a change to a study, to acdc.flags or to the tables they are made anew."""
    made = tmp_path / name
    shutil.copytree(RESULTS / name, made)
    tables.write_all(made, KNOWN)
    files = [path for path in RESULTS.glob(f"{name}/*") if path.suffix in (".md", ".csv", ".tex")]
    assert files
    for path in files:
        assert (made / path.name).read_text() == path.read_text(), f"{name}/{path.name}: python ablations/run_all.py --tables_only"
