"""The paper's loss (Sect. 2.3): cross-entropy at n resolutions and the three ICA terms on frame t.

    L = sum_k alpha_k CE(y'_k, y_k) + beta L_ICA,
    L_ICA = lambda_s |X|_1 + lambda_i avg(-alpha log cosh(X / alpha)) + lambda_r |A_n (x) X - F|^2

Padded voxels count in no term that has voxels. "Basis" is one of the m kernels over its d * h/16 * w/16 * u values.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from ica_unet_jax.config import NUM_CLASSES, LossConfig

Bases = Float[Array, "batch depth K L u m"]
Mask = Float[Array, "batch depth height width 1"]


def total_loss(
    logits: list[jax.Array],
    aux: dict[str, jax.Array],
    labels: Integer[Array, "batch depth height width"],
    frame: Float[Array, "batch depth height width 1"],
    valid: Mask,
    config: LossConfig,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The loss of a batch, and its terms by name (unweighted) with the scales of A and X."""
    one_hot = jax.nn.one_hot(labels, NUM_CLASSES, dtype=jnp.float32)
    terms, loss = {}, jnp.zeros(())
    for k, y in enumerate(logits, start=1):
        target, weight = rescale(one_hot, valid, y.shape[2:4])
        terms[f"cross_entropy_{k}"] = cross_entropy(y, target, weight)
        loss += (1.0 if k == len(logits) else config.auxiliary_weight) * terms[f"cross_entropy_{k}"]
    if config.dice_weight:
        terms["soft_dice"] = soft_dice(logits[-1], one_hot, valid)
        loss += config.dice_weight * terms["soft_dice"]
    if aux:
        ica = ica_terms(aux["bases"], aux["reconstruction"], frame, valid, config)
        weights = {
            "sparsity": config.sparsity_weight,
            "independence": config.independence_weight,
            "reconstruction": config.reconstruction_weight,
        }
        loss += config.ica_weight * sum(weights[name] * value for name, value in ica.items())
        terms |= ica | {
            "scale_of_bases": jnp.abs(aux["bases"]).mean(),
            "scale_of_coefficients": jnp.abs(aux["coefficients"]).mean(),
        }
    return loss, terms | {"loss": loss}


def rescale(one_hot: jax.Array, valid: Mask, size: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
    """Area-averaged one-hot labels at a coarser size, (B, d, *size, 4), and the share of valid area, (B, d, *size)."""
    b, d, h, w, c = one_hot.shape
    rows, columns = h // size[0], w // size[1]

    def average(x: jax.Array) -> jax.Array:
        return x.reshape(b, d, size[0], rows, size[1], columns, -1).mean((3, 5))

    share = average(valid)
    return average(one_hot * valid) / jnp.maximum(share, 1e-6), share[..., 0]


def cross_entropy(logits: jax.Array, target: jax.Array, weight: jax.Array) -> jax.Array:
    """Soft cross-entropy in nats, averaged with `weight` (valid area)."""
    entropy = -(target * jax.nn.log_softmax(logits)).sum(-1)
    return (entropy * weight).sum() / jnp.maximum(weight.sum(), 1e-6)


def soft_dice(logits: jax.Array, one_hot: jax.Array, valid: Mask, *, background: bool = False) -> jax.Array:
    """1 - mean soft Dice of the three structures, with `background` of all four classes, over the whole batch."""
    first = 0 if background else 1
    p = jax.nn.softmax(logits)[..., first:] * valid
    t = one_hot[..., first:] * valid
    axes = (0, 1, 2, 3)
    return 1 - ((2 * (p * t).sum(axes) + 1) / (p.sum(axes) + t.sum(axes) + 1)).mean()


def ica_terms(
    bases: Bases, reconstruction: jax.Array, frame: jax.Array, valid: Mask, config: LossConfig
) -> dict[str, jax.Array]:
    """The three terms of L_ICA, unweighted, reduced as `config.ica_reduction` says.

    `mean` takes the mean over values and voxels; `sum` is literal: the sum of |X| per sample, the average of the
    independence term, the sum of squares per sample. `reconstruction` is that of the frame, (B, d, h, w, 1).
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
    independence = -config.alpha * log_cosh(x / config.alpha).mean()
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
