"""Builds the network that --model names. Each is called with a frame and its neighbours and returns (outputs, aux); see `IcaUNet`.

Before and after it stand `config.reach` frames, one for most networks, as channels (B, d, h, w, reach).
"""

import functools
import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ica_unet_jax.config import Config, ModelConfig
from ica_unet_jax.models import losses
from ica_unet_jax.models.registry import NETWORKS

Loss = Callable[..., tuple[jax.Array, dict[str, jax.Array]]]  # called as `losses.total_loss` is


class Method(NamedTuple):
    """The code that a row of the registry names; the functions are described there."""

    network: type[nn.Module]
    trained: Callable[..., list[jax.Array]]
    own_terms: Callable[..., dict[str, losses.Term]]
    published: Loss
    prepare: Callable[..., dict[str, Any]]


@functools.cache
def method(name: str) -> Method:
    """The network of that name; its file is imported on first use."""
    row = NETWORKS[name]
    module = importlib.import_module(f"ica_unet_jax.models.{row.module}")

    def found(function: str, otherwise: Callable[..., Any] | None = None) -> Callable[..., Any]:
        return getattr(module if hasattr(module, function) else losses, function) if function else otherwise

    return Method(
        network=found(row.network),
        trained=found(row.trained, lambda logits, aux: logits),
        own_terms=found(row.own_terms, lambda logits, aux, labels, valid: {}),
        published=found(row.published),
        prepare=found(row.prepare, lambda batch_stats, samples, crop: batch_stats),
    )


def make_loss(config: Config) -> Loss:
    """The loss of a training: the one that all networks share, or the published one, and the network's own terms."""
    chosen = method(config.model.model)

    def loss(logits, aux, labels, frame, valid, settings):
        if config.loss.published_loss:
            value, terms = chosen.published(logits, aux, labels, frame, valid, settings)
        else:
            value, terms = losses.total_loss(chosen.trained(logits, aux), aux, labels, frame, valid, settings)
        own = chosen.own_terms(logits, aux, labels, valid)
        value += sum(term.weight * term.value for term in own.values())
        return value, terms | {name: term.value for name, term in own.items()} | {"loss": value}

    return loss


def build_model(config: ModelConfig) -> nn.Module:
    """The network that `config.model` names."""
    return method(config.model).network(config)


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
