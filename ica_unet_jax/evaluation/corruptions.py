"""What goes wrong with a cine on its way here, done to one that is right: `CORRUPTIONS`, each a function of a cine and a seed.

Images and labels are changed together where the place of things changes. The affine stays: who stores a stack mirrored rarely says so in it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from scipy import ndimage

from ica_unet_jax.data.case import Cine
from ica_unet_jax.data.geometry import interpolation, resample

Volumes = np.ndarray  # (..., s, h, w)
Corruption = Callable[[Cine, np.random.Generator], Cine]

_FIELD_POINTS = 4  # of a bias field, per side


def moved(change: Callable[[Volumes], Volumes], sizes: Callable[[tuple], tuple] = tuple) -> Corruption:
    """Voxels in other places: `change` of the images and of the labels, `sizes` of the spacing (dz, dy, dx)."""

    def corrupt(cine: Cine, random: np.random.Generator) -> Cine:
        labels = {time: np.ascontiguousarray(change(volume)) for time, volume in cine.labels.items()}
        return dataclasses.replace(cine, frames=np.ascontiguousarray(change(cine.frames)), labels=labels, spacing=sizes(cine.spacing))

    return corrupt


def coloured(change: Callable[[Volumes, np.random.Generator], Volumes]) -> Corruption:
    """Other grey values: `change` of the images, which it is given from 0 (their smallest value) to about 1 (their 99.5th percentile)."""

    def corrupt(cine: Cine, random: np.random.Generator) -> Cine:
        low, high = cine.frames.min(), np.percentile(cine.frames, 99.5)
        span = max(float(high - low), 1e-6)
        frames = change((cine.frames - low) / span, random) * span + low
        return dataclasses.replace(cine, frames=frames.astype(np.float32))

    return corrupt


def turned(quarters: int) -> Corruption:
    """Turned in the plane by a number of quarters."""
    return moved(lambda x: np.rot90(x, quarters, (-2, -1)), lambda size: (size[0], *(size[1:] if quarters % 2 == 0 else size[:0:-1])))


def every(step: int, first: int = 0) -> Corruption:
    """Each `step`-th slice is missing, from `first`; the header does not know."""

    def keep(x: Volumes) -> Volumes:
        return np.delete(x, np.s_[first::step], axis=-3) if x.shape[-3] > first + 1 else x

    return moved(keep)


def middle(count: int) -> Corruption:
    """The `count` slices in the middle of the stack alone."""

    def keep(x: Volumes) -> Volumes:
        first = max(0, (x.shape[-3] - count) // 2)
        return x[..., first : first + count, :, :]

    return moved(keep)


def twice(cine: Cine, random: np.random.Generator) -> Cine:
    """A stack of twice as many slices, of half the distance: each slice two times."""
    return moved(lambda x: np.repeat(x, 2, axis=-3), lambda size: (size[0] / 2, *size[1:]))(cine, random)


def sampled(mm: float) -> Corruption:
    """Voxels of another size in the plane; labels are those of the nearest voxel."""

    def corrupt(cine: Cine, random: np.random.Generator) -> Cine:
        steps = [mm / size for size in cine.spacing[1:]]
        sizes = [max(1, round(length / step)) for length, step in zip(cine.frames.shape[-2:], steps, strict=True)]

        def matrices(order: int) -> list[np.ndarray]:
            return [interpolation(length, size, step, order=order) for length, size, step in zip(cine.frames.shape[-2:], sizes, steps, strict=True)]

        labels = {time: resample(volume.astype(np.float32), *matrices(0)).astype(np.uint8) for time, volume in cine.labels.items()}
        smooth = [0 if step <= 1 else step / 2.355 for step in steps]  # a coarse voxel is the mean over its size
        frames = ndimage.gaussian_filter(cine.frames, (0, 0, *smooth))
        return dataclasses.replace(cine, frames=resample(frames, *matrices(1)), labels=labels, spacing=(cine.spacing[0], mm, mm))

    return corrupt


def breathing(mm: float) -> Corruption:
    """Slices taken at different depths of breath: each is shifted in the plane, by `mm` in standard deviation, its labels too."""

    def corrupt(cine: Cine, random: np.random.Generator) -> Cine:
        shifts = [[round(float(x)) for x in random.normal(0, mm, 2) / cine.spacing[1:]] for _ in range(cine.frames.shape[1])]

        def shift(x: Volumes) -> Volumes:
            return np.stack([np.roll(x[..., z, :, :], by, (-2, -1)) for z, by in enumerate(shifts)], axis=-3)

        return moved(shift)(cine, random)

    return corrupt


def bias_field(strength: float) -> Corruption:
    """Brightness that differs smoothly over the plane, as that of surface coils; `strength` is the standard deviation of its logarithm."""

    def change(x: Volumes, random: np.random.Generator) -> Volumes:
        points = random.normal(0, strength, (_FIELD_POINTS, _FIELD_POINTS))
        field = ndimage.zoom(points, [size / _FIELD_POINTS for size in x.shape[-2:]], order=3, grid_mode=True, mode="nearest")
        return x * np.exp(field)

    return coloured(change)


def gamma(power: float) -> Corruption:
    """Another curve of grey values: darker above 1, brighter below."""
    return coloured(lambda x, random: np.clip(x, 0, None) ** power)


def noise(deviation: float) -> Corruption:
    """The magnitude of complex noise, of this standard deviation where the brightest tissue is 1."""
    return coloured(lambda x, random: np.hypot(x + random.normal(0, deviation, x.shape), random.normal(0, deviation, x.shape)))


def ghosting(share: float) -> Corruption:
    """A ghost of a moving chest: the frame, shifted by half the field of view along its rows, `share` as bright, over it."""
    return coloured(lambda x, random: x + share * np.roll(x, x.shape[-2] // 2, axis=-2))


def spike(height: float) -> Corruption:
    """Stripes of one spark in k-space over each frame, `height` at their strongest."""

    def change(x: Volumes, random: np.random.Generator) -> Volumes:
        rows, columns = random.uniform(-0.2, 0.2, 2)
        row, column = np.indices(x.shape[-2:])
        return np.abs(x + height * np.cos(2 * np.pi * (rows * row + columns * column + random.uniform())))

    return coloured(change)


ORIENTATIONS: dict[str, Corruption] = {
    "mirrored left to right": moved(lambda x: x[..., ::-1]),
    "mirrored top to bottom": moved(lambda x: x[..., ::-1, :]),
    "turned by 90 degrees": turned(1),
    "turned by 180 degrees": turned(2),
    "turned by 270 degrees": turned(3),
    "slices in reverse order": moved(lambda x: x[..., ::-1, :, :]),
}
OTHERS: dict[str, Corruption] = {
    "voxels of 0.7 mm": sampled(0.7),
    "voxels of 2 mm": sampled(2.0),
    "bias field": bias_field(0.4),
    "gamma 1.5": gamma(1.5),
    "gamma 0.67": gamma(0.67),
    "noise, 10 %": noise(0.1),
    "ghosting, 30 %": ghosting(0.3),
    "spike, 20 %": spike(0.2),
    "slices shifted by breathing, 3 mm": breathing(3.0),
    "each third slice missing": every(3, first=1),
    "one slice": middle(1),
    "three slices": middle(3),
    "twice as many slices": twice,
}
CORRUPTIONS = ORIENTATIONS | OTHERS
