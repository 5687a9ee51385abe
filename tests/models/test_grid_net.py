"""GridNet: a prior made from the training masks, placed where the network sees the heart."""

import jax
import jax.numpy as jnp
import numpy as np
from tiny import LOOP, frames, tiny, variables

from ica_unet_jax.config import Config, LossConfig
from ica_unet_jax.data.learning_frame import LearningFrame
from ica_unet_jax.models.baselines import grid_net
from ica_unet_jax.models.baselines.grid_net import (
    PARTS,
    centre_distance,
    contours,
    mean_place,
    place,
    shape_prior,
    ticks,
)
from ica_unet_jax.models.networks import build_model, make_loss
from ica_unet_jax.runs.checkpoints import Checkpoints
from ica_unet_jax.training import loop

CONFIG = tiny(model="grid_net", crop=(2, 32, 32), width_multiplier=0.125)
loss = make_loss(Config.make(model="grid_net"))


def sample(labels):
    labels = np.asarray(labels, np.uint8)
    return LearningFrame("a", 0, np.zeros((3, *labels.shape), np.float16), labels, np.ones(labels.shape, bool))


def square(slices, row, column, size=40, half=3, value=3):
    """A stack that shows a square of 2 * half + 1 pixels, its middle at row, column."""
    labels = np.zeros((slices, size, size), np.uint8)
    labels[:, row - half : row + half + 1, column - half : column + half + 1] = value
    return labels


# --- the prior ---


def test_masks_anywhere_make_one_mask_in_the_middle():
    samples = [sample(square(8, 5, 5)), sample(square(8, 30, 12)), sample(square(8, 36, 36))]
    prior = shape_prior(samples, (2, 32, 32))
    assert prior.shape == (PARTS, 32, 32, 3)
    expected = square(1, 16, 16, size=32)[0] == 3
    np.testing.assert_array_equal(prior[..., 2], np.broadcast_to(expected, prior.shape[:3]))
    np.testing.assert_array_equal(prior[..., :2], 0)


def test_a_prior_is_a_mean_and_every_part_of_a_stack_has_its_own():
    labels = square(4, 16, 16)
    labels[0] = 0  # the first slice shows no heart
    labels[3][labels[3] > 0] = 1
    prior = shape_prior([sample(labels), sample(square(4, 20, 20, value=2))], (2, 32, 32))
    middle = prior[:, 16, 16]  # of four slices every second of eight parts: 1, 3, 5, 7
    np.testing.assert_array_equal(middle[[0, 2, 4, 6]], 0)
    np.testing.assert_array_equal(middle[1], [0, 1, 0])
    np.testing.assert_array_equal(middle[3], [0, 0.5, 0.5])
    np.testing.assert_array_equal(middle[7], [0.5, 0.5, 0])


def test_without_masks_the_prior_is_background():
    np.testing.assert_array_equal(shape_prior([sample(np.zeros((2, 40, 40)))], (2, 32, 32)), 0)


def test_a_placed_prior_lies_where_the_mask_was():
    mask = square(8, 11, 22, size=32)
    prior = jnp.asarray(shape_prior([sample(mask)], (8, 32, 32)))
    centre = jnp.broadcast_to(jnp.array([ticks(32)[11], ticks(32)[22]]), (1, 8, 2))
    placed = place(prior, centre, jnp.ones((1, 8, 32, 32, 1)))
    np.testing.assert_allclose(placed[0, ..., 3], mask > 0, atol=1e-5)
    np.testing.assert_allclose(placed.sum(-1), 1, atol=1e-6)


def test_padded_slices_do_not_move_the_parts():
    prior = jnp.zeros((PARTS, 32, 32, 3)).at[..., 0].set(jnp.arange(PARTS).reshape(-1, 1, 1) / 10.0)
    whole = place(prior, jnp.zeros((1, 4, 2)), jnp.ones((1, 4, 32, 32, 1)))[0, :, 16, 16, 1]
    np.testing.assert_allclose(whole, [0.05, 0.25, 0.45, 0.65], atol=1e-6)  # four slices among eight parts
    valid = jnp.ones((1, 8, 32, 32, 1)).at[:, :2].set(0).at[:, 6:].set(0)
    padded = place(prior, jnp.zeros((1, 8, 2)), valid)[0, :, 16, 16, 1]
    np.testing.assert_allclose(padded[2:6], whole, atol=1e-6)


def test_a_training_begins_with_the_prior_of_its_own_patients(cohort, tmp_path):
    folders = dict(data_dir=str(cohort), cache_dir=str(tmp_path), workdir=str(tmp_path / "run"))
    config = Config.make(**LOOP | folders | dict(model="grid_net", width_multiplier=0.125))
    samples, _, split, _ = loop.load(config)
    assert {sample.case_name for sample in samples} == set(split["train"]) and split["val"]
    with Checkpoints(tmp_path / "run") as saved:
        state, *_ = loop.begin(config, saved, samples)
    prior = shape_prior(samples, config.model.crop)
    np.testing.assert_array_equal(state.batch_stats["shape_prior"], prior)
    assert prior.any()


def test_the_network_uses_its_prior_and_keeps_it_in_training():
    model, values, inputs = build_model(CONFIG), variables(CONFIG), frames(CONFIG)
    prior = grid_net.prepare(values["batch_stats"], [sample(square(8, 16, 16))], CONFIG.crop)
    assert set(prior) == set(values["batch_stats"]) and np.any(prior["shape_prior"] != values["batch_stats"]["shape_prior"])
    apply = jax.jit(model.apply)
    one, other = (apply({**values, "batch_stats": stats}, *inputs)[0][0] for stats in (values["batch_stats"], prior))
    assert np.abs(one - other).max() > 1e-3
    train = jax.jit(lambda stats: model.apply({**values, "batch_stats": stats}, *inputs, True, mutable=["batch_stats"])[1])
    updated = train(prior)
    np.testing.assert_array_equal(updated["batch_stats"]["shape_prior"], prior["shape_prior"])


# --- centre and loss ---


def test_the_mean_place_of_one_bright_pixel_is_its_own():
    scores = jnp.zeros((2, 4, 8)).at[0, 1, 6].set(50.0)
    where = mean_place(scores)
    np.testing.assert_allclose(where[0], [-0.25, 0.625], atol=1e-6)  # pixels 1 of 4 and 6 of 8
    np.testing.assert_allclose(where[1], 0, atol=1e-6)


def test_the_centre_of_mass_is_hit_or_missed():
    heart = jnp.asarray(square(2, 11, 22, size=32) > 0, jnp.float32)[None]
    heart = heart.at[:, 1].set(0)
    exact = jnp.array([[[ticks(32)[11], ticks(32)[22]], [0.3, 0.3]]])
    np.testing.assert_allclose(centre_distance(exact, heart), 0, atol=1e-10)
    off = exact + jnp.array([0.3, 0.4]).reshape(1, 1, 2)  # 3, 4, 5
    np.testing.assert_allclose(centre_distance(off, heart), 0.25, rtol=1e-4)
    assert centre_distance(off, 0 * heart) == 0  # nothing to aim at


def test_the_contour_of_a_square_is_its_border():
    one_hot = jax.nn.one_hot(square(1, 16, 16, size=32)[None], 4)
    found = contours(one_hot)
    border = square(1, 16, 16, size=32)[0] - square(1, 16, 16, size=32, half=2)[0]
    np.testing.assert_array_equal(found[0, 0, ..., 2], border > 0)
    np.testing.assert_array_equal(found[..., :2], 0)


def test_a_perfect_answer_costs_almost_nothing_and_a_flat_one_what_logarithms_say():
    labels = jnp.asarray(square(1, 16, 16, size=32)[None])
    valid, one_hot = jnp.ones((1, 1, 32, 32, 1)), jax.nn.one_hot(labels, 4)
    exact = jnp.full((1, 1, 2), ticks(32)[16])
    value, terms = loss([40 * one_hot], {"centre": exact}, labels, valid, valid, LossConfig())
    assert abs(float(value)) < 1e-2 and set(terms) == {"cross_entropy_1", "contour", "centre", "loss"}
    _, terms = loss([0 * one_hot], {"centre": exact}, labels, valid, valid, LossConfig())
    np.testing.assert_allclose(terms["cross_entropy_1"], np.log(4), rtol=1e-4)
    np.testing.assert_allclose(terms["contour"], -np.log(grid_net.FLOOR), rtol=1e-5)


def test_padding_counts_nowhere():
    labels = jnp.asarray(square(2, 16, 16, size=32)[None])
    valid = jnp.ones((1, 2, 32, 32, 1)).at[:, 1].set(0)
    logits = [jax.random.normal(jax.random.key(0), (1, 2, 32, 32, 4))]
    other = labels.at[:, 1].set(1)
    for a, b in zip(*(loss(logits, {"centre": jnp.zeros((1, 2, 2))}, x, valid, valid, LossConfig())[1].values() for x in (labels, other)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
