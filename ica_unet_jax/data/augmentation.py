"""Augmentation on the device, inside jit: one warp for the frames, their labels and the mask.

Each sample of a batch is (n, d, H, W), a frame in the middle of its neighbours, on a canvas wider than the model's grid; the
result is on the grid. The warp of a slice is affine plus elastic plus its own shift, read off the canvas by bilinear
interpolation in the plane.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from ica_unet_jax.config import DataConfig
from ica_unet_jax.data.sampling import bilinear
from ica_unet_jax.labels import NUM_CLASSES, UNLABELLED
from ica_unet_jax.runtime.compilation import once

ELASTIC_GRID = 4  # control points per side, of a bias field too


class Batch(NamedTuple):
    """Training samples. On the canvas as read, on the model's grid after `augment` or `crop_centre`."""

    frames: Float[Array, "batch n d h w"]  # in time; the labels are those of the middle one
    labels: UInt8[Array, "batch d h w"]  # UNLABELLED all over a sample without ground truth
    valid: Float[Array, "batch d h w"]

    def parts(self, reach: int) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        """What a network is called with: `reach` frames before the middle ones, these, as many after, and the mask."""
        frames, middle = jnp.moveaxis(self.frames, 1, -1), self.frames.shape[1] // 2
        before, after = frames[..., middle - reach : middle], frames[..., middle + 1 : middle + 1 + reach]
        return before, frames[..., middle : middle + 1], after, self.valid[..., None]


def augment(key: jax.Array, batch: Batch, crop: tuple[int, int, int], config: DataConfig) -> Batch:
    """A randomly warped and recoloured batch on the grid `crop`; the same key gives the same batch."""
    keys = jax.random.split(key, batch.frames.shape[0])
    return jax.vmap(lambda k, b: _augment_one(k, b, crop, config))(keys, batch)


def crop_centre(batch: Batch, crop: tuple[int, int, int]) -> Batch:
    """The canvas without its margin: what `augment` gives when nothing is drawn."""
    _, h, w = crop
    top, left = (batch.labels.shape[-2] - h) // 2, (batch.labels.shape[-1] - w) // 2
    return jax.tree.map(lambda x: x[..., top : top + h, left : left + w], batch)


def _augment_one(key: jax.Array, sample: Batch, crop: tuple[int, int, int], config: DataConfig) -> Batch:
    if config.flip_slices:
        sample = _flip_slices(jax.random.fold_in(key, 4), sample)
    if config.missing_slice:
        sample = _lose_a_slice(jax.random.fold_in(key, 5), sample, config.missing_slice)
    if config.thin_stack:
        sample = _cut_stack(jax.random.fold_in(key, 6), sample, config.thin_stack)
    if config.depth_shift:
        sample = _shift_depth(jax.random.fold_in(key, 3), sample, config.depth_shift)
    warp_key, colour_key, drop_key = jax.random.split(key, 3)
    # Once, not anew for each of the values that are read there.
    rows, columns = once(_coordinates(warp_key, sample.labels.shape, crop, config))
    count = sample.frames.shape[0]
    middle = count // 2
    one_hot = jax.nn.one_hot(sample.labels, NUM_CLASSES, dtype=jnp.float32)
    channels = jnp.concatenate([sample.frames.transpose(1, 2, 3, 0), one_hot, sample.valid[..., None]], axis=-1)
    warped = once(jax.vmap(bilinear)(once(channels), rows, columns))
    # A voxel counts only where all that it was read from is image.
    valid = (warped[..., -1] > 0.999).astype(jnp.float32)
    labels = warped[..., count:-1].argmax(-1).astype(jnp.uint8)
    labels = jnp.where((sample.labels == UNLABELLED).any(), jnp.uint8(UNLABELLED), labels)
    frames = _disturb(jax.random.fold_in(key, 7), warped[..., :count].transpose(3, 0, 1, 2), config)
    frames = once(_recolour(colour_key, frames, config) * valid[None])
    if config.drop_neighbour:
        dropped = jax.random.bernoulli(drop_key, config.drop_neighbour, (2,))
        sides = [None if i == middle else dropped[int(i > middle)] for i in range(count)]
        frames = jnp.stack([x if side is None else jnp.where(side, frames[middle], x) for side, x in zip(sides, frames, strict=True)])
    return Batch(frames, labels * (valid > 0), valid)


def _flip_slices(key: jax.Array, sample: Batch) -> Batch:
    """The stack as it is or from its other end, in the same place of the grid: padding in front stays as it was."""
    shown = sample.valid.any(axis=(-2, -1))
    front, behind = shown.argmax(), shown[::-1].argmax()
    flipped = jax.tree.map(lambda x: jnp.roll(jnp.flip(x, -3), front - behind, -3), sample)
    flip = jax.random.bernoulli(key)
    return jax.tree.map(lambda x, y: jnp.where(flip, y, x), sample, flipped)


def _lose_a_slice(key: jax.Array, sample: Batch, probability: float) -> Batch:
    """Perhaps one slice of the stack is gone, unless it is the only one, and those behind it move up; what is left behind them is padding."""
    drawn, which = jax.random.split(key)
    shown = sample.valid.any(axis=(-2, -1))
    lost = jax.random.categorical(which, jnp.where(shown, 0.0, -jnp.inf))
    depth = shown.size
    lost = jnp.where(jax.random.bernoulli(drawn, probability) & (shown.sum() > 1), lost, depth)
    from_slice = jnp.arange(depth) + (jnp.arange(depth) >= lost)
    return jax.tree.map(lambda x: jnp.take(x, from_slice, axis=-3, mode="fill", fill_value=0), sample)


def _cut_stack(key: jax.Array, sample: Batch, probability: float) -> Batch:
    """Perhaps a run of the stack's slices alone is there, at least one; the others are padding."""
    drawn, length, place = jax.random.split(key, 3)
    shown = sample.valid.any(axis=(-2, -1))
    count = shown.sum()
    kept = jnp.where(jax.random.bernoulli(drawn, probability), jax.random.randint(length, (), 1, count + 1), count)
    first = shown.argmax() + jax.random.randint(place, (), 0, count - kept + 1)
    number = jnp.arange(shown.size)[:, None, None]
    there = (number >= first) & (number < first + kept)
    return jax.tree.map(lambda x: jnp.where(there, x, 0).astype(x.dtype), sample)


def _shift_depth(key: jax.Array, sample: Batch, most: int) -> Batch:
    """The stack moved through the grid by -most ... most slices; what leaves is lost, but one slice stays; what comes in is padding.

    Which slices make a pair, and where in the grid they lie, is then no property of a patient.
    """
    shown = sample.valid.any(axis=(-2, -1))
    first, last = shown.argmax(), shown.size - 1 - shown[::-1].argmax()
    start = jax.random.randint(key, (), 0, 2 * most + 1)  # the stack moves by most - start
    start = jnp.clip(start, most + first - (shown.size - 1), most + last)

    def move(x: jax.Array) -> jax.Array:
        depth = x.ndim - 3
        widths = [(most, most) if axis == depth else (0, 0) for axis in range(x.ndim)]
        return jax.lax.dynamic_slice_in_dim(jnp.pad(x, widths), start, x.shape[depth], depth)

    return jax.tree.map(move, sample)


def _coordinates(key: jax.Array, shape: tuple[int, int, int], crop: tuple[int, int, int], config: DataConfig):
    """Where each voxel of the grid is read on the canvas: rows and columns, each (d, h, w)."""
    d, height, width = shape
    _, h, w = crop
    k = jax.random.split(key, 6)
    angle = jnp.deg2rad(jax.random.uniform(k[0], minval=-config.rotation, maxval=config.rotation))
    scale = jax.random.uniform(k[1], (2,), minval=1 - config.scaling, maxval=1 + config.scaling)
    # Mostly isotropic, a fifth of the range apart in the two axes.
    scale = scale[0] * (1 + 0.2 * (scale[1] - 1) * jnp.array([1.0, -1.0]))
    offset = jax.random.uniform(k[2], (2,), minval=-config.shift, maxval=config.shift)
    slices = config.slice_shift * jax.random.normal(k[3], (2, d, 1, 1))
    bend = config.elastic * jax.random.normal(k[4], (2, ELASTIC_GRID, ELASTIC_GRID))
    bend = jax.image.resize(bend, (2, h, w), "cubic")
    y = (jnp.arange(h) - (h - 1) / 2)[:, None] / scale[0]
    x = (jnp.arange(w) - (w - 1) / 2)[None, :] / scale[1]
    if config.flip:
        signs = jnp.where(jax.random.bernoulli(k[5], shape=(2,)), -1.0, 1.0)
        y, x = y * signs[0], x * signs[1]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    rows = cos * y - sin * x + bend[0] + offset[0] + (height - 1) / 2
    columns = sin * y + cos * x + bend[1] + offset[1] + (width - 1) / 2
    return rows[None] + slices[0], columns[None] + slices[1]


def _disturb(key: jax.Array, frames: jax.Array, config: DataConfig) -> jax.Array:
    """What coils, a moving chest, a spark and coarse voxels do to z-scored frames (n, d, h, w), the same in all; each in a share of the samples."""
    k = jax.random.split(key, 8)
    h, w = frames.shape[-2:]
    blurred, shaded, ghostly, striped = (_happens(jax.random.fold_in(key, 8 + kind), config) for kind in range(4))
    if config.blur:
        padded = jnp.pad(frames, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
        mean = sum(padded[..., i : i + h, j : j + w] for i in range(3) for j in range(3)) / 9
        frames += blurred * jax.random.uniform(k[0], maxval=config.blur) * (mean - frames)
    if config.bias_field:
        field = shaded * config.bias_field * jax.random.normal(k[1], (ELASTIC_GRID, ELASTIC_GRID))
        low = frames.min()  # air, which no coil makes brighter
        frames = (frames - low) * jnp.exp(jax.image.resize(field, (h, w), "cubic"))[None, None] + low
    if config.ghosting:
        apart = jax.random.randint(k[2], (), 2, 5)  # ghosts in a field of view
        along = [jnp.roll(frames, size // apart, axis) for axis, size in ((-2, h), (-1, w))]
        ghost = jnp.where(jax.random.bernoulli(k[3]), *along)
        frames += ghostly * jax.random.uniform(k[4], maxval=config.ghosting) * ghost
    if config.spike:
        waves = jax.random.uniform(k[5], (2,), minval=-0.25, maxval=0.25)  # a voxel
        phase = 2 * jnp.pi * jax.random.uniform(k[6])
        angle = 2 * jnp.pi * (waves[0] * jnp.arange(h)[:, None] + waves[1] * jnp.arange(w)[None]) + phase
        frames += striped * jax.random.uniform(k[7], maxval=config.spike) * jnp.cos(angle)[None, None]
    return frames


def _happens(key: jax.Array, config: DataConfig) -> jax.Array | float:
    """1 in a share --damage of the samples, else 0."""
    return 1.0 if config.damage == 1 else jax.random.bernoulli(key, config.damage).astype(jnp.float32)


def _recolour(key: jax.Array, frames: jax.Array, config: DataConfig) -> jax.Array:
    """Gamma, contrast and offset of z-scored frames, the same for all; noise of its own in each."""
    k = jax.random.split(key, 5)
    if config.gamma:
        low, high = frames.min(), frames.max()
        span = jnp.maximum(high - low, 1e-6)
        power = jnp.exp(jax.random.uniform(k[0], minval=-config.gamma, maxval=config.gamma))
        frames = jnp.power(jnp.clip((frames - low) / span, 1e-6, 1), power) * span + low
    contrast = jnp.exp(config.brightness * jax.random.normal(k[1]))
    frames = frames * contrast + config.brightness * jax.random.normal(k[2])
    if config.noise:
        strength = _happens(jax.random.fold_in(key, 5), config) * jax.random.uniform(k[3], maxval=config.noise)
        frames = frames + strength * jax.random.normal(k[4], frames.shape)
    return frames
