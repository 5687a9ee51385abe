"""Omega-Net: hearts anywhere and anyhow turned become one upright heart, and masks find the way back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import frames, tiny, variables

from ica_unet_jax.config import Config, LossConfig
from ica_unet_jax.models.baselines.omega_net import RADIUS, Pose, from_canonical, to_canonical, true_pose
from ica_unet_jax.models.networks import build_model, make_loss

SIZE = 64
turn, turn_back = jax.jit(to_canonical), jax.jit(from_canonical)
CONFIG = tiny(model="omega_net", crop=(2, 32, 32), width_multiplier=0.125)
loss = make_loss(Config.make(model="omega_net"))


def heart(row=31.5, column=31.5, degrees=0.0, scale=1.0, slices=2):
    """A right cavity beside a left one in its wall, `degrees` from the direction of rising columns to that of rising rows."""
    y, x = np.indices((SIZE, SIZE))
    angle = np.deg2rad(degrees)
    right_row, right_column = row + 14 * scale * np.sin(angle), column + 14 * scale * np.cos(angle)
    labels = np.zeros((SIZE, SIZE), np.uint8)
    labels[np.hypot(y - row, x - column) < 9 * scale] = 2
    labels[np.hypot(y - row, x - column) < 6 * scale] = 3
    labels[(np.hypot(y - right_row, x - right_column) < 6 * scale) & (labels == 0)] = 1
    return jnp.asarray(np.broadcast_to(labels, (1, slices, SIZE, SIZE)))


def whole(labels):
    return jnp.ones((*labels.shape, 1))


def pose(row=0.0, column=0.0, degrees=0.0, log_scale=0.0):
    angle = np.deg2rad(degrees)
    direction = jnp.float32([[np.sin(angle), np.cos(angle)]])
    return Pose(jnp.float32([[row, column]]), direction, jnp.float32([log_scale]))


def upright(labels):
    """The labels in the canonical orientation of their true pose."""
    found, _, _ = true_pose(labels, whole(labels))
    return np.asarray(turn(jax.nn.one_hot(labels, 4), found)).argmax(-1)


def dice(a, b):
    """The lowest of the three structures' overlaps."""
    return min(2 * np.sum((a == k) & (b == k)) / (np.sum(a == k) + np.sum(b == k)) for k in (1, 2, 3))


@pytest.mark.parametrize("changes", [dict(row=25, column=36), dict(degrees=200), dict(degrees=-60, row=28), dict(scale=0.8)], ids=str)
def test_hearts_anyhow_turned_become_one(changes):
    one = upright(heart())
    assert dice(one, upright(heart(**changes))) > 0.85  # pixels' borders agree no better
    assert dice(one, np.asarray(heart(**changes))) < 0.7


def test_a_pose_by_hand():
    labels = np.zeros((1, 1, SIZE, SIZE), np.uint8)
    labels[0, 0, 10, 20] = 3
    labels[0, 0, 10, 40] = 1
    found, has_heart, has_angle = true_pose(jnp.asarray(labels), jnp.ones((1, 1, SIZE, SIZE, 1)))
    # The middle is row 10, column 30, pixels 10 from it; the right ventricle lies towards rising columns.
    np.testing.assert_allclose(found.centre[0], [21 / 64 - 1, 61 / 64 - 1], rtol=1e-5)
    np.testing.assert_allclose(found.direction[0], [0, 1], atol=1e-5)
    np.testing.assert_allclose(found.log_scale[0], np.log(10 / (RADIUS * SIZE)), rtol=1e-4)
    assert has_heart[0] and has_angle[0]


def test_without_a_right_ventricle_there_is_no_angle_and_without_a_heart_no_pose():
    labels = jnp.where(heart() == 1, 0, heart())
    _, has_heart, has_angle = true_pose(labels, whole(labels))
    assert has_heart[0] and not has_angle[0]
    found, has_heart, has_angle = true_pose(0 * labels, whole(labels))
    assert not has_heart[0] and not has_angle[0]
    assert all(np.all(np.isfinite(leaf)) for leaf in found)


def test_nothing_moved_is_nothing_changed():
    x = jax.random.normal(jax.random.key(0), (1, 2, 16, 16, 4))
    np.testing.assert_allclose(turn(x, pose()), x, atol=1e-5)
    np.testing.assert_allclose(turn_back(x, pose()), x, atol=1e-5)


def test_a_quarter_turn_is_a_turn_of_the_array():
    x = jax.random.normal(jax.random.key(0), (1, 1, 16, 16, 1))
    # The right ventricle points down, so that the canonical image's columns are the image's rows.
    np.testing.assert_allclose(turn(x, pose(degrees=90))[0, 0, ..., 0], np.rot90(x[0, 0, ..., 0]), atol=1e-4)


def test_there_and_back_is_where_it_was():
    smooth = jnp.sin(jnp.arange(SIZE) / 6).reshape(1, 1, -1, 1, 1) * jnp.cos(jnp.arange(SIZE) / 5).reshape(1, 1, 1, -1, 1)
    x = jnp.repeat(smooth, 4, axis=-1)
    turned = pose(0.1, -0.2, 35, -0.2)
    back = turn_back(turn(x, turned), turned)
    middle = slice(28, 40), slice(20, 32)
    np.testing.assert_allclose(back[0, 0][middle], x[0, 0][middle], atol=0.02)
    # A corner of the image lies beyond the canonical one: background.
    assert back[0, 0, -1, -1].argmax() == 0 and back[0, 0, -1, -1, 0] > 9


def test_an_exact_answer_costs_nothing():
    labels = heart(degrees=30)
    truth, _, _ = true_pose(labels, whole(labels))
    sure = 40 * jax.nn.one_hot(labels, 4)
    value, terms = loss([sure] * 3, {"pose": truth}, labels, whole(labels), whole(labels), LossConfig())
    assert float(value) < 1e-5
    wrong = truth._replace(centre=truth.centre + jnp.array([[0.3, 0.4]]))
    _, terms = loss([sure] * 3, {"pose": wrong}, labels, whole(labels), whole(labels), LossConfig())
    np.testing.assert_allclose(terms["pose"], 0.25, rtol=1e-4)
    opposite = truth._replace(direction=-truth.direction)
    _, terms = loss([sure] * 3, {"pose": opposite}, labels, whole(labels), whole(labels), LossConfig())
    np.testing.assert_allclose(terms["pose"], 4, rtol=1e-4)
    _, terms = loss([0 * sure] * 3, {"pose": truth}, labels, whole(labels), whole(labels), LossConfig())
    np.testing.assert_allclose(terms["loss"], 3 * np.log(4), rtol=1e-5)


def test_coarse_and_fine_masks_at_full_size_and_a_unit_vector():
    values, inputs = variables(CONFIG), frames(CONFIG)
    outputs, aux = jax.jit(build_model(CONFIG).apply)(values, *inputs)
    assert [y.shape for y in outputs] == [(1, 2, 32, 32, 4)] * 3
    found = aux["pose"]
    np.testing.assert_allclose(jnp.square(found.direction).sum(1), 1, atol=1e-3)
    assert np.abs(found.centre).max() < 1 and np.abs(found.log_scale).max() <= 1


def test_gradients_reach_the_pose_through_the_image():
    labels = heart()
    image = jax.nn.one_hot(labels, 4)

    def value(found):
        return jnp.square(to_canonical(image, found) - image).sum()

    gradients = jax.jit(jax.grad(value))(pose(0.1, 0.05, 10, 0.1))
    for leaf in gradients:
        assert np.all(np.isfinite(leaf)) and np.all(leaf != 0)
