"""Networks. Each is called with a frame between its neighbours and returns (outputs, aux); see `IcaUNet`.

Before and after it stand `config.reach` frames, one for most networks, as channels (B, d, h, w, reach).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ica_unet_jax.config import ModelConfig
from ica_unet_jax.losses import total_loss
from ica_unet_jax.models.baselines import ensemble_unet, grid_net, msu_net, omega_net, unet2d, unet3d
from ica_unet_jax.models.ica_unet import IcaUNet


class Method(NamedTuple):
    """A published method.

    loss: called as `total_loss` is.
    prepare: what the network learns from the labelled frames before its training, if anything:
      (batch_stats, samples, crop) -> batch_stats.
    """

    network: type[nn.Module]
    loss: Callable[..., tuple[jax.Array, dict[str, jax.Array]]] = total_loss
    prepare: Callable[..., dict[str, Any]] = lambda batch_stats, samples, crop: batch_stats


METHODS = {
    "ica_unet": Method(IcaUNet),
    "unet2d": Method(unet2d.UNet2d),
    "unet3d": Method(unet3d.UNet3d, unet3d.loss),
    "ensemble_unet": Method(ensemble_unet.EnsembleUNet, ensemble_unet.loss),
    "msu_net": Method(msu_net.MsuNet, msu_net.loss),
    "grid_net": Method(grid_net.GridNet, grid_net.loss, grid_net.prepare),
    "omega_net": Method(omega_net.OmegaNet, omega_net.loss),
}


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
