"""GridNet with automatic shape prior registration (Zotti et al., STACOM 2017; IEEE JBHI 23, 2019).

A grid of resolutions and columns: a contracting column, a column of skips in which every resolution also hears of the
one above it, an expanding column. A branch at the bottom regresses the heart's centre of mass in each slice; there the
shape prior, the mean of the training masks round their centres, is placed as further maps before the last layers.
Loss: cross-entropy + contour + centre.

Ours: widths 32 to 256 over five resolutions; the centre as the mean place of a softmax over the bottom's pixels; a
prior for each of eight parts of a stack from its first to its last slice; weights of the loss's terms.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ica_unet_jax.data.learning_frame import LearningFrame
from ica_unet_jax.labels import NUM_CLASSES
from ica_unet_jax.models.baselines.frame_network import Frame, FrameNetwork, Layers, Outputs, pool
from ica_unet_jax.models.losses import Term

WIDTHS = (32, 64, 128, 256, 256)
PARTS = 8  # of a stack, each with its own prior
CONTOUR_WEIGHT, CENTRE_WEIGHT = 0.1, 1.0
FLOOR = 1e-2  # of a predicted contour in its logarithm


class GridNet(FrameNetwork):
    """Same call as `IcaUNet`. One output; aux holds the `centre` (B, d, 2) of each slice, rows and columns in -1 to 1."""

    @nn.compact
    def segment(self, frame: Frame, train: bool) -> Outputs:
        c, dtype = self.config, jnp.dtype(self.config.compute_dtype)
        layers = Layers.of(c, nn.relu, frame.valid)
        widths = [c.channels(width) for width in WIDTHS]
        x, contracting, skips = frame.image.astype(dtype), [], []
        for level, width in enumerate(widths):
            x = layers.stage(pool(x) if level else x, width, train)
            contracting.append(x)
        for level, width in enumerate(widths):
            above = [pool(skips[-1])] if level else []
            skips.append(layers.block(width)(jnp.concatenate([contracting[level], *above], axis=-1), train))
        centre = mean_place(layers.conv(1, kernel_size=1, use_bias=False)(skips[-1])[..., 0].astype(jnp.float32))
        x = skips.pop()
        for width, skip in zip(widths[-2::-1], reversed(skips), strict=True):
            x = layers.stage(jnp.concatenate([layers.upsample(width)(x), skip], axis=-1), width, train)
        prior = self.variable("batch_stats", "shape_prior", jnp.zeros, (PARTS, *c.crop[1:], NUM_CLASSES - 1)).value
        x = jnp.concatenate([x, place(prior, centre, frame.valid).astype(dtype)], axis=-1)
        logits = layers.conv(NUM_CLASSES, kernel_size=1)(layers.stage(x, widths[0], train))
        return [logits.astype(jnp.float32)], {"centre": centre}


def mean_place(scores: jax.Array) -> jax.Array:
    """Scores (.., h, w) -> the mean place (.., 2) under their softmax, row and column in -1 to 1."""
    *lead, h, w = scores.shape
    chances = jax.nn.softmax(scores.reshape(*lead, h * w)).reshape(scores.shape)
    return jnp.stack([chances.sum(-1) @ ticks(h), chances.sum(-2) @ ticks(w)], axis=-1)


def ticks(size: int) -> jax.Array:
    """Where the pixels of an axis lie that reaches from -1 to 1."""
    return (2 * jnp.arange(size) + 1) / size - 1


def place(prior: jax.Array, centre: jax.Array, valid: jax.Array) -> jax.Array:
    """The prior (PARTS, h, w, 3) round the centre of each slice: chances of all classes, (B, d, h, w, 4).

    A slice takes its part by its place among the slices that show the image, between two parts from both.
    """
    b, d, h, w, _ = valid.shape
    shown = valid.max((2, 3, 4))
    relative = (jnp.cumsum(shown, axis=1) - 0.5) / jnp.maximum(shown.sum(1, keepdims=True), 1)
    part = jnp.clip(relative * PARTS - 0.5, 0, PARTS - 1)
    of_slices = jnp.einsum("bdp,phwc->bdhwc", _near(part, PARTS), prior)
    # The prior's middle is pixel size / 2, the centre 0 half a pixel before it.
    rows, columns = (
        _near((jnp.arange(size) + 0.5).reshape(1, 1, -1) - size / 2 * centre[..., axis, None], size)
        for axis, size in enumerate((h, w))
    )
    structures = jnp.einsum("bdyi,bdijc,bdxj->bdyxc", rows, of_slices, columns)
    return jnp.concatenate([1 - structures.sum(-1, keepdims=True), structures], axis=-1)


def _near(position: jax.Array, size: int) -> jax.Array:
    """Positions (..) on an axis -> the weights (.., size) of linear interpolation; zero beyond its ends."""
    return jnp.maximum(0, 1 - jnp.abs(position[..., None] - jnp.arange(size, dtype=jnp.float32).reshape((1,) * position.ndim + (-1,))))


def prepare(batch_stats: dict, samples: Sequence[LearningFrame], crop: tuple[int, int, int]) -> dict:
    """The network's statistics with the shape prior of the training masks."""
    return {**batch_stats, "shape_prior": jnp.asarray(shape_prior(samples, crop))}


def shape_prior(samples: Sequence[LearningFrame], crop: tuple[int, int, int]) -> np.ndarray:
    """Mean masks (PARTS, h, w, 3) of the slices that show a heart, moved so that its centre of mass is in the middle."""
    _, h, w = crop
    total, count = np.zeros((PARTS, h, w, NUM_CLASSES - 1), np.float32), np.zeros(PARTS, np.float32)
    for sample in samples:
        slices = len(sample.labels)
        for z, labels in enumerate(sample.labels):
            if not labels.any():
                continue
            part = int((z + 0.5) * PARTS / slices)
            row, column = (int(round(x.mean())) for x in np.nonzero(labels))
            around = np.pad(labels, ((h, h), (w, w)))[row + h - h // 2 : row + h + h - h // 2, column + w - w // 2 : column + w + w - w // 2]
            total[part] += around[..., None] == np.arange(1, NUM_CLASSES)
            count[part] += 1
    return total / np.maximum(count, 1).reshape(-1, 1, 1, 1)


def own_terms(logits: list[jax.Array], aux: dict, labels: jax.Array, valid: jax.Array) -> dict[str, Term]:
    """Cross-entropy of the contours, and the squared distance of the centres."""
    one_hot = jax.nn.one_hot(labels, NUM_CLASSES, dtype=jnp.float32)
    chances = jax.nn.softmax(logits[-1])
    target = contours(one_hot * valid)
    contour = -(target * jnp.log(contours(chances * valid) + FLOOR)).sum() / jnp.maximum(target.sum(), 1)
    centre = centre_distance(aux["centre"], one_hot[..., 1:].sum(-1) * valid[..., 0])
    return {"contour": Term(CONTOUR_WEIGHT, contour), "centre": Term(CENTRE_WEIGHT, centre)}


def contours(chances: jax.Array) -> jax.Array:
    """What the erosion of each structure's mask (.., h, w, 4) by a 3x3 square takes away, (.., h, w, 3)."""
    x = chances[..., 1:]
    return x + nn.max_pool(-x, (1, 3, 3), (1, 1, 1), "SAME")


def centre_distance(centre: jax.Array, heart: jax.Array) -> jax.Array:
    """Mean squared distance (B, d, 2) from the centre of mass of the heart (B, d, h, w), over slices that show one."""
    mass = heart.sum((2, 3))
    rows, columns = heart.sum(3) @ ticks(heart.shape[2]), heart.sum(2) @ ticks(heart.shape[3])
    truth = jnp.stack([rows, columns], axis=-1) / jnp.maximum(mass, 1)[..., None]
    shown = (mass > 0).astype(jnp.float32)
    return (jnp.square(centre - truth).sum(-1) * shown).sum() / jnp.maximum(shown.sum(), 1)
