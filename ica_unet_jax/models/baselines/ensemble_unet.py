"""The ensemble of a 2D and a 3D U-Net (Isensee et al., STACOM 2017; public code MIC-DKFZ/ACDC2017).

Both: five resolutions, two convolutions a stage, norm, leaky ReLU, max pooling (1, 2, 2), nearest upsampling and
concatenation, dropout, and logits summed from three resolutions (deep supervision). The 2D network has 48 channels at
full size and sees slices; the 3D one has 26 and kernels over three slices. The answer is the mean of their softmaxes.

Each has its own loss, and no parameter in common with the other: trained in one step they learn what they would learn
alone, as long as gradients are not clipped by their common norm (--clip_norm=0). Published losses: soft Dice in 2D and
cross-entropy in 3D.

Left out: batch statistics and Monte-Carlo dropout at test time; instance norm stands for the first; a weight decay of
1e-5. One fold is trained. Its public code keeps the largest component of the whole heart, `--largest_component` that of
each structure.
"""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from ica_unet_jax.config import LossConfig
from ica_unet_jax.labels import NUM_CLASSES
from ica_unet_jax.models.averaging import mean_softmax
from ica_unet_jax.models.baselines.frame_network import Frame, FrameNetwork, Outputs, pool
from ica_unet_jax.models.baselines.volumetric import Conv3d, ConvNorm
from ica_unet_jax.models.layers import Dtype, Volume
from ica_unet_jax.models.losses import cross_entropy, soft_dice

STAGES = 5
DROPPED = (2, 3, 4)  # poolings followed by dropout; so are the first three concatenations


class IsenseeUNet(nn.Module):
    """One of the two: `depth` slices in a kernel, `width` channels at full size. (B, d, h, w, 1) -> logits (.., 4)."""

    depth: int
    width: int
    dropout: float
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Volume, train: bool, valid: Volume | None = None) -> jax.Array:
        drop = functools.partial(nn.Dropout(self.dropout), deterministic=not train)
        by_slice = self.depth == 1

        def stage(x: jax.Array, width: int) -> jax.Array:
            for _ in range(2):
                x = ConvNorm(width, self.depth, by_slice=by_slice, dtype=self.dtype)(x, valid)
            return x

        x, skips = stage(x, self.width), []
        for i in range(1, STAGES):
            skips.append(x)
            x = pool(x)
            x = stage(drop(x) if i in DROPPED else x, self.width * 2**i)
        logits = None
        for level in range(STAGES - 2, -1, -1):
            x = jnp.concatenate([enlarge(x), skips[level]], axis=-1)
            x = stage(drop(x) if level else x, self.width * 2**level)
            if level < 3:
                head = Conv3d(NUM_CLASSES, 1, 1, use_bias=True, dtype=self.dtype)(x)
                logits = head if logits is None else enlarge(logits) + head
        return logits.astype(jnp.float32)


class EnsembleUNet(FrameNetwork):
    """Same call as `IcaUNet`. The logits are logarithms of mean probabilities; aux holds those of `plane` and `volume`."""

    def setup(self):
        c, dtype = self.config, jnp.dtype(self.config.compute_dtype)
        self.plane = IsenseeUNet(1, c.channels(48), 0.3, dtype)
        self.volume = IsenseeUNet(3, c.channels(26), 0.5, dtype)

    def segment(self, frame: Frame, train: bool) -> Outputs:
        counted = frame.valid if self.config.masked_statistics else None
        members = {name: getattr(self, name)(frame.image, train, counted) for name in ("plane", "volume")}
        return [mean_softmax(list(members.values()))], members


def members(logits: list[jax.Array], aux: dict) -> list[jax.Array]:
    """What is trained: each of the two networks, not their mean."""
    return [aux["plane"], aux["volume"]]


def enlarge(x: jax.Array) -> jax.Array:
    """Nearest upsampling in the plane, (B, d, h, w, c) -> (B, d, 2h, 2w, c)."""
    return jnp.repeat(jnp.repeat(x, 2, axis=2), 2, axis=3)


def loss(
    logits: list[jax.Array], aux: dict, labels: jax.Array, frame: jax.Array, valid: jax.Array, config: LossConfig
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Soft Dice of the 2D network's four classes plus the 3D one's cross-entropy: the sum of two trainings' losses."""
    one_hot = jax.nn.one_hot(labels, NUM_CLASSES, dtype=jnp.float32)
    terms = {
        "soft_dice_plane": soft_dice(aux["plane"], one_hot, valid, background=True),
        "cross_entropy_volume": cross_entropy(aux["volume"], one_hot, valid[..., 0]),
    }
    value = sum(terms.values())
    return value, terms | {"loss": value}
