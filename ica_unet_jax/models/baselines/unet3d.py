"""The plain 3D U-Net of nnU-Net (Isensee et al., Nature Methods 18, 2021), planned for this grid as nnU-Net plans.

Two 3x3x3 convolutions a stage, instance norm, leaky ReLU, strides instead of poolings, transposed convolutions, 32
channels doubled to at most 320, deep supervision. An axis takes part in kernels and strides once its voxels are less
than twice as long as the shortest, so the first stages are in-plane. A stage of the expanding path has the kernel of its
own resolution, as in nnU-Net; with --expanding_kernels=below that of the stage below it, as in MONAI's `DynUNet`.
Published loss: Dice of each sample + cross-entropy at all resolutions but the lowest.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ica_unet_jax.config import LossConfig
from ica_unet_jax.labels import NUM_CLASSES
from ica_unet_jax.models.baselines.frame_network import Frame, FrameNetwork, Outputs
from ica_unet_jax.models.baselines.volumetric import Conv3d, ConvNorm, Strides
from ica_unet_jax.models.layers import Upsample3d
from ica_unet_jax.models.losses import cross_entropy, soft_dice

WIDTH, WIDEST = 32, 320
SMALLEST = 4  # no axis becomes shorter


class Stage(NamedTuple):
    """A resolution: slices of its kernels, and the strides that lead to it."""

    depth: int
    strides: Strides


def plan(crop: tuple[int, int, int], anisotropy: float) -> list[Stage]:
    """The stages for a grid (d, h, w) whose slices lie `anisotropy` in-plane voxels apart, fine to coarse.

    nnU-Net's rule; ours: rows and columns are halved together, and only where no voxel is left over.
    """
    size, spacing = list(crop), [anisotropy, 1.0, 1.0]
    stages, strides, depth = [], (1, 1), 1
    while True:
        room = [n >= 2 * SMALLEST and n % 2 == 0 for n in size]
        if not (room[1] and room[2]):
            break
        if spacing[0] < 2 * min(spacing):
            depth = 3
        stages.append(Stage(depth, strides))
        strides = (2 if room[0] and spacing[0] < 2 * spacing[1] else 1, 2)
        for axis, stride in enumerate((strides[0], 2, 2)):
            size[axis] //= stride
            spacing[axis] *= stride
    return [*stages, Stage(3, strides)]


class UNet3d(FrameNetwork):
    """Same call as `IcaUNet`. Logits of every stage of the expanding path but the coarsest, each at its own size.

    On (10, 192, 192), 6.5 in-plane voxels between slices: six stages of 192 to 6 rows, kernels in-plane in the first
    two, depth halved once.
    """

    @nn.compact
    def segment(self, frame: Frame, train: bool) -> Outputs:
        c, dtype = self.config, jnp.dtype(self.config.compute_dtype)
        stages = plan(c.crop, c.anisotropy)
        widths = [c.channels(min(WIDTH * 2**i, WIDEST)) for i in range(len(stages))]

        counted = frame.valid if c.masked_statistics else None

        def pair(x: jax.Array, width: int, depth: int, strides: Strides = (1, 1)) -> jax.Array:
            x = ConvNorm(width, depth, strides, dtype=dtype)(x, counted)
            return ConvNorm(width, depth, dtype=dtype)(x, counted)

        x, skips = frame.image.astype(dtype), []
        for width, stage in zip(widths, stages, strict=True):
            x = pair(x, width, stage.depth, stage.strides)
            skips.append(x)
        logits = []
        for level in range(len(stages) - 2, -1, -1):
            below = stages[level + 1]
            x = Upsample3d(widths[level], below.strides, dtype)(x)
            depth = (stages[level] if c.expanding_kernels == "own" else below).depth
            x = pair(jnp.concatenate([x, skips[level]], axis=-1), widths[level], depth)
            if level < max(1, len(stages) - 2):
                name = f"auxiliary_{level}" if level else "logits"
                head = Conv3d(NUM_CLASSES, 1, 1, use_bias=True, dtype=dtype, name=name)
                logits.append(head(x).astype(jnp.float32))
        return logits, {}


def loss(
    logits: list[jax.Array], aux: dict, labels: jax.Array, frame: jax.Array, valid: jax.Array, config: LossConfig
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """nnU-Net's: Dice + cross-entropy at each resolution, half the weight at half the size, weights of sum 1.

    Labels of a coarser grid are those nearest its voxels' centres.
    """
    weights = [2.0 ** -(len(logits) - 1 - k) for k in range(len(logits))]
    terms, value = {}, jnp.zeros(())
    for k, (y, weight) in enumerate(zip(logits, weights, strict=True), start=1):
        steps = [full // size for full, size in zip(labels.shape[1:], y.shape[1:4], strict=True)]
        z, row, column = (slice(step // 2, None, step) for step in steps)
        target = jax.nn.one_hot(labels[:, z, row, column], NUM_CLASSES, dtype=jnp.float32)
        inside = valid[:, z, row, column]
        terms[f"cross_entropy_{k}"] = cross_entropy(y, target, inside[..., 0])
        terms[f"soft_dice_{k}"] = soft_dice(y, target, inside, by_sample=True)
        value += weight / sum(weights) * (terms[f"cross_entropy_{k}"] + terms[f"soft_dice_{k}"])
    return value, terms | {"loss": value}
