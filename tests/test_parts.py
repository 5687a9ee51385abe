"""The parts of a frame are the network: one after the other they give its logits, and their work is its work."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import normal, tiny, variables

from ica_unet_jax import flops
from ica_unet_jax.models import build_model
from ica_unet_jax.parts import parts


@pytest.mark.parametrize(
    "changes",
    [{}, dict(streams="dense", neighbours="past", bases=8), dict(streams="shared", neighbours="none", mixing_scale=False)],
    ids=str,
)
def test_the_parts_are_the_network(changes):
    config = tiny(**changes)
    values, model = variables(config), build_model(config)
    image, valid = normal(0, 1, *config.crop, 1), jnp.ones((1, *config.crop, 1)).at[:, :, :8].set(0)
    taken, logits = parts(config, values, image, valid)
    expected = jax.jit(model.apply)(values, image, image, image, valid)[0][-1]
    np.testing.assert_allclose(logits, expected, atol=1e-5 * float(jnp.abs(expected).max()))
    assert flops.total({name: part.work for name, part in taken.items()}) == flops.total(flops.streamed(config))
    assert ("correlation" in taken) == (config.neighbours != "none")
    np.testing.assert_array_equal(taken["decoders"].call(), logits)


def test_another_network_is_not_taken_apart():
    config = tiny(model="unet2d", crop=(2, 32, 32))
    assert parts(config, {}, jnp.zeros((1, 2, 32, 32, 1)), jnp.ones((1, 2, 32, 32, 1))) == ({}, None)
