"""The canonical form: linear layers are the frames' own, ReLU and maximum have the moments that sampling finds."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import normal

from ica_unet_jax.models.baselines.canonical import (
    Canonical,
    CanonicalConv,
    CanonicalNorm,
    CanonicalUpsample,
    concatenate,
    max_pool,
    maximum,
    pixels_apart,
    read_out,
    relu,
)
from ica_unet_jax.models.baselines.unmixing import rotation, unmix, zero_mean_basis
from ica_unet_jax.models.layers import convolve, depth_to_space

SPAN, SOURCES = 5, 3
SHAPE = (2, 1, 4, 6, 3)


def form(residual=0.0, seed=0, shape=SHAPE):
    return Canonical(normal(seed, *shape), normal(seed + 1, SOURCES, *shape), residual * jnp.abs(normal(seed + 2, *shape)))


def each(x, function):
    """`function` on the mean, on each source's coefficients and on the variance."""
    return Canonical(function(x.mean), jax.vmap(function)(x.sources), function(x.residual))


def orthonormal(batch=2, span=SPAN, sources=SOURCES):
    """Sources of zero mean and unit variance, uncorrelated, other ones for each sample."""
    turns = [np.linalg.qr(np.random.default_rng(i).standard_normal((span - 1, span - 1)))[0] for i in range(batch)]
    return jnp.float32(np.stack([np.sqrt(span) * (zero_mean_basis(span) @ q)[:, :sources].T for q in turns]))


def close(a, b, atol=1e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=atol), a, b)


# --- linear layers ---


@pytest.mark.parametrize("layer", [CanonicalConv(4), CanonicalConv(4, 1), CanonicalUpsample(4)])
def test_linear_layers_are_frame_wise(layer):
    x, sources = form(), orthonormal()
    variables = jax.tree.map(lambda p: p + 0.1, layer.init(jax.random.key(0), x))  # a bias that is not 0
    params = variables["params"]

    def frame_wise(frame):
        if isinstance(layer, CanonicalUpsample):
            return depth_to_space(frame @ params["kernel"])
        return convolve(frame, params["kernel"]) + params["bias"].reshape(1, 1, 1, 1, -1)

    expected = jnp.stack([frame_wise(frame) for frame in read_out(x, sources)])
    close(read_out(layer.apply(variables, x), sources), expected)


def test_batch_norm_is_frame_wise():
    x, sources, layer = form(), orthonormal(), CanonicalNorm()
    frames = read_out(x, sources).reshape(-1, *SHAPE[1:])  # all frames of both snippets as one batch
    peer = nn.BatchNorm(use_running_average=False, momentum=0.95, epsilon=1e-5)
    params = {"scale": jnp.array([0.5, 1.0, 2.0]), "bias": jnp.array([1.0, 0.0, -1.0])}
    stats = {"mean": jnp.zeros(3), "var": jnp.ones(3)}
    y, updated = layer.apply({"params": params, "batch_stats": stats}, x, True, mutable=["batch_stats"])
    expected, theirs = peer.apply({"params": params, "batch_stats": stats}, frames, mutable=["batch_stats"])
    close(read_out(y, sources).reshape(expected.shape), expected, atol=2e-5)
    close(updated["batch_stats"], dict(theirs["batch_stats"]))
    kept = {"mean": jnp.array([0.1, -0.2, 0.3]), "var": jnp.array([0.5, 1.5, 2.5])}
    peer = nn.BatchNorm(use_running_average=True, epsilon=1e-5)
    y = layer.apply({"params": params, "batch_stats": kept}, x, False)
    close(read_out(y, sources).reshape(frames.shape), peer.apply({"params": params, "batch_stats": kept}, frames), atol=2e-5)


def test_residuals_of_neighbours_are_independent():
    x, layer = form(residual=1.0, shape=(1, 1, 3, 3, 2)), CanonicalConv(4)
    variables = layer.init(jax.random.key(0), x)
    noise = jnp.sqrt(x.residual) * normal(7, 40000, *x.residual.shape[1:])
    samples = convolve(noise, variables["params"]["kernel"])
    np.testing.assert_allclose(layer.apply(variables, x).residual[0], samples.var(0), rtol=0.05)


def test_norm_scales_the_residual_and_counts_it():
    x, layer = form(residual=3.0), CanonicalNorm()
    variables = layer.init(jax.random.key(0), x, False)
    y, _ = layer.apply(variables, x, True, mutable=["batch_stats"])
    np.testing.assert_allclose(y.mean.mean((0, 1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose((y.variance + y.mean**2).mean((0, 1, 2, 3)), 1, atol=1e-4)


# --- ReLU and maximum ---


def sampled(function, *forms, count=400_000):
    """Mean, covariance with each source, and variance of function(values) by sampling; forms of shape (1, 1, 1, 1, c)."""
    rng = np.random.default_rng(0)
    sources = rng.standard_normal((count, SOURCES, 1))
    values = [
        np.asarray(x.mean[0, 0, 0, 0]) + (np.asarray(x.sources[:, 0, 0, 0, 0]) * sources).sum(1)
        + np.sqrt(np.asarray(x.residual[0, 0, 0, 0])) * rng.standard_normal((count, x.mean.shape[-1]))
        for x in forms
    ]  # fmt: skip
    y = function(*values)
    return y.mean(0), (sources * (y - y.mean(0))[:, None]).mean(0), y.var(0)


@pytest.mark.parametrize("residual", [0.0, 0.5])
def test_moments_agree_with_sampling(residual):
    a, b = (form(residual, seed, (1, 1, 1, 1, 12)) for seed in (0, 10))
    for ours, (mean, covariance, variance) in (
        (relu(a), sampled(lambda x: np.maximum(x, 0), a)),
        (maximum(a, b), sampled(np.maximum, a, b)),
    ):
        np.testing.assert_allclose(ours.mean.ravel(), mean, atol=0.02)
        np.testing.assert_allclose(ours.sources.reshape(SOURCES, -1), covariance, atol=0.03)
        np.testing.assert_allclose(ours.variance.ravel(), variance, rtol=0.02, atol=0.02)
        assert ours.residual.min() >= 0


def test_a_standard_normal_by_hand():
    one = Canonical(jnp.zeros((1,) * 5), jnp.ones((1,) * 6), jnp.zeros((1,) * 5))
    y = relu(one)
    # E max(Z, 0) = 1 / sqrt(2 pi), E max(Z, 0)^2 = 1/2, and the covariance with Z is 1/2.
    np.testing.assert_allclose(y.mean.item(), 1 / np.sqrt(2 * np.pi), rtol=1e-6)
    np.testing.assert_allclose(y.sources.item(), 0.5, rtol=1e-6)
    np.testing.assert_allclose(y.variance.item(), 0.5 - 1 / (2 * np.pi), rtol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 1e-8, 1e-6])
def test_without_variance_they_are_the_plain_ones(scale):
    a, b = (Canonical(x.mean, scale * x.sources, scale**2 * x.residual) for x in (form(1.0, 0), form(1.0, 10)))
    np.testing.assert_allclose(relu(a).mean, jnp.maximum(a.mean, 0), atol=1e-5)
    np.testing.assert_allclose(maximum(a, b).mean, jnp.maximum(a.mean, b.mean), atol=1e-5)
    np.testing.assert_allclose(max_pool(a).mean, nn.max_pool(a.mean, (1, 2, 2), (1, 2, 2)), atol=1e-5)
    larger = jnp.where(a.mean > b.mean, a.sources, b.sources)
    np.testing.assert_allclose(maximum(a, b).sources, larger, atol=1e-5)


@pytest.mark.parametrize("scale", [0.0, 1e-12, 1e-5, 1.0])
def test_gradients_are_finite_everywhere(scale):
    x = form(scale, 0)
    x = Canonical(x.mean.at[0].set(0), scale * x.sources, x.residual)
    for function in (relu, max_pool, lambda x: maximum(x, x)):
        gradients = jax.grad(lambda x, f=function: sum(jnp.square(y).sum() + y.sum() for y in f(x)))(x)
        for leaf in gradients:
            assert np.all(np.isfinite(leaf))
        assert np.any(gradients.mean != 0)


def test_the_share_of_a_gradient_is_the_chance_to_be_larger():
    x = form(0.5)
    gradient = jax.grad(lambda mean: relu(x._replace(mean=mean)).mean.sum())(x.mean)
    chance = jax.scipy.stats.norm.cdf(x.mean / jnp.sqrt(x.variance))
    np.testing.assert_allclose(gradient, chance, atol=1e-5)


def test_pooling_takes_each_square():
    x = form(0.2)
    y = max_pool(x)
    assert y.mean.shape == (2, 1, 2, 3, 3) and y.sources.shape == (3, 2, 1, 2, 3, 3)
    square = each(x, lambda v: v[:, :, 2:4, 4:6])
    close(max_pool(square), each(y, lambda v: v[:, :, 1:2, 2:3]), atol=1e-6)
    assert np.all(y.mean >= nn.max_pool(x.mean, (1, 2, 2), (1, 2, 2)) - 1e-5)


def test_pixels_apart_are_slices_and_so_are_their_gradients():
    x, weights = normal(0, 2, 3, 4, 6, 5), [normal(i, 2, 3, 2, 3, 5) for i in range(1, 5)]
    slices = lambda x: tuple(x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1))  # noqa: E731
    for a, b in zip(pixels_apart(x), slices(x), strict=True):
        np.testing.assert_array_equal(a, b)
    ours, expected = (jax.grad(lambda x, f=f: sum((w * y).sum() for w, y in zip(weights, f(x), strict=True)))(x) for f in (pixels_apart, slices))
    np.testing.assert_array_equal(ours, expected)


def test_concatenation_keeps_both():
    a, b = form(0.1, 0), form(0.1, 10)
    y = concatenate(a, b)
    close(each(y, lambda v: v[..., :3]), a)
    close(each(y, lambda v: v[..., 3:]), b)


# --- unmixing ---


@pytest.mark.parametrize("span", [2, 3, 5, 10])
def test_sources_are_standardized_and_uncorrelated_and_nothing_is_lost(span):
    frames = normal(0, 2, 2, 8, 8, span)
    x, sources = unmix(frames, 3)
    count = min(3, span - 1)
    assert sources.shape == (2, count, span)
    np.testing.assert_allclose(sources.sum(-1), 0, atol=1e-4)
    covariance = jnp.einsum("bks,bls->bkl", sources, sources) / span
    np.testing.assert_allclose(covariance, np.broadcast_to(np.eye(count), covariance.shape), atol=1e-4)
    np.testing.assert_allclose(x.mean[..., 0], frames.mean(-1), atol=1e-6)
    np.testing.assert_allclose(x.variance[..., 0], frames.var(-1), atol=1e-4)
    if count == span - 1:
        np.testing.assert_allclose(jnp.moveaxis(read_out(x, sources)[..., 0], 0, -1), frames, atol=1e-4)
        np.testing.assert_allclose(x.residual, 0, atol=1e-4)
    else:
        assert x.residual.mean() > 0.1


def test_what_varies_most_is_explained():
    beat = jnp.sin(2 * jnp.pi * jnp.arange(10) / 10)
    frames = 5 * normal(0, 1, 2, 8, 8, 1) * beat.reshape(1, 1, 1, 1, -1) + 0.1 * normal(1, 1, 2, 8, 8, 10)
    x, sources = unmix(frames, 1)
    found = sources[0, 0] / jnp.linalg.norm(sources[0, 0])
    assert abs(float(found @ beat) / float(jnp.linalg.norm(beat))) > 0.999
    assert x.residual.mean() < 0.02 * x.variance.mean()


def test_nothing_moves():
    still = jnp.repeat(normal(0, 2, 2, 8, 8, 1), 5, axis=-1)
    x, sources = unmix(still, 3)
    assert np.all(np.isfinite(sources))
    np.testing.assert_allclose(x.sources, 0, atol=1e-5)
    np.testing.assert_allclose(x.residual, 0, atol=1e-9)
    np.testing.assert_allclose(sources.sum(-1), 0, atol=1e-4)


def test_the_rotation_finds_independent_signals():
    time = np.arange(2000)
    signals = np.stack([np.sign(np.sin(0.1 * time)), (time % 37) / 18 - 1, np.random.default_rng(0).laplace(size=2000)])
    signals = (signals - signals.mean(1, keepdims=True)) / signals.std(1, keepdims=True)
    mixed = np.random.default_rng(1).standard_normal((3, 3)) @ signals
    values, vectors = np.linalg.eigh(mixed @ mixed.T / 2000)
    white = jnp.float32((vectors / np.sqrt(values)).T @ mixed)
    turn = rotation(white)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-5)
    agreement = np.abs(np.asarray(turn @ white) @ signals.T / 2000)
    np.testing.assert_allclose(np.sort(agreement.max(0)), 1, atol=0.05)
    assert sorted(agreement.argmax(0)) == [0, 1, 2]


def test_a_basis_without_mean():
    for span in (2, 3, 10):
        basis = zero_mean_basis(span)
        np.testing.assert_allclose(basis.T @ basis, np.eye(span - 1), atol=1e-6)
        np.testing.assert_allclose(basis.sum(0), 0, atol=1e-6)
