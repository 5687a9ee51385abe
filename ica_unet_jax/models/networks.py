"""Networks. Each is called with a frame between its neighbours and returns (outputs, aux); see `IcaUNet`.

Before and after it stand `config.reach` frames, one for most networks, as channels (B, d, h, w, reach).
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ica_unet_jax.config import Config, ModelConfig
from ica_unet_jax.models.baselines import ensemble_unet, grid_net, msu_net, omega_net, unet2d, unet3d
from ica_unet_jax.models.ica_unet import IcaUNet
from ica_unet_jax.models.losses import Term, total_loss

Loss = Callable[..., tuple[jax.Array, dict[str, jax.Array]]]  # called as `total_loss` is


def without_dice(*arguments: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Cross-entropy of all outputs."""
    *parts, config = arguments
    return total_loss(*parts, dataclasses.replace(config, dice_weight=0.0))


class Method(NamedTuple):
    """A published method.

    trained: (logits, aux) -> the outputs that the loss of all networks is taken of.
    own_terms: (logits, aux, labels, valid) -> {name: Term}, by which the network's further branches are trained.
    published: the loss of --published_loss in the place of the common one; the own terms are part of neither.
    cleaned: as published, answers to mirror images are averaged and the largest component of each structure is kept.
    prepare: what the network learns from the labelled frames before its training, if anything:
      (batch_stats, samples, crop) -> batch_stats.
    """

    network: type[nn.Module]
    trained: Callable[..., list[jax.Array]] = lambda logits, aux: logits
    own_terms: Callable[..., dict[str, Term]] = lambda logits, aux, labels, valid: {}
    published: Loss = total_loss
    cleaned: bool = False
    prepare: Callable[..., dict[str, Any]] = lambda batch_stats, samples, crop: batch_stats


METHODS = {
    "ica_unet": Method(IcaUNet),
    "unet2d": Method(unet2d.UNet2d),
    "unet3d": Method(unet3d.UNet3d, published=unet3d.loss),
    "ensemble_unet": Method(ensemble_unet.EnsembleUNet, ensemble_unet.members, published=ensemble_unet.loss, cleaned=True),
    "msu_net": Method(msu_net.MsuNet, published=without_dice),
    "grid_net": Method(grid_net.GridNet, own_terms=grid_net.own_terms, published=without_dice, prepare=grid_net.prepare),
    "omega_net": Method(omega_net.OmegaNet, own_terms=omega_net.own_terms, published=without_dice),
}


def make_loss(config: Config) -> Loss:
    """The loss of a training: the one that all networks share, or the published one, and the network's own terms."""
    method = METHODS[config.model.model]

    def loss(logits, aux, labels, frame, valid, settings):
        if config.loss.published_loss:
            value, terms = method.published(logits, aux, labels, frame, valid, settings)
        else:
            value, terms = total_loss(method.trained(logits, aux), aux, labels, frame, valid, settings)
        own = method.own_terms(logits, aux, labels, valid)
        value += sum(term.weight * term.value for term in own.values())
        return value, terms | {name: term.value for name, term in own.items()} | {"loss": value}

    return loss


def build_model(config: ModelConfig) -> nn.Module:
    """The network that `config.model` names."""
    return METHODS[config.model].network(config)


def init_variables(config: ModelConfig, key: jax.Array) -> dict[str, Any]:
    """Fresh {"params": ..., "batch_stats": ...} of the network; the latter is empty with group norm."""
    frame = jnp.zeros((1, *config.crop, 1))
    around = jnp.zeros((1, *config.crop, config.reach))
    variables = build_model(config).init(key, around, frame, around, jnp.ones_like(frame))
    return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}


def same_shapes(a: Any, b: Any) -> bool:
    """Whether two trees of arrays have the same structure and shapes."""
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        x.shape == y.shape for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )
