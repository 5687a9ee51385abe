"""The paper's loss (Sect. 3): cross-entropy at n resolutions (Eq. 2) and the three ICA terms (Eq. 1) on frame t.

    L = sum_k alpha_k CE(y'_k, y_k) + beta L_ICA,
    L_ICA = lambda_s |X|_1 + lambda_i avg(-alpha log cosh(X / alpha)) + lambda_r |A_n (x) X - F|^2

Padded voxels count in no term that has voxels. "Basis" is one of the m kernels over its d * h/16 * w/16 * u values.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from ica_unet_jax.config import LossConfig
from ica_unet_jax.labels import NUM_CLASSES
from ica_unet_jax.metrics.ica import gaussian_log_cosh
from ica_unet_jax.models.mixing import Bases

Mask = Float[Array, "batch depth height width 1"]
Grid = tuple[int, int, int]


class Term(NamedTuple):
    """A term of a network's own, beside the loss that all networks share."""

    weight: float
    value: jax.Array


def total_loss(
    logits: list[jax.Array],
    aux: dict[str, Any],
    labels: Integer[Array, "batch depth height width"],
    frame: Float[Array, "batch depth height width 1"],
    valid: Mask,
    config: LossConfig,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The loss of a batch, and its terms by name (unweighted) with the scales of A and X.

    `logits` are coarse to fine. One of full size counts as the finest does; that is what networks have which segment several
    times. The ICA terms are those of a network with bases.
    """
    one_hot = jax.nn.one_hot(labels, NUM_CLASSES, dtype=jnp.float32)
    terms, loss = {}, jnp.zeros(())
    for k, y in enumerate(logits, start=1):
        full = y.shape[1:4] == labels.shape[1:]
        target, weight = rescale(one_hot, valid, y.shape[1:4])
        terms[f"cross_entropy_{k}"] = cross_entropy(y, target, weight)
        loss += (1.0 if full else config.auxiliary_weight) * terms[f"cross_entropy_{k}"]
        if config.dice_weight and full:
            name = "soft_dice" if k == len(logits) else f"soft_dice_{k}"
            terms[name] = soft_dice(y, one_hot, valid)
            loss += config.dice_weight * terms[name]
    if "bases" in aux:
        ica = ica_terms(aux["bases"], aux["reconstruction"], frame, valid, config)
        loss += sum(weights(config)[name] * value for name, value in ica.items())
        terms |= ica | {
            "scale_of_bases": jnp.abs(aux["bases"]).mean(),
            "scale_of_coefficients": jnp.abs(aux["coefficients"]).mean(),
        }
    return loss, terms | {"loss": loss}


def without_dice(*arguments: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`total_loss` without soft Dice."""
    *parts, config = arguments
    return total_loss(*parts, dataclasses.replace(config, dice_weight=0.0))


def weights(config: LossConfig) -> dict[str, float]:
    """What each ICA term is multiplied by in the loss: beta times its lambda."""
    factors = dict(
        sparsity=config.sparsity_weight, independence=config.independence_weight, reconstruction=config.reconstruction_weight
    )
    return {name: config.ica_weight * factor for name, factor in factors.items()}


def rescale(one_hot: jax.Array, valid: Mask, grid: Grid) -> tuple[jax.Array, jax.Array]:
    """Volume-averaged one-hot labels on a coarser grid, (B, *grid, 4), and the share of its voxels that is valid, (B, *grid)."""
    b, *sizes, _ = one_hot.shape
    (d, k), (h, i), (w, j) = ((new, old // new) for new, old in zip(grid, sizes, strict=True))

    def average(x: jax.Array) -> jax.Array:
        return x.reshape(b, d, k, h, i, w, j, -1).mean((2, 4, 6))

    share = average(valid)
    return average(one_hot * valid) / jnp.maximum(share, 1e-6), share[..., 0]


def cross_entropy(logits: jax.Array, target: jax.Array, weight: jax.Array) -> jax.Array:
    """Soft cross-entropy in nats, averaged with `weight` (valid area)."""
    logits = _classes(logits)
    total = _log_sum_exp(logits)
    entropy = sum(t * (total - y) for t, y in zip(_classes(target), logits, strict=True))
    return (entropy * weight).sum() / jnp.maximum(weight.sum(), 1e-6)


def soft_dice(
    logits: jax.Array, one_hot: jax.Array, valid: Mask, *, background: bool = False, by_sample: bool = False
) -> jax.Array:
    """1 - mean soft Dice of the three structures, with `background` of all four classes, over the whole batch or `by_sample`."""
    logits, valid = _classes(logits), valid[..., 0]
    total = _log_sum_exp(logits)
    axes = (1, 2, 3) if by_sample else (0, 1, 2, 3)
    scores = []
    for y, t in list(zip(logits, _classes(one_hot), strict=True))[0 if background else 1 :]:
        p, t = jnp.exp(y - total) * valid, t * valid
        scores.append((2 * (p * t).sum(axes) + 1) / (p.sum(axes) + t.sum(axes) + 1))
    return 1 - jnp.stack(scores).mean()


def _classes(x: jax.Array) -> list[jax.Array]:
    """An array for each class: with four values innermost a processor's vector units are hardly used."""
    return [x[..., i] for i in range(x.shape[-1])]


def _log_sum_exp(logits: list[jax.Array]) -> jax.Array:
    most = jax.lax.stop_gradient(functools.reduce(jnp.maximum, logits))
    return most + jnp.log(sum(jnp.exp(y - most) for y in logits))


def ica_terms(
    bases: Bases, reconstruction: jax.Array, frame: jax.Array, valid: Mask, config: LossConfig
) -> dict[str, jax.Array]:
    """The three terms of L_ICA, unweighted, reduced as `config.ica_reduction` says.

    `mean` takes the mean over values and voxels; `sum` is literal: the sum of |X| per sample, the average of the
    independence term, the sum of squares per sample. `reconstruction` is that of the frame, (B, d, h, w, 1). With
    `--independence=negentropy` the independence term is -(E[G(z)] - E[G(g)])^2 of each standardized basis z, averaged over the
    bases: G(z) = alpha log cosh(z / alpha), g a standard normal (Hyvarinen and Oja, Neural Networks 13, 2000, Eq. 25).
    """
    x = bases
    if config.standardize_bases:
        x = standardize(x)
    elif config.whiten_bases:
        x = whiten(x)
    error = jnp.square(reconstruction - frame) * valid
    batch = bases.shape[0]
    if config.ica_reduction == "mean":
        sparsity, reconstructed = jnp.abs(x).mean(), error.sum() / jnp.maximum(valid.sum(), 1)
    else:
        sparsity, reconstructed = jnp.abs(x).sum() / batch, error.sum() / batch
    alone = config.standardize_independence or config.independence == "negentropy"
    z = standardize(bases) if alone and not config.whiten_bases else x
    contrast = config.alpha * log_cosh(z / config.alpha)
    if config.independence == "negentropy":
        independence = -jnp.square(contrast.mean((1, 2, 3, 4)) - gaussian_log_cosh(config.alpha)).mean()
    else:
        independence = -contrast.mean()
    return {"sparsity": sparsity, "independence": independence, "reconstruction": reconstructed}


def log_cosh(z: jax.Array) -> jax.Array:
    """log cosh, finite with finite gradients for any float."""
    magnitude = jnp.abs(z)
    return magnitude + jnp.log1p(jnp.exp(-2 * magnitude)) - jnp.log(2.0)


def standardize(bases: Bases) -> Bases:
    """Zero mean and unit variance of each basis of each sample."""
    axes = (1, 2, 3, 4)
    centred = bases - bases.mean(axes, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.square(centred).mean(axes, keepdims=True) + 1e-6)


def whiten(bases: Bases) -> Bases:
    """Zero mean, unit variance, and decorrelated across the m bases (symmetric, as FastICA: C^(-1/2))."""
    x = standardize(bases)
    flat = x.reshape(x.shape[0], -1, x.shape[-1])
    m = x.shape[-1]
    covariance = jnp.einsum("bnm,bnk->bmk", flat, flat) / flat.shape[1] + 1e-3 * jnp.eye(m)[None]
    return jnp.einsum("bnm,bmk->bnk", flat, _inverse_square_root(covariance)).reshape(x.shape)


def _inverse_square_root(matrix: jax.Array) -> jax.Array:
    """C^(-1/2) by Newton-Schulz: products alone, so the gradient stays finite where eigenvalues coincide."""
    identity = jnp.eye(matrix.shape[-1])[None]
    norm = jnp.sqrt(jnp.square(matrix).sum((1, 2), keepdims=True))
    y, z = matrix / norm, jnp.broadcast_to(identity, matrix.shape)
    for _ in range(20):
        t = 1.5 * identity - 0.5 * z @ y
        y, z = y @ t, t @ z
    return z / jnp.sqrt(norm)
