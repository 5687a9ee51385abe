"""Omega-Net (Vigneault et al., Medical Image Analysis 48, 2018): find the heart, turn it upright, look again.

A U-Net gives a coarse mask; its bottleneck tells the heart's pose: centre, angle and scale. A spatial transformer brings
the image into the canonical orientation, where the heart is in the middle and its right ventricle to the right; two fine
U-Nets in a row segment it there, and their masks are mapped back. Losses on coarse and fine masks and on the pose.

Ours: one pose for a whole stack; the centre as the mean place of a softmax, angle and scale from averaged features; the
first fine U-Net sees the coarse mask as well; losses in the image's own orientation; widths and weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ica_unet_jax.config import ModelConfig
from ica_unet_jax.data.sampling import bilinear
from ica_unet_jax.models.baselines.frame_network import Frame, FrameNetwork, Layers, Outputs
from ica_unet_jax.models.baselines.grid_net import mean_place
from ica_unet_jax.models.baselines.unet2d import u_net
from ica_unet_jax.models.layers import Conv, Volume
from ica_unet_jax.models.losses import Term
from ica_unet_jax.runtime.compilation import is_for_elsewhere

COARSE, FINE = (16, 32, 64, 128, 128), (32, 64, 128, 256)  # channels, from full size down
RADIUS = 0.2  # of a heart in the canonical image (root mean square distance of its pixels, in heights of the image)
POSE_WEIGHT = 1.0
BACKGROUND = 10.0  # its logit where the canonical image shows nothing


class Pose(NamedTuple):
    """centre (B, 2): row, column in -1 to 1; direction (B, 2) of the right ventricle, a unit vector; log_scale (B,)."""

    centre: jax.Array
    direction: jax.Array
    log_scale: jax.Array


class UNet(nn.Module):
    """A U-Net slice by slice: (B, d, h, w, c) -> logits (B, d, h, w, 4) and the features of its bottleneck."""

    config: ModelConfig
    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Volume, valid: Volume, train: bool) -> tuple[jax.Array, jax.Array]:
        widths = [self.config.channels(width) for width in self.widths]
        return u_net(x, widths, Layers.of(self.config, nn.relu, valid), train)


class OmegaNet(FrameNetwork):
    """Same call as `IcaUNet`. Outputs: the coarse logits and those of the fine U-Nets, all at full size; aux: `pose`."""

    @nn.compact
    def segment(self, frame: Frame, train: bool) -> Outputs:
        c = self.config
        coarse, bottom = UNet(c, COARSE)(frame.image, frame.valid, train)
        pose = self._pose(bottom, frame.valid)
        x = to_canonical(jnp.concatenate([frame.image, jax.nn.softmax(coarse)], axis=-1), pose)
        shown = (to_canonical(frame.valid, pose) > 0.5).astype(jnp.float32)
        outputs = [coarse]
        for _ in range(2):
            fine, _ = UNet(c, FINE)(x, shown, train)
            outputs.append(from_canonical(fine, pose))
            x = jnp.concatenate([x[..., :1], jax.nn.softmax(fine)], axis=-1)
        return outputs, {"pose": pose}

    def _pose(self, bottom: Volume, valid: Volume) -> Pose:
        """The pose of a stack from the bottleneck's features, slices without image left out."""
        dtype = jnp.dtype(self.config.compute_dtype)
        shown = valid.max((2, 3, 4))
        shown = (shown / jnp.maximum(shown.sum(1, keepdims=True), 1))[:, :, None, None, None]
        scores = Conv(1, 1, dtype=dtype, use_bias=False, name="centre")(bottom)
        centre = mean_place((scores.astype(jnp.float32) * shown).sum((1, 4)))
        x = (bottom.astype(jnp.float32) * shown).sum(1).mean((1, 2))
        x = nn.relu(nn.Dense(self.config.channels(64), name="hidden")(x))
        x = nn.Dense(3, name="angle_and_scale")(x)
        direction = x[:, :2] * jax.lax.rsqrt(jnp.square(x[:, :2]).sum(1, keepdims=True) + 1e-6)
        return Pose(centre, direction, jnp.tanh(x[:, 2]))


def to_canonical(x: jax.Array, pose: Pose) -> jax.Array:
    """(B, d, h, w, c) in the canonical orientation, on a grid of the same size; 0 outside the image."""
    h, w = x.shape[2:4]

    def one(volume: jax.Array, pose: Pose) -> jax.Array:
        down, right = _pixels(h, w)
        (sine, cosine), scale, (row, column) = pose.direction, jnp.exp(pose.log_scale), _in_pixels(pose.centre, h, w)
        rows = row + scale * (cosine * down + sine * right)
        columns = column + scale * (-sine * down + cosine * right)
        return _read(volume, rows, columns)

    return _each(one, x, pose)


def from_canonical(logits: jax.Array, pose: Pose) -> jax.Array:
    """Logits (B, d, h, w, 4) of the canonical image where its pixels come from; background beyond its borders."""
    h, w = logits.shape[2:4]

    def one(volume: jax.Array, pose: Pose) -> jax.Array:
        (sine, cosine), scale, (row, column) = pose.direction, jnp.exp(pose.log_scale), _in_pixels(pose.centre, h, w)
        down, right = jnp.arange(h)[:, None] - row, jnp.arange(w)[None] - column
        rows = (h - 1) / 2 + (cosine * down - sine * right) / scale
        columns = (w - 1) / 2 + (sine * down + cosine * right) / scale
        volume = jnp.concatenate([volume, jnp.ones((*volume.shape[:3], 1))], axis=-1)
        back = _read(volume, rows, columns)
        beyond = BACKGROUND * (1 - back[..., -1:])
        return jnp.concatenate([back[..., :1] + beyond, back[..., 1:-1]], axis=-1)

    return _each(one, logits, pose)


def _each(one: Callable[[jax.Array, Pose], jax.Array], volumes: jax.Array, poses: Pose) -> jax.Array:
    """`one` of each volume and its pose; elsewhere one after the other, as there is no gather in several axes."""
    if is_for_elsewhere():
        return jnp.stack([one(volume, Pose(*(x[i] for x in poses))) for i, volume in enumerate(volumes)])
    return jax.vmap(one)(volumes, poses)


def _read(volume: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Each plane of a volume (d, h, w, c) at the same places; at each of these once for all planes."""
    d, h, w, c = volume.shape
    found = bilinear(volume.transpose(1, 2, 0, 3).reshape(h, w, d * c), rows, columns)
    return found.reshape(h, w, d, c).transpose(2, 0, 1, 3)


def _pixels(h: int, w: int) -> tuple[jax.Array, jax.Array]:
    """Rows (h, 1) and columns (1, w) of a grid, from its middle."""
    return (jnp.arange(h) - (h - 1) / 2)[:, None], (jnp.arange(w) - (w - 1) / 2)[None]


def _in_pixels(centre: jax.Array, h: int, w: int) -> tuple[jax.Array, jax.Array]:
    return (h * (centre[0] + 1) - 1) / 2, (w * (centre[1] + 1) - 1) / 2


def true_pose(labels: jax.Array, valid: Volume) -> tuple[Pose, jax.Array, jax.Array]:
    """The pose of labelled hearts (B, d, h, w), and for each stack whether there is a heart and whether it has an angle.

    The direction leads from the mean place of myocardium and left cavity to that of the right cavity.
    """
    inside = valid[..., 0]
    h, w = labels.shape[2:]
    (row, column), mass = _mean_place((labels > 0) * inside)
    (right_row, right_column), right = _mean_place((labels == 1) * inside)
    (left_row, left_column), left = _mean_place((labels > 1) * inside)
    rows, columns = jnp.arange(h).reshape(1, 1, -1, 1), jnp.arange(w).reshape(1, 1, 1, -1)
    square = jnp.square(rows - row.reshape(-1, 1, 1, 1)) + jnp.square(columns - column.reshape(-1, 1, 1, 1))
    radius = jnp.sqrt((square * (labels > 0) * inside).sum((1, 2, 3)) / jnp.maximum(mass, 1) + 1e-6)
    direction = jnp.stack([right_row - left_row, right_column - left_column], axis=-1)
    length = jnp.sqrt(jnp.square(direction).sum(1) + 1e-6)
    centre = jnp.stack([(2 * row + 1) / h - 1, (2 * column + 1) / w - 1], axis=-1)
    has_heart = mass > 1
    pose = Pose(centre, direction / length[:, None], jnp.where(has_heart, jnp.clip(jnp.log(radius / (RADIUS * h)), -1, 1), 0.0))
    return pose, has_heart, (right > 0) & (left > 0) & (length > 1)


def _mean_place(mask: jax.Array) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    """Mean row and column (B,) of a mask (B, d, h, w), and its size (B,)."""
    mass = mask.sum((1, 2, 3))
    rows = mask.sum((1, 3)) @ jnp.arange(mask.shape[2], dtype=jnp.float32)
    columns = mask.sum((1, 2)) @ jnp.arange(mask.shape[3], dtype=jnp.float32)
    return (rows / jnp.maximum(mass, 1), columns / jnp.maximum(mass, 1)), mass


def own_terms(logits: list[jax.Array], aux: dict, labels: jax.Array, valid: jax.Array) -> dict[str, Term]:
    """The squared error of the pose."""
    truth, has_heart, has_angle = true_pose(labels, valid)
    error = has_heart * (
        jnp.square(aux["pose"].centre - truth.centre).sum(1)
        + has_angle * jnp.square(aux["pose"].direction - truth.direction).sum(1)
        + jnp.square(aux["pose"].log_scale - truth.log_scale)
    )
    return {"pose": Term(POSE_WEIGHT, error.mean())}
