"""The loss against fractions, and what it must never see."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
from tiny import normal

from ica_unet_jax.config import LossConfig
from ica_unet_jax.models.losses import (
    cross_entropy,
    ica_terms,
    log_cosh,
    rescale,
    soft_dice,
    standardize,
    total_loss,
    weights,
    whiten,
)


def log_cosh_64(z):
    """In double precision, by the definition."""
    return np.log(np.cosh(np.asarray(z, np.float64)))


def one_hot(labels):
    return jax.nn.one_hot(labels, 4, dtype=jnp.float32)


# --- the three ICA terms ---

BASES = np.array([Fraction(1, 2), Fraction(-1, 4), Fraction(0), Fraction(3, 4)] * 2)  # two samples
RECONSTRUCTION = [Fraction(3, 4), Fraction(1, 2)]  # two voxels
FRAME = [Fraction(1, 4), Fraction(-1, 2)]


def terms(**changes):
    """Two equal samples of four basis values and two voxels; the very last voxel is padding."""
    bases = jnp.array(BASES.astype(float), jnp.float32).reshape(2, 1, 1, 1, 2, 2)
    reconstruction = jnp.array([RECONSTRUCTION] * 2, jnp.float32).reshape(2, 1, 1, 2, 1)
    frame = jnp.array([FRAME] * 2, jnp.float32).reshape(2, 1, 1, 2, 1)
    valid = jnp.array([1, 1, 1, 0], jnp.float32).reshape(2, 1, 1, 2, 1)
    return ica_terms(bases, reconstruction, frame, valid, LossConfig(**changes))


def test_ica_terms_by_hand():
    # The reconstruction is 3/4 and 1/2, the frame 1/4 and -1/2: errors 1/2 and 1.
    squares = 2 * Fraction(1, 4) + 1  # the second voxel counts once
    alpha = 0.75
    independence = -alpha * np.mean([math.log(math.cosh(float(x) / alpha)) for x in BASES])
    expected = {"sparsity": Fraction(3, 2) / 4, "independence": independence, "reconstruction": squares / 3}
    for name, value in terms().items():
        assert value == pytest.approx(float(expected.pop(name)), rel=1e-6)
    assert not expected
    literal = terms(ica_reduction="sum")
    assert literal["sparsity"] == pytest.approx(1.5)  # per sample
    assert literal["independence"] == pytest.approx(independence, rel=1e-6)
    assert literal["reconstruction"] == pytest.approx(float(squares) / 2)


def test_alpha():
    expected = -2 * log_cosh_64(BASES.astype(float) / 2).mean()
    assert terms(alpha=2.0)["independence"] == pytest.approx(expected, rel=1e-5)


def test_log_cosh_is_finite_where_cosh_is_not():
    z = jnp.concatenate([-jnp.logspace(-30, 30, 61), jnp.zeros(1), jnp.logspace(-30, 30, 61), jnp.array([1e4, -1e4])])
    value, slope = jax.vmap(jax.value_and_grad(log_cosh))(z)
    assert np.all(np.isfinite(value)) and np.all(np.isfinite(slope))
    safe = np.abs(z) < 300
    np.testing.assert_allclose(value[safe], log_cosh_64(z[safe]), rtol=1e-6, atol=2e-7)
    np.testing.assert_allclose(slope, np.tanh(np.float64(z)), atol=1e-6)
    assert log_cosh(jnp.float32(1e4)) == pytest.approx(1e4 - math.log(2))


@pytest.mark.parametrize("transform", [{}, {"standardize_bases": True}, {"whiten_bases": True}], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("size", [0, 1e-3, 1, 1e4])
def test_ica_terms_are_finite_with_finite_gradients(transform, reduction, size):
    config = LossConfig(ica_reduction=reduction, **transform)
    valid = jnp.ones((1, 2, 8, 8, 1))

    def loss(bases, reconstruction, frame):
        return sum(ica_terms(bases, reconstruction, frame, valid, config).values())

    inputs = (size * normal(0, 1, 2, 4, 4, 2, 3), size * normal(1, 1, 2, 8, 8, 2), size * normal(2, 1, 2, 8, 8, 1))
    value, gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(*inputs)
    assert np.isfinite(value) and all(np.all(np.isfinite(g)) for g in gradients)


def test_standardized_bases():
    x = standardize(3 + 2 * normal(0, 2, 4, 4, 4, 2, 5))
    np.testing.assert_allclose(x.mean((1, 2, 3, 4)), 0, atol=1e-5)
    np.testing.assert_allclose(x.var((1, 2, 3, 4)), 1, atol=1e-4)


def test_whitened_bases():
    mixed = normal(0, 2, 4, 6, 6, 2, 3) @ jnp.array([[1.0, 0.7, 0.2], [0, 1, -0.5], [0.3, 0, 1]])
    before, after = (np.cov(np.reshape(x[1], (-1, 3)).T) for x in (mixed, whiten(mixed)))
    assert np.abs(before - np.diag(np.diag(before))).max() > 0.3
    np.testing.assert_allclose(after, np.eye(3), atol=0.02)
    # Symmetric: of all whitened bases the nearest, so every basis stays itself.
    flat, original = (np.reshape(x[1], (-1, 3)) for x in (whiten(mixed), mixed))
    closeness = np.corrcoef(flat.T, original.T)[:3, 3:]
    assert np.all(np.diag(closeness) > 0.9) and np.all(closeness.argmax(1) == np.arange(3))


@pytest.mark.parametrize("name", ["standardize_bases", "whiten_bases"])
def test_the_scale_of_the_bases_is_no_way_to_a_smaller_loss_any_more(name):
    """A/c and cX mix to the same image: the first two terms must not prefer one of them."""
    x = normal(0, 1, 2, 4, 4, 2, 3)
    rest = jnp.zeros((1, 2, 8, 8, 2)), jnp.zeros((1, 2, 8, 8, 1)), jnp.ones((1, 2, 8, 8, 1))
    small, large = (ica_terms(c * x, *rest, LossConfig(**{name: True})) for c in (0.5, 5))
    for term in ("sparsity", "independence"):
        assert small[term] == pytest.approx(float(large[term]), rel=1e-3)
        assert ica_terms(0.5 * x, *rest, LossConfig())[term] != pytest.approx(float(large[term]), rel=0.1)


@pytest.mark.parametrize("alpha", [0.75, 1.0])
def test_negentropy_of_a_known_contrast(alpha):
    """Two values of equal chance are +-1 when standardized, whatever their scale: E[G] = alpha log cosh(1 / alpha)."""
    x = jnp.tile(jnp.array([2.0, 8.0]), 64).reshape(1, 2, 4, 4, 4, 1)
    rest = jnp.zeros((1, 2, 8, 8, 4)), jnp.zeros((1, 2, 8, 8, 1)), jnp.ones((1, 2, 8, 8, 1))
    found = ica_terms(x, *rest, LossConfig(independence="negentropy", alpha=alpha))
    gaussian, _ = scipy.integrate.quad(lambda g: alpha * math.log(math.cosh(g / alpha)) * math.exp(-g * g / 2) / math.sqrt(2 * math.pi), -12, 12)
    assert found["independence"] == pytest.approx(-((alpha * math.log(math.cosh(1 / alpha)) - gaussian) ** 2), rel=1e-3)
    assert found["sparsity"] == 5  # of X as it is


def test_standardized_for_the_independence_term_alone():
    x = normal(0, 1, 2, 4, 4, 2, 3)
    rest = jnp.zeros((1, 2, 8, 8, 2)), jnp.zeros((1, 2, 8, 8, 1)), jnp.ones((1, 2, 8, 8, 1))
    alone, both = (ica_terms(x, *rest, LossConfig(**{name: True})) for name in ("standardize_independence", "standardize_bases"))
    assert alone["independence"] == both["independence"]
    assert alone["sparsity"] == ica_terms(x, *rest, LossConfig())["sparsity"] != both["sparsity"]


def test_weights_of_the_ica_terms_are_beta_times_lambda():
    config = LossConfig(ica_weight=0.5, sparsity_weight=0.0, independence_weight=1.0, reconstruction_weight=3.0)
    assert weights(config) == dict(sparsity=0.0, independence=0.5, reconstruction=1.5)


# --- cross-entropy at several resolutions ---


def test_an_output_of_full_size_counts_as_the_finest_and_a_coarser_one_by_alpha():
    labels = jnp.array([[0, 1, 2, 3]] * 4).reshape(1, 1, 4, 4)
    full, coarse = normal(0, 1, 1, 4, 4, 4), normal(1, 1, 1, 2, 2, 4)
    frame, valid = jnp.zeros((1, 1, 4, 4, 1)), jnp.ones((1, 1, 4, 4, 1))
    loss, terms = total_loss([coarse, full, full], {}, labels, frame, valid, LossConfig(auxiliary_weight=0.25, dice_weight=0.5))
    parts = [terms["cross_entropy_1"] / 4, terms["cross_entropy_2"], terms["cross_entropy_3"], terms["soft_dice"] / 2, terms["soft_dice_2"] / 2]
    assert loss == pytest.approx(float(sum(parts)), rel=1e-6)
    assert terms["cross_entropy_2"] == terms["cross_entropy_3"]


def test_soft_dice_by_sample_is_the_mean_of_each():
    labels, valid = jnp.array([[0, 1, 2, 3], [1, 1, 0, 0]]).reshape(2, 1, 1, 4), jnp.ones((2, 1, 1, 4, 1))
    logits, truth = normal(0, 2, 1, 1, 4, 4), one_hot(labels)
    each = [float(soft_dice(logits[i : i + 1], truth[i : i + 1], valid[:1])) for i in range(2)]
    assert soft_dice(logits, truth, valid, by_sample=True) == pytest.approx(sum(each) / 2, rel=1e-6)
    assert soft_dice(logits, truth, valid) != pytest.approx(sum(each) / 2, rel=1e-3)


def test_rescaled_labels_by_hand():
    labels = jnp.array([[0, 0, 1, 3], [0, 2, 3, 3]]).reshape(1, 1, 2, 4)
    valid = jnp.array([[1, 1, 1, 0], [1, 1, 1, 1]], jnp.float32).reshape(1, 1, 2, 4, 1)
    target, weight = rescale(one_hot(labels), valid, (1, 1, 2))
    expected = [[Fraction(3, 4), 0, Fraction(1, 4), 0], [0, Fraction(1, 3), 0, Fraction(2, 3)]]
    np.testing.assert_allclose(target[0, 0, 0], np.array(expected, float), rtol=1e-6)
    np.testing.assert_allclose(weight[0, 0, 0], [1, 3 / 4])
    same, ones = rescale(one_hot(labels), jnp.ones_like(valid), (1, 2, 4))
    np.testing.assert_array_equal(same, one_hot(labels))
    np.testing.assert_array_equal(ones, 1)


def test_cross_entropy_by_hand():
    logits = jnp.log(jnp.array([[1, 1, 1, 1], [1, 2, 4, 1]])).reshape(1, 1, 1, 2, 4)
    target = jnp.array([[1, 0, 0, 0], [0, 0.5, 0.5, 0]]).reshape(1, 1, 1, 2, 4)
    first, second = math.log(4), (math.log(8 / 2) + math.log(8 / 4)) / 2
    value = cross_entropy(logits, target, jnp.array([1, 0.25]).reshape(1, 1, 1, 2))
    assert value == pytest.approx((first + second / 4) / (5 / 4))


def test_soft_dice_of_a_perfect_and_of_an_absent_answer():
    labels = jnp.arange(4).repeat(64).reshape(1, 4, 8, 8)
    valid = jnp.ones((1, 4, 8, 8, 1))
    assert soft_dice(100 * one_hot(labels), one_hot(labels), valid) == pytest.approx(0, abs=1e-6)
    background = jnp.broadcast_to(jnp.array([100.0, 0, 0, 0]), (1, 4, 8, 8, 4))
    assert soft_dice(background, one_hot(labels), valid) == pytest.approx(1 - 1 / 65)


# --- the whole ---


def batch():
    """Logits at two resolutions, aux, labels, frame; the left half of the second slice is padding."""
    valid = jnp.ones((1, 2, 8, 8, 1)).at[:, 1, :, :4].set(0)
    logits = [normal(1, 1, 2, 4, 4, 4), normal(2, 1, 2, 8, 8, 4)]
    aux = {"bases": normal(3, 1, 2, 4, 4, 2, 3), "coefficients": normal(4, 1, 1, 2, 2, 3)}
    aux["reconstruction"] = normal(5, 1, 2, 8, 8, 2)
    labels = jnp.asarray(np.random.default_rng(6).integers(0, 4, (1, 2, 8, 8)))
    return logits, aux, labels, normal(7, 1, 2, 8, 8, 1), valid


def test_padded_voxels_count_nowhere():
    logits, aux, labels, frame, valid = batch()
    config = LossConfig(dice_weight=1.0)

    def spoil(x, noise):
        size = x.shape[2]
        mask = valid.reshape(1, 2, size, 8 // size, size, 8 // size).max((3, 5))
        return jnp.where(mask.reshape(*mask.shape, *[1] * (x.ndim - 4)) > 0, x, noise)

    loss, terms = total_loss(logits, aux, labels, frame, valid, config)
    other_aux = aux | {"reconstruction": spoil(aux["reconstruction"], 1e3)}
    other = total_loss([spoil(y, 50.0) for y in logits], other_aux, spoil(labels, 2), spoil(frame, -9.0), valid, config)
    assert other[0] == pytest.approx(float(loss), rel=1e-6)
    assert jax.tree.map(float, other[1]) == pytest.approx(jax.tree.map(float, terms), rel=1e-6)
    gradients = jax.grad(lambda y: total_loss(y, aux, labels, frame, valid, config)[0])(logits)
    for gradient in gradients:
        half = gradient.shape[3] // 2
        assert not np.any(gradient[:, 1, :, :half]) and np.all(gradient[:, 0]) and np.all(gradient[:, 1, :, half:])


def test_total_is_the_weighted_sum_of_its_terms():
    inner = dict(sparsity_weight=2.0, independence_weight=3.0, reconstruction_weight=5.0)
    config = LossConfig(ica_weight=0.3, auxiliary_weight=0.7, dice_weight=0.6, **inner)
    loss, t = total_loss(*batch(), config)
    expected = 0.7 * t["cross_entropy_1"] + t["cross_entropy_2"] + 0.6 * t["soft_dice"]
    expected += 0.3 * (2 * t["sparsity"] + 3 * t["independence"] + 5 * t["reconstruction"])
    assert loss == t["loss"] == pytest.approx(float(expected))
    logits, aux, labels, frame, valid = batch()
    assert t["scale_of_bases"] == pytest.approx(float(jnp.abs(aux["bases"]).mean()))
    assert t["scale_of_coefficients"] == pytest.approx(float(jnp.abs(aux["coefficients"]).mean()))
    alone, names = total_loss(logits, {}, labels, frame, valid, LossConfig(auxiliary_weight=0))
    assert alone == names["cross_entropy_2"] and "sparsity" not in names


def test_the_papers_weights_are_the_defaults():
    c = LossConfig()
    assert (c.ica_weight, c.auxiliary_weight, c.alpha) == (0.2, 0.1, 0.75)
    assert (c.sparsity_weight, c.independence_weight, c.reconstruction_weight, c.dice_weight) == (1, 1, 1, 0)
