"""The images of a stack on one grid of slices and times: what is missing is found, what differs in time is resampled."""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Sequence

import nibabel as nib
import numpy as np

from ica_unet_jax.data.dicom import images as dicom_images
from ica_unet_jax.data.dicom.images import Image
from ica_unet_jax.data.dicom.stacks import APEX, Stack, along, has_moments

_HOLE = 1.5  # distances between slices, or steps in time, that are longer by this factor have something missing in them
_UNEVEN = 0.1  # of the distance between slices
_OFF = 1.0  # mm, of a slice from the line through all of them
_UNKNOWN = 1.0  # mm, where the only slice does not tell how thick it is, which is a problem
_TO_NIFTI = np.diag([-1.0, -1, 1])  # DICOM counts to the left and the back, NIfTI to the right and the front


@dataclasses.dataclass(frozen=True)
class Grid:
    """A stack as a cine of so many `times`.

    `phases[s]` (n,) says where the images of slice s lie in the beat, which has the length 1; `seconds` is from time to time, None where
    nothing says. `problems` make the stack unfit, `remarks` do not, a sentence each.
    """

    stack: Stack
    times: int
    phases: tuple[np.ndarray, ...]
    seconds: float | None
    problems: tuple[str, ...]
    remarks: tuple[str, ...]

    def frames(self) -> np.ndarray:
        """float32 (t, s, h, w). Raises UserError where a file cannot be read."""
        pixels = iter(dicom_images.read_pixels(self.stack.images))
        slices = [np.stack(list(itertools.islice(pixels, len(own)))) for own in self.stack.slices]
        return np.stack([_resampled(images, phases, self.times) for images, phases in zip(slices, self.phases, strict=True)], axis=1)

    def sources(self, time: int) -> list[Image]:
        """For each slice the image that is shown at a time, or where it is interpolated the nearest to it."""
        return [
            own[time if len(own) == self.times else int(np.argmin(np.abs(phases - time / self.times)))]
            for own, phases in zip(self.stack.slices, self.phases, strict=True)
        ]

    def header(self) -> nib.Nifti1Header:
        """As NIfTI has the geometry: x along the rows, y along the columns, z from the base to the apex."""
        first, last = self.stack.slices[0][0], self.stack.slices[-1][0]
        count = len(self.stack.slices)
        step = (np.subtract(last.position, first.position) / (count - 1) if count > 1 else
                first.normal * np.copysign(first.thickness or _UNKNOWN, first.normal @ APEX))  # fmt: skip
        dy, dx = first.spacing
        affine = np.eye(4)
        affine[:3, :3] = _TO_NIFTI @ np.stack([np.multiply(first.orientation[:3], dx), np.multiply(first.orientation[3:], dy), step], axis=1)
        affine[:3, 3] = _TO_NIFTI @ first.position
        header = nib.Nifti1Header()
        header.set_data_dtype(np.float32)
        header.set_data_shape((*first.shape[::-1], count, self.times))
        header.set_qform(affine, code=1)
        header.set_sform(affine, code=1)
        header.set_zooms((dx, dy, float(np.linalg.norm(step)), self.seconds or 1.0))
        header.set_xyzt_units("mm", "sec" if self.seconds else None)
        return header


def arrange(stack: Stack) -> Grid:
    """The grid of a stack; no pixels are read."""
    counts = [len(own) for own in stack.slices]
    times = max(counts, key=lambda count: (counts.count(count), count))
    timed = all(has_moments(own) for own in stack.slices)
    steps = [np.diff([image.moment for image in own]) for own in stack.slices if timed and len(own) > 1]
    problems, remarks = _in_space(stack)
    told = ["the images have no trigger times that tell them apart: they are taken in the order in which the scanner counts them."] if not timed else []
    few = [s for s, count in enumerate(counts) if 2 * count < times]
    problems += [f"slice {s + 1} ({stack.slices[s][0].told}) has {counts[s]} images where the others have {times}; export all of them." for s in few]
    phases = tuple(_phases(own, timed) for own in stack.slices)
    for s, own in enumerate(stack.slices):
        holes = [own[i].told for i in np.flatnonzero(np.diff(phases[s]) > _HOLE * _usual(np.diff(phases[s])))] if len(own) > 2 else []
        told += [f"slice {s + 1}: images are missing after {', '.join(holes)}."] if holes else []
    if mixed := [str(s + 1) for s, count in enumerate(counts) if count != times]:
        seen = collections.Counter(counts)
        told.append(f"slices have different numbers of images ({', '.join(f'{seen[n]} x {n}' for n in sorted(seen, reverse=True))}): "
                    f"{'slices' if mixed[1:] else 'slice'} {', '.join(mixed)} {'are' if mixed[1:] else 'is'} interpolated in time to {times}, as parts of "
                    "the beat.")
    seconds = float(np.median(np.concatenate(steps))) / 1000 if steps else None
    return Grid(stack, times, phases, seconds or None, tuple(problems), (*stack.remarks, *remarks, *told))


def _phases(own: Sequence[Image], timed: bool) -> np.ndarray:
    """(n,): where images of a slice lie in their beat; without moments evenly."""
    if not timed or len(own) < 2:
        return np.arange(len(own)) / len(own)
    moments = np.array([image.moment for image in own])
    return (moments - moments[0]) / (np.ptp(moments) + _usual(np.diff(moments)))


def _usual(steps: np.ndarray) -> float:
    """The lower median of steps (n,): some may be too long, as something is missing, none too short."""
    return float(np.sort(steps)[(len(steps) - 1) // 2])


def _resampled(images: np.ndarray, phases: np.ndarray, times: int) -> np.ndarray:
    """Images (n, h, w) at those phases as (times, h, w); as they are if there are as many."""
    if len(images) == times:
        return images
    wanted = np.arange(times) / times
    place = np.interp(wanted, phases, np.arange(len(images)))
    low = np.minimum(place.astype(int), len(images) - 1)
    part = (place - low).astype(np.float32)[:, None, None]
    return images[low] * (1 - part) + images[np.minimum(low + 1, len(images) - 1)] * part


def _in_space(stack: Stack) -> tuple[list[str], list[str]]:
    """Problems and remarks about where slices lie."""
    firsts = [own[0] for own in stack.slices]
    places = np.array([image.position for image in firsts])
    if len(firsts) < 3:
        flat = len(firsts) == 1 and not firsts[0].thickness
        return ["the only slice does not tell how thick it is, so that nothing can be measured; export it with its thickness."] if flat else [], []
    gaps = np.diff([along(image) for image in firsts])
    usual = _usual(gaps)
    problems = []
    for i in np.flatnonzero(gaps > _HOLE * usual):
        problems.append(f"a slice is missing between slice {i + 1} ({firsts[i].told}) and slice {i + 2} ({firsts[i + 1].told}), which lie "
                        f"{gaps[i]:.1f} mm apart where the others lie {usual:.1f} mm: export all slices.")
    if problems:
        return problems, []
    line = places[0] + np.linspace(0, 1, len(places))[:, None] * (places[-1] - places[0])
    normal = firsts[0].normal
    off = np.linalg.norm((places - line) - np.outer((places - line) @ normal, normal), axis=1)
    if off.max() > _OFF:
        worst = int(off.argmax())
        return [f"slice {worst + 1} ({firsts[worst].told}) is shifted by {off[worst]:.1f} mm in its plane against the line of the others: no "
                "stack can be made of them; export slices that lie behind each other."], []  # fmt: skip
    if np.abs(gaps - usual).max() > _UNEVEN * usual:
        return [], [f"slices lie {gaps.min():.1f} to {gaps.max():.1f} mm apart; volumes are computed as if it were {gaps.mean():.1f} mm everywhere."]
    return [], []
