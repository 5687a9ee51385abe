"""Networks. Each is called with three frames and returns (outputs, aux); see `IcaUNet`."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ica_unet_jax.config import ModelConfig
from ica_unet_jax.models.baselines.unet2d import UNet2d
from ica_unet_jax.models.ica_unet import IcaUNet


def build_model(config: ModelConfig) -> nn.Module:
    """The network that `config.model` names."""
    return {"ica_unet": IcaUNet, "unet2d": UNet2d}[config.model](config)


def init_variables(config: ModelConfig, key: jax.Array) -> dict[str, Any]:
    """Fresh {"params": ..., "batch_stats": ...} of the network; the latter is empty with group norm."""
    frame = jnp.zeros((1, *config.crop, 1))
    variables = build_model(config).init(key, frame, frame, frame, jnp.ones_like(frame))
    return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}


def same_shapes(a: Any, b: Any) -> bool:
    """Whether two trees of arrays have the same structure and shapes."""
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        x.shape == y.shape for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )
