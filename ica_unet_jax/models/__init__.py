"""Networks. Each is called with three frames and returns (outputs, aux); see `IcaUNet`."""

import flax.linen as nn

from ica_unet_jax.config import ModelConfig
from ica_unet_jax.models.baselines.unet2d import UNet2d
from ica_unet_jax.models.ica_unet import IcaUNet


def build_model(config: ModelConfig) -> nn.Module:
    """The network that `config.model` names."""
    return {"ica_unet": IcaUNet, "unet2d": UNet2d}[config.model](config)
