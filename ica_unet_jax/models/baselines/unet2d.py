"""A plain two-dimensional U-Net, slice by slice: the rival that a method claiming accuracy must reach.

Four resolutions, `unet_width` channels at full size doubled at each of three poolings (16 to 128), two 3x3
convolutions a stage, batch norm, leaky ReLU, transposed convolutions, skips: 0.5 M parameters.
"""

from __future__ import annotations

import functools

import flax.linen as nn
import jax.numpy as jnp

from ica_unet_jax.config import NUM_CLASSES
from ica_unet_jax.models.baselines.frame_network import Frame, FrameNetwork, Outputs
from ica_unet_jax.models.layers import Conv, ConvBlock, Norm, Upsample

STAGES = 4


class UNet2d(FrameNetwork):
    """Same call as `IcaUNet`; there is one output, at full size."""

    @nn.compact
    def segment(self, frame: Frame, train: bool) -> Outputs:
        dtype = jnp.dtype(self.config.compute_dtype)
        conv = functools.partial(Conv, dtype=dtype)
        block = functools.partial(ConvBlock, conv=conv, norm=functools.partial(Norm, kind=self.config.norm, dtype=dtype))
        widths = [self.config.unet_width * 2**i for i in range(STAGES)]

        def stage(x, width):
            return block(width)(block(width)(x, train), train)

        x, skips = frame.image.astype(dtype), []
        for width in widths[:-1]:
            x = stage(x, width)
            skips.append(x)
            x = nn.max_pool(x, (1, 2, 2), (1, 2, 2))
        x = stage(x, widths[-1])
        for width, skip in zip(widths[-2::-1], reversed(skips), strict=True):
            x = Upsample(width, dtype=dtype)(x)
            x = stage(jnp.concatenate([x, skip], axis=-1), width)
        return [conv(NUM_CLASSES, kernel_size=1)(x).astype(jnp.float32)], {}
