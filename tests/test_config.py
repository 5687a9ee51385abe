"""Knobs: to JSON and back, what differs, and the sentence for each that cannot be."""

import dataclasses
import json

import pytest
from changes import CHANGES

from ica_unet_jax.config import Config, ModelConfig, fields
from ica_unet_jax.errors import UserError


def test_names_are_unique_and_documented():
    names = [field.name for _, field in fields()]
    assert len(names) == len(set(names)) == len(Config().flat())
    for _, field in fields():
        text = field.metadata["help"]
        assert text.endswith((".", ")")), text


@pytest.mark.parametrize("name, value", CHANGES)
def test_a_change_survives_json_and_is_the_diff(name, value):
    config = Config.make(**{name: value})
    assert config != Config() and config.flat()[name] == value
    assert config.diff(Config()) == {name: value} and Config().diff(config) == {name: Config().flat()[name]}
    again = Config.from_json(config.to_json())
    assert again == config and hash(again) == hash(config) and again.diff(config) == {}


def test_replace_changes_knobs_wherever_they_live():
    config = Config.make(bases=16).replace(seed=3, alpha=0.5, crop=[8, 128, 128])
    assert (config.model.bases, config.train.seed, config.loss.alpha, config.model.crop) == (16, 3, 0.5, (8, 128, 128))
    assert config.diff(Config()) == {"bases": 16, "seed": 3, "alpha": 0.5, "crop": (8, 128, 128)}


def test_a_configuration_is_frozen():
    for part in (Config(), ModelConfig()):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(part, dataclasses.fields(part)[0].name, None)


def test_json_is_flat_with_every_knob():
    assert set(json.loads(Config().to_json())) == {field.name for _, field in fields()}


REFUSED = [
    (dict(crop=(9, 192, 192)), "--crop=9,192,192: the depth must be even and at least 2; take 10."),
    (dict(crop=(0, 192, 192)), "the depth must be even and at least 2; take 2."),
    (dict(crop=(10, 100, 192)), r"multiples of 64, at least 64 \(with --contracting_blocks=4\); take 128 for 100."),
    (dict(crop=(10, 32, 64), contracting_blocks=2), "multiples of 32, at least 64 .* take 64 for 32."),
    (dict(crop=(10, 64, 144), contracting_blocks=1), "multiples of 32, .* take 128 for 144."),
    (dict(crop=(10, 60, 64), model="unet2d"), "multiples of 8, at least 8; take 64 for 60."),
    (dict(streams="parallel"), "--streams=parallel is not known: choose one of independent, shared, dense."),
    (dict(bases=0), "--bases=0 is too small: at least 1."),
    (dict(drop_neighbour=1.5), "--drop_neighbour=1.5 is too large: at most 1."),
    (dict(learning_rate=float("nan")), "--learning_rate=nan is too small: at least 0."),
    (dict(fold=5), r"--fold=5 does not exist: folds are 0 to 4 \(--folds=5\)."),
    (dict(cyclic=True, neighbours="past"), "the wrap would show the first frame its future; drop one of the two."),
    (dict(cyclic=True, neighbours="two_past"), "the wrap would show the first frame its future; drop one of the two."),
    (dict(standardize_bases=True, whiten_bases=True), "whitened bases are standardized already; drop one of the two."),
    (dict(basis=3), "basis is no setting of this version: remove it, or see --help for the names."),
]


@pytest.mark.parametrize("changes, sentence", REFUSED, ids=lambda x: str(x)[:40])
def test_what_cannot_be_is_refused_with_a_way_out(changes, sentence):
    with pytest.raises(UserError, match=sentence) as error:
        Config.make(**changes)
    assert "\n" not in str(error.value) and str(error.value).endswith(".")


@pytest.mark.parametrize("name, field", [(f.name, f) for _, f in fields() if f.metadata["low"] is not None])
def test_every_lower_bound_holds(name, field):
    low = field.metadata["low"]
    with pytest.raises(UserError, match=f"--{name}=.* at least {low}"):
        Config.make(**{name: low - 1})


def test_an_unknown_field_of_a_run_is_named():
    text = json.dumps(json.loads(Config().to_json()) | {"dropout": 0.5})
    with pytest.raises(UserError, match="dropout is no setting of this version"):
        Config.from_json(text)


def test_frames_that_are_used():
    def make(**changes):
        return Config.make(**changes).model.frames

    assert (make(), make(neighbours="past"), make(neighbours="none")) == ((-1, 1), (-1,), ())
    assert make(neighbours="two_past") == (-2, -1)
    assert make(correlation_radius=-1) == make(model="unet2d") == ()
    assert make(correlation_radius=0) == (-1, 1)
