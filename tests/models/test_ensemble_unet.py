"""The ensemble: its published size, the mean of two softmaxes, and two trainings that do not hear of each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import frames, normal, shapes, tiny, variables

from ica_unet_jax.benchmarking import work
from ica_unet_jax.config import LossConfig
from ica_unet_jax.models.baselines.ensemble_unet import IsenseeUNet, enlarge, loss
from ica_unet_jax.models.networks import build_model

CONFIG = tiny(model="ensemble_unet", crop=(2, 16, 16), width_multiplier=0.1)


def test_parameters_are_those_of_the_public_code():
    sizes = jax.tree.map(lambda leaf: int(np.prod(leaf.shape)), shapes(tiny(model="ensemble_unet", crop=(2, 16, 16)))["params"])
    plane, volume = (sum(jax.tree.leaves(sizes[name])) for name in ("plane", "volume"))
    assert plane == pytest.approx(17.7e6, rel=0.01)
    assert volume == pytest.approx(15.5e6, rel=0.01)
    assert work.parameters(tiny(model="ensemble_unet", crop=(2, 16, 16))) == plane + volume


@pytest.fixture(scope="module")
def answered():
    """The compiled network, its variables, frames, and its answer to them."""
    apply, values, inputs = jax.jit(build_model(CONFIG).apply), variables(CONFIG), frames(CONFIG, batch=2)
    return apply, values, inputs, apply(values, *inputs)


def test_the_answer_is_the_mean_of_two_softmaxes(answered):
    *_, ([logits], members) = answered
    mean = sum(jax.nn.softmax(y) for y in members.values()) / 2
    assert np.abs(members["plane"] - members["volume"]).max() > 0.1
    np.testing.assert_allclose(jnp.exp(logits), mean, atol=1e-6)
    np.testing.assert_allclose(jax.nn.softmax(logits), mean, atol=1e-6)


def test_the_plane_sees_one_slice_and_the_volume_its_neighbours(answered):
    apply, values, (previous, image, following, valid), (_, members) = answered
    other = apply(values, previous, image.at[:, 1].add(normal(9, 2, 16, 16, 1)), following, valid)[1]
    np.testing.assert_allclose(other["plane"][:, 0], members["plane"][:, 0], atol=1e-4)
    assert np.abs(other["plane"][:, 1] - members["plane"][:, 1]).max() > 1e-3
    assert np.abs(other["volume"][:, 0] - members["volume"][:, 0]).max() > 1e-3


def test_dropout_acts_in_training_alone(answered):
    _, values, inputs, (_, members) = answered
    apply = jax.jit(lambda key: build_model(CONFIG).apply(values, *inputs, True, rngs={"dropout": key})[1])
    one, other = (apply(jax.random.key(seed)) for seed in (0, 1))
    for name in members:
        assert np.abs(one[name] - other[name]).max() > 1e-3
        assert np.abs(one[name] - members[name]).max() > 1e-3


def test_logits_are_summed_from_three_resolutions():
    """A head of a coarse resolution alone leaves blocks of its size."""
    network = IsenseeUNet(1, 2, 0.3)
    x = normal(0, 1, 1, 16, 16, 1)
    apply = jax.jit(lambda params: network.apply({"params": params}, x, False))
    values = jax.jit(lambda key: network.init(key, x, False))(jax.random.key(0))
    for head, block in ((0, 4), (1, 2), (2, 1)):
        params = dict(values["params"])
        for other in {0, 1, 2} - {head}:
            params[f"Conv3d_{other}"] = jax.tree.map(jnp.zeros_like, params[f"Conv3d_{other}"])
        y = np.asarray(apply(params))[0, 0]
        blocks = y.reshape(16 // block, block, 16 // block, block, 4)
        np.testing.assert_array_equal(blocks, np.broadcast_to(blocks[:, :1, :, :1], blocks.shape))
        assert block == 1 or np.abs(np.diff(y[::block], axis=0)).max() > 1e-4
        if block == 1:
            assert np.abs(y[1::2] - y[::2]).max() > 1e-4


def test_enlarging_repeats_pixels():
    x = jnp.arange(4.0).reshape(1, 1, 2, 2, 1)
    np.testing.assert_array_equal(enlarge(x)[0, 0, ..., 0], [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]])


def test_the_loss_is_the_sum_of_two_trainings(answered):
    """Each network answers by its own parameters, and each term of the loss hears of one answer."""
    apply, values, (previous, image, following, valid), (outputs, members) = answered
    for name, other in (("plane", "volume"), ("volume", "plane")):
        params = values["params"] | {other: jax.tree.map(jnp.negative, values["params"][other])}
        np.testing.assert_array_equal(apply({"params": params}, previous, image, following, valid)[1][name], members[name])
    labels = jnp.asarray(np.random.default_rng(0).integers(0, 4, valid.shape[:-1]), jnp.uint8)

    @jax.jit
    def gradients(members):
        """Of the sum, and of each term alone."""
        parts = ("loss", "soft_dice_plane", "cross_entropy_volume")
        return [jax.grad(lambda x, part=part: loss(outputs, x, labels, image, valid, LossConfig())[1][part])(members) for part in parts]

    whole, of_plane, of_volume = gradients(members)
    assert np.any(of_plane["plane"]) and np.any(of_volume["volume"])
    assert not np.any(of_plane["volume"]) and not np.any(of_volume["plane"])
    np.testing.assert_allclose(whole["plane"], of_plane["plane"], atol=1e-9)
    np.testing.assert_allclose(whole["volume"], of_volume["volume"], atol=1e-9)


def test_equal_chances_cost_ln_4_and_a_dice_of_fractions():
    labels = jnp.asarray([[[[0, 1], [2, 3]]]], jnp.uint8)
    flat = jnp.zeros((1, 1, 2, 2, 4))
    _, terms = loss([flat], {"plane": flat, "volume": flat}, labels, flat[..., :1], jnp.ones((1, 1, 2, 2, 1)), LossConfig())
    np.testing.assert_allclose(terms["cross_entropy_volume"], np.log(4), rtol=1e-6)
    # Each structure: (2 * 1/4 + 1) / (4 * 1/4 + 1 + 1) = 1/2.
    np.testing.assert_allclose(terms["soft_dice_plane"], 0.5, rtol=1e-6)
    np.testing.assert_allclose(terms["loss"], np.log(4) + 0.5, rtol=1e-6)


def test_the_soft_dice_counts_the_background():
    """Background everywhere, where two pixels of four are RV: (2 * 2 + 1) / (4 + 2 + 1), 1 / (0 + 2 + 1), and 1 twice."""
    labels = jnp.asarray([[[[0, 0], [1, 1]]]], jnp.uint8)
    sure = jnp.zeros((1, 1, 2, 2, 4)).at[..., 0].set(100.0)
    _, terms = loss([sure], {"plane": sure, "volume": sure}, labels, sure[..., :1], jnp.ones((1, 1, 2, 2, 1)), LossConfig())
    np.testing.assert_allclose(terms["soft_dice_plane"], 1 - (5 / 7 + 1 / 3 + 2) / 4, rtol=1e-6)
