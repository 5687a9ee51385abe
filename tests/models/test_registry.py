"""The registry says of each network what is so: its code is there, and the settings that it reads are those that change it."""

import functools
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from changes import another
from tiny import SMALL, abstract

from ica_unet_jax.config import Config, fields, unread
from ica_unet_jax.errors import UserError
from ica_unet_jax.models.networks import build_model, make_loss, method
from ica_unet_jax.models.registry import NETWORKS

SETTINGS = {field.name: field for part, field in fields() if part in ("model", "loss")}
# Another value that makes a difference where any does: the next one may round to the same width, or plan the same stages.
OTHER = {"width_multiplier": 0.5, "anisotropy": 1.0, "sources": 1, "crop": (4, 64, 64)}
VARIANTS = [(name, mixing) for name in NETWORKS for mixing in (("ica", "upsampled", "none") if "mixing" in NETWORKS[name].settings else ("ica",))]


def config(name, mixing):
    """The smallest network of that name whose outputs are of two sizes, where it has several."""
    side = max(32, NETWORKS[name].smallest)
    chosen = dict(model=name, mixing=mixing, crop=(2, side, side), decoder_frame=mixing == "none", encoder_convs=2, width_multiplier=0.125, span=3)
    return Config.make(**SMALL | chosen | dict(dice_weight=0.5))


def program(function, *inputs):
    """(what a function computes, as text and constants; the shapes that it gives)"""
    traced, result = jax.make_jaxpr(function, return_shape=True)(*inputs)
    return (re.sub("0x[0-9a-f]+", "", str(traced)), [np.asarray(constant).tobytes() for constant in traced.consts]), result


@functools.cache
def start(model):
    """What draws the first parameters and runs the network with them; the shapes of its variables."""
    return program(build_model(model).init, jax.random.key(0), *abstract(model))


@functools.cache
def loss(config):
    """What computes a training step's loss."""
    model, inputs = build_model(config.model), abstract(config.model)

    def value(variables, labels, *inputs):
        (logits, aux), _ = model.apply(variables, *inputs, True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)})
        return make_loss(config)(logits, aux, labels, inputs[1], inputs[3], config.loss)

    return program(value, start(config.model)[1], jax.ShapeDtypeStruct((1, *config.model.crop), jnp.int32), *inputs)[0]


def same(a, b):
    """Whether two configurations compute the same."""
    return start(a.model)[0] == start(b.model)[0] and loss(a) == loss(b)


def other(name, config):
    return OTHER.get(name, another(SETTINGS[name], config.flat()[name]))


@pytest.mark.parametrize("name, mixing", VARIANTS)
def test_settings_that_are_not_read_change_nothing(name, mixing):
    plain = config(name, mixing)
    changes = {setting: other(setting, plain) for setting in unread(plain.flat())}
    whitened = {"whiten_bases": changes.pop("whiten_bases")} if "whiten_bases" in changes else {}  # standardize_bases excludes it
    assert same(plain, plain.replace(**changes)) and same(plain, plain.replace(**whitened))


@pytest.mark.parametrize(
    "name, mixing", [(name, mixing) if (name, mixing) == ("ica_unet", "ica") else pytest.param(name, mixing, marks=pytest.mark.slow) for name, mixing in VARIANTS]
)
def test_each_setting_that_is_read_changes_something(name, mixing):
    plain = config(name, mixing)
    # A network of the registry differs from the others by definition; distillation is the training's, see `distillation`.
    for setting in sorted(set(SETTINGS) - unread(plain.flat()) - {"model", "distillation_weight"}):
        try:
            changed = plain.replace(**{setting: other(setting, plain)})
        except UserError:  # without it there is no network
            assert (setting, mixing) == ("decoder_frame", "none")
            continue
        assert not same(plain, changed), setting


def test_every_name_of_a_row_is_there():
    known = set(SETTINGS)
    for name, row in NETWORKS.items():
        assert {*row.settings, *(setting for found in row.by_mixing.values() for setting in found), *filter(None, [row.snippet])} <= known
        assert all(map(callable, method(name)))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_grid_is_the_smallest_that_is_taken(name):
    row = NETWORKS[name]
    side = max(row.smallest, row.grid(2))
    Config.make(model=name, crop=(2, side, side), contracting_blocks=2)
    for wrong in (side - row.grid(2), side + row.grid(2) // 2):
        with pytest.raises(UserError, match=f"multiples of {row.grid(2)}, at least {row.smallest}"):
            Config.make(model=name, crop=(2, side, wrong), contracting_blocks=2)


def test_the_registry_and_the_settings_need_no_library():
    check = "import ica_unet_jax.config, ica_unet_jax.models.registry, sys; print({'jax', 'numpy', 'flax', 'nibabel'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout == "set()\n"
