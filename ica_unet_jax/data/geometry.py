"""From the native grid to the model's grid and back.

In the plane a volume is resampled linearly about the image centre, so that both grids share their centre; the model's
window is centred there, or whole voxels of its own grid beside it. Through the plane nothing is resampled: short stacks
are padded, long ones are seen through overlapping windows. Both directions are a product with one small matrix per axis
(`interpolation`).
"""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
from scipy import sparse

PERCENTILES = (0.5, 99.5)  # a frame is clipped to these
OUTSIDE_LOGIT = 1e4  # background logit of native voxels that no window covers
_SAMPLE = 4096
_TOLERANCE = 1e-6  # voxels; keeps a voxel that touches the border by round-off


def normalize(frame: np.ndarray) -> np.ndarray:
    """One 3D frame (s, h, w), clipped to its percentiles 0.5 to 99.5, with zero mean and unit variance, float32.

    Only this frame is looked at: statistics of the whole cine would look into the future. A constant frame gives zeros.
    """
    frame = np.asarray(frame, np.float32)
    low, high = np.percentile(frame, PERCENTILES)
    frame = np.clip(frame, low, high)
    centred = frame - frame.mean(dtype=np.float64)
    deviation = centred.std(dtype=np.float64)
    # A constant frame is left with round-off, which must not be blown up.
    return (centred / deviation if deviation > 1e-6 * max(abs(low), abs(high)) else 0 * centred).astype(np.float32)


def limits(frame: np.ndarray) -> np.ndarray:
    """The two `PERCENTILES` of a frame's float32 values, (2,) float32, as `np.percentile` gives them and several times as fast.

    Only the values beyond a guess of each, from a sample, are sorted; all where the guess was bad.
    """
    values = np.asarray(frame, np.float32).ravel()
    sample, found = np.sort(values[:: max(1, values.size // _SAMPLE)]), []
    for percent in PERCENTILES:
        flip = 1 if percent < 50 else -1  # from above, in negative numbers
        place = (percent if flip > 0 else 100 - percent) / 100 * (values.size - 1)
        rank = math.floor(place)
        guess = sample[:: flip][min(sample.size - 1, 2 * sample.size * (rank + 2) // values.size + 4)]
        few = values[values <= guess] if flip > 0 else values[values >= guess]
        ends = flip * (few if few.size > rank + 1 else values)
        lower, upper = np.partition(ends, (rank, min(rank + 1, ends.size - 1)))[[rank, min(rank + 1, ends.size - 1)]]
        found.append(flip * (lower + (upper - lower) * np.float32(place - rank)))
    return np.array(found, np.float32)


def positions(size: int, new_size: int, step: float, shift: float = 0.0) -> np.ndarray:
    """Where `new_size` samples, `step` voxels apart, lie on an axis of `size` voxels: their centre `shift` past its own."""
    return (size - 1) / 2 + shift + step * (np.arange(new_size) - (new_size - 1) / 2)


def covered(size: int, new_size: int, step: float, shift: float = 0.0) -> np.ndarray:
    """Which of these samples lie inside the image, (new_size,) bool; a voxel reaches half a voxel from its centre."""
    where = positions(size, new_size, step, shift)
    return (where >= -0.5 - _TOLERANCE) & (where <= size - 0.5 + _TOLERANCE)


def interpolation(size: int, new_size: int, step: float, shift: float = 0.0, order: int = 1) -> np.ndarray:
    """The matrix (new_size, size), float32, that takes these samples: linear (order 1) or nearest (order 0).

    Samples in the outer half of a border voxel take its value; samples outside the image are 0.
    """
    where = np.clip(positions(size, new_size, step, shift), 0, size - 1)
    if order == 0:
        weights = np.arange(size) == np.floor(where + 0.5)[:, None].clip(max=size - 1)
    else:
        weights = np.maximum(0, 1 - np.abs(where[:, None] - np.arange(size)))
    return (weights * covered(size, new_size, step, shift)[:, None]).astype(np.float32)


def resample(volumes: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """rows @ volumes @ columns.T for volumes (..., h, w), rows (H, h) and columns (W, w): (..., H, W).

    The products are sparse: two weights a row are less work than a dense product, whose threads also fight over a busy
    processor.
    """
    *lead, h, w = volumes.shape
    part = sparse.csr_array(rows) @ np.moveaxis(volumes, -2, 0).reshape(h, -1)
    part = np.moveaxis(part.reshape(len(rows), -1, w), 2, 0)
    part = sparse.csr_array(columns) @ part.reshape(w, -1)
    part = part.reshape(len(columns), len(rows), -1)
    return np.ascontiguousarray(part.transpose(2, 1, 0)).reshape(*lead, len(rows), len(columns))


def front_padding(slices: int, depth: int) -> int:
    """Slices that a short stack gets in front: even, so that pairs of slices stay pairs; the rest goes behind."""
    return 2 * (max(0, depth - slices) // 4)


def stack_depth(slices: int, depth: int) -> int:
    """Slices that the windows of a stack reach over together: a short stack fills one, and pairs of slices are never parted."""
    return max(depth, slices + slices % 2)


def window_starts(slices: int, depth: int) -> list[int]:
    """First slices of the windows over a stack, all even, so that all windows see the same pairs; [0] for a short stack.

    They overlap by at least half of a window's pairs, rounded down.
    """
    excess, pairs = (stack_depth(slices, depth) - depth) // 2, depth // 2
    last = math.ceil(excess / math.ceil(pairs / 2))
    return [2 * round(excess * i / max(1, last)) for i in range(last + 1)]


def fit_depth(array: np.ndarray, depth: int, start: int = 0) -> np.ndarray:
    """(..., s, H, W) -> (..., d, H, W): slices `start` to `start + d - 1`, padded with zeros where the stack has none.

    A short stack is padded on both sides, and has `start` 0. Raises ValueError for a window that reaches past `stack_depth`.
    """
    slices = array.shape[-3]
    if not 0 <= start <= stack_depth(slices, depth) - depth:
        raise ValueError(f"A window of {depth} slices cannot start at slice {start} of {slices}.")
    front, kept = front_padding(slices, depth), array[..., start : start + depth, :, :]
    widths = [(0, 0)] * (array.ndim - 3) + [(front, depth - kept.shape[-3] - front), (0, 0), (0, 0)]
    return np.pad(kept, widths) if kept.shape[-3] < depth else kept


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where the model's windows lie on a native volume.

    `shape` is (s, h, w), `spacing` (dz, dy, dx) in mm, `crop` the window (d, H, W), `target_spacing` its in-plane voxel
    size in mm. `offset` leads from the image centre to the windows' in the plane, in voxels of the window (rows,
    columns); `windows` holds their first slices.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    crop: tuple[int, int, int]
    target_spacing: float
    offset: tuple[int, int] = (0, 0)

    @property
    def reach(self) -> tuple[int, int]:
        """The offsets at which the window covers the image's outermost voxels; 0 where it covers all without one."""
        rows, columns = (max(0, math.ceil(((size - 1) / step - new) / 2 - _TOLERANCE)) for size, new, step, _ in self._axes())
        return rows, columns

    def at(self, rows: float, columns: float) -> Placement:
        """The placement whose offset is nearest to this one, inside the reach."""
        nearest = (int(np.clip(round(x), -most, most)) for x, most in zip((rows, columns), self.reach, strict=True))
        return dataclasses.replace(self, offset=tuple(nearest))

    @functools.cached_property
    def windows(self) -> list[int]:
        return window_starts(self.shape[0], self.crop[0])

    def _axes(self) -> list[tuple[int, int, float, float]]:
        """(native size, window size, native voxels per window voxel, the offset in native voxels) of y and x."""
        steps = [self.target_spacing / size for size in self.spacing[1:]]
        return [(self.shape[i], self.crop[i], step, offset * step) for i, step, offset in zip((1, 2), steps, self.offset, strict=True)]

    def _back(self) -> list[tuple[int, int, float, float]]:
        """The same seen from the window: (window size, native size, window voxels per native voxel, shift)."""
        return [(new, old, 1 / step, -offset) for (old, new, step, _), offset in zip(self._axes(), self.offset, strict=True)]

    def forward_matrices(self, order: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Interpolation from native rows and columns to the window's; `order` as in `interpolation`."""
        rows, columns = (interpolation(*axis, order=order) for axis in self._axes())
        return rows, columns

    def backward_matrices(self) -> tuple[np.ndarray, np.ndarray]:
        """Interpolation from the window's rows and columns to native ones."""
        rows, columns = (interpolation(*axis) for axis in self._back())
        return rows, columns

    def _stack(self, resampled: np.ndarray) -> np.ndarray:
        return np.stack([fit_depth(resampled, self.crop[0], start) for start in self.windows])

    def forward(self, volume: np.ndarray, order: int = 1) -> np.ndarray:
        """A native volume (s, h, w) in the windows, (n, d, H, W) float32; `order` 1 linear, 0 nearest; padding is 0."""
        return self._stack(resample(np.asarray(volume, np.float32), *self.forward_matrices(order)))

    @functools.cached_property
    def valid(self) -> np.ndarray:
        """(n, d, H, W) bool: true where a window shows the image and not padding."""
        rows, columns = (covered(*axis) for axis in self._axes())
        plane = np.outer(rows, columns)
        return self._stack(np.broadcast_to(plane, (self.shape[0], *plane.shape)))

    @functools.cached_property
    def inside(self) -> np.ndarray:
        """(s, h, w) bool: the native voxels that the windows cover."""
        return np.broadcast_to(np.outer(*self.lines), self.shape)

    @property
    def lines(self) -> tuple[np.ndarray, np.ndarray]:
        """(h,) and (w,) bool: the native rows and columns that the windows cover."""
        rows, columns = (covered(*axis) for axis in self._back())
        return rows, columns

    def backward(self, logits: np.ndarray) -> np.ndarray:
        """Logits of the windows (n, d, H, W, C) on the native grid, (s, h, w, C) float32.

        Overlapping windows are averaged. A voxel that no window covers has `OUTSIDE_LOGIT` for class 0 and 0 else.
        """
        slices, depth = self.shape[0], self.crop[0]
        logits = np.moveaxis(np.asarray(logits, np.float32), -1, 2)  # (n, d, C, H, W)
        front = front_padding(slices, depth)
        total = np.zeros((slices, *logits.shape[2:]), np.float32)
        count = np.zeros((slices, 1, 1, 1), np.float32)
        for window, start in zip(logits, self.windows, strict=True):
            total[start : start + depth] += window[front : front + slices - start]
            count[start : start + depth] += 1
        native = np.moveaxis(resample(total / count, *self.backward_matrices()), 1, -1)
        native[~self.inside] = [OUTSIDE_LOGIT] + [0] * (native.shape[-1] - 1)
        return native


def place(shape: tuple[int, int, int], spacing: tuple[float, float, float], crop: tuple[int, int, int],
          target_spacing: float) -> Placement:
    """The placement of the model's windows on a volume; see `Placement`."""
    return Placement(tuple(shape), tuple(spacing), tuple(crop), float(target_spacing))


def resample_labels(labels: np.ndarray, placement: Placement, classes: int) -> np.ndarray:
    """A native label volume (s, h, w) in the windows, (n, d, H, W) uint8: argmax of its interpolated one-hots."""
    return argmax_labels(np.stack([placement.forward(labels == label) for label in range(classes)], axis=-1))


def argmax_labels(logits: np.ndarray) -> np.ndarray:
    """(..., C) -> (...) uint8."""
    return np.argmax(logits, axis=-1).astype(np.uint8)
