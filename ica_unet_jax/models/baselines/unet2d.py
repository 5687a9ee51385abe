"""A plain 2D U-Net, slice by slice.

Four resolutions, `unet_width` channels at full size doubled at each of three poolings (16 to 128), two 3x3
convolutions a stage, batch norm, leaky ReLU, transposed convolutions, skips: 0.5 M parameters.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from ica_unet_jax.labels import NUM_CLASSES
from ica_unet_jax.models.baselines.frame_network import Frame, FrameNetwork, Layers, Outputs, pool
from ica_unet_jax.models.layers import leaky_relu

STAGES = 4


class UNet2d(FrameNetwork):
    """Same call as `IcaUNet`; there is one output, at full size."""

    @nn.compact
    def segment(self, frame: Frame, train: bool) -> Outputs:
        widths = [self.config.unet_width * 2**i for i in range(STAGES)]
        logits, _ = u_net(frame.image, widths, Layers.of(self.config, leaky_relu, frame.valid), train)
        return [logits], {}


def u_net(x: jax.Array, widths: Sequence[int], layers: Layers, train: bool) -> tuple[jax.Array, jax.Array]:
    """(B, d, h, w, c) -> logits (B, d, h, w, 4) float32, and the features of the lowest resolution.

    `widths` are the channels of the resolutions, from full size down. To be called inside a module, whose layers they are.
    """
    skips = []
    for width in widths[:-1]:
        x = layers.stage(x, width, train)
        skips.append(x)
        x = pool(x)
    bottom = x = layers.stage(x, widths[-1], train)
    for width, skip in zip(widths[-2::-1], reversed(skips), strict=True):
        x = layers.stage(jnp.concatenate([layers.upsample(width)(x), skip], axis=-1), width, train)
    return layers.conv(NUM_CLASSES, kernel_size=1)(x).astype(jnp.float32), bottom
