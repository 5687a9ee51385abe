"""Which images of a study are its short-axis cine: parallel slices at several times, found by where they lie.

A series may hold one slice, some, or all; a slice that was scanned again replaces the first one. Other cines (long axes, localizers,
perfusion) are left alone.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ica_unet_jax.data.dicom.images import Image
from ica_unet_jax.errors import UserError

APEX = np.array([0.66, -0.57, -0.49]) / np.linalg.norm([0.66, -0.57, -0.49])  # from the base to the apex of most hearts (left, back, head)
_SHORT_AXIS = np.cos(np.deg2rad(45))  # between an image's normal and that axis; long axes and the body's own planes are further off
_PARALLEL = 0.01  # of direction cosines
_SAME_PLACE = 0.1  # mm
_AGAIN, _CLOSE = 0.5, 0.9  # of a thickness: a slice that lies nearer to another is that one again, or not of the same scan
_BEAT = 2500.0  # ms; what takes longer is no cine of one beat but perfusion or the like


@dataclasses.dataclass(frozen=True)
class Stack:
    """Slices from the base to the apex, each with its images in time; `remarks` say what was left out of it."""

    slices: tuple[tuple[Image, ...], ...]
    remarks: tuple[str, ...] = ()

    @property
    def images(self) -> list[Image]:
        return [image for own in self.slices for image in own]

    @property
    def paths(self) -> list[Path]:
        """Its files, sorted."""
        return sorted({image.path for image in self.images})

    @property
    def is_short_axis(self) -> bool:
        return bool(abs(self.slices[0][0].normal @ APEX) > _SHORT_AXIS)

    @property
    def numbers(self) -> list[int]:
        """Of its series."""
        return sorted({image.number for image in self.images})

    @property
    def told(self) -> str:
        """What it is, in words."""
        series, (rows, columns) = ", ".join(map(str, self.numbers)), self.slices[0][0].shape
        return f"series {series}: {_counted(len(self.slices), 'slice')} x {max(map(len, self.slices))} times, {rows}x{columns}"


def stacks_of(images: Iterable[Image]) -> list[Stack]:
    """All cines of a study, the largest first."""
    series = itertools.groupby(sorted(images, key=lambda image: (image.number, image.series)), key=lambda image: image.series)
    stacks: list[Stack] = []
    kinds: list[list[Stack]] = []  # of one orientation, matrix and pixel size
    for _, own in series:
        for alike in _split(own):
            if _is_cine(stack := _sorted(alike)):
                kind = next((kind for kind in kinds if _alike(kind[0].images[0], alike[0])), None)
                kinds.append([stack]) if kind is None else kind.append(stack)
    for kind in kinds:
        stacks += _joined(kind)
    return sorted(stacks, key=lambda stack: -len(stack.slices))


def choose(stacks: Sequence[Stack], series: str = "") -> Stack:
    """The short-axis cine, or the cine to which the series of that number or UID belongs.

    Raises UserError where there is none, or several and none is by far the largest.
    """
    if series:
        named = [stack for stack in stacks if series in {str(number) for number in stack.numbers} | {image.series for image in stack.images}]
        if not named:
            raise UserError(f"--series={series} is no cine of this study; there are {_listed(stacks)}: name one of these.")
        return named[0]
    short = [stack for stack in stacks if stack.is_short_axis]
    if not short:
        raise UserError(f"no short-axis cine is found among the MR images; there are {_listed(stacks)}: if one of these is it, predict "
                        "--series=NUMBER takes it.")
    rivals = [stack for stack in short if 2 * len(stack.slices) >= len(short[0].slices)]
    if len(rivals) > 1:
        raise UserError(f"there are {len(rivals)} short-axis cines ({_listed(rivals)}): predict --series={rivals[0].numbers[0]}, for example, "
                        "picks one.")
    others = [stack for stack in short if stack is not rivals[0]]
    left_out = tuple(f"Left out, parallel to the short-axis cine but of another matrix or place: {stack.told}." for stack in others)
    return dataclasses.replace(rivals[0], remarks=(*rivals[0].remarks, *left_out))


def along(image: Image) -> float:
    """Where an image lies between base and apex, in mm."""
    normal = image.normal
    return float(np.dot(image.position, normal) * (1 if normal @ APEX >= 0 else -1))


def _listed(stacks: Sequence[Stack]) -> str:
    return "; ".join(stack.told for stack in stacks[:6]) + ("; ..." if len(stacks) > 6 else "") if stacks else "no cines at all"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _alike(one: Image, other: Image) -> bool:
    """Whether two images are parallel, and of one matrix and pixel size."""
    same = one.shape == other.shape and np.allclose(one.spacing, other.spacing, rtol=1e-3)
    return same and np.allclose(one.orientation, other.orientation, atol=_PARALLEL)


def _split(images: Iterable[Image]) -> list[list[Image]]:
    """The images of a series by how they lie."""
    parts: list[list[Image]] = []
    for image in images:
        part = next((part for part in parts if _alike(part[0], image)), None)
        parts.append([image]) if part is None else part.append(image)
    return parts


def _sorted(images: Sequence[Image]) -> Stack:
    """Parallel images of one series as slices; of images twice at one place and time the later one is kept."""
    slices: list[list[Image]] = []
    for image in sorted(images, key=along):
        if slices and along(image) - along(slices[-1][0]) < _SAME_PLACE:
            slices[-1].append(image)
        else:
            slices.append([image])
    kept, doubled = [], []
    for own in slices:
        single = _counted_on({(image.uid, image.frame): image for image in own}.values())  # without copies of one file
        timed = has_moments(single)
        by_time = {image.moment if timed else (image.order, image.instance, image.frame): image for image in single}
        chosen = {id(image) for image in by_time.values()}
        doubled += [image for image in own if id(image) not in chosen]
        kept.append(tuple(by_time[time] for time in sorted(by_time)))
    remarks = (f"{doubled[0].told}: {_counted(len(doubled), 'image')} of this series {'are' if doubled[1:] else 'is'} there twice, at one place "
               "and time; one of the two is left out.",) if doubled else ()  # fmt: skip
    return Stack(tuple(kept), remarks)


def has_moments(images: Sequence[Image]) -> bool:
    """Whether the times after the R wave tell the images of a slice apart.

    A time that comes again later is that of a second scan; of two images in succession at one time it does not tell which is the first.
    """
    moments = [image.moment for image in _counted_on(images)]
    return None not in moments and all(one != other for one, other in itertools.pairwise(moments))


def _counted_on(images: Iterable[Image]) -> list[Image]:
    """Images of one series as the scanner counts them."""
    return sorted(images, key=lambda image: (image.instance, image.frame))


def _is_cine(stack: Stack) -> bool:
    longest = max(stack.slices, key=len)
    return len(longest) > 1 and (not has_moments(longest) or longest[-1].moment - longest[0].moment <= _BEAT)


def _joined(parts: Sequence[Stack]) -> list[Stack]:
    """Series of one kind as stacks: those at other places are put together, a few that come again replace the first."""
    layers = [scan for layer in _layers(parts, _AGAIN) for scan in ([layer] if _in_succession(layer) else _layers(layer, _CLOSE))]
    count = [sum(len(part.slices) for part in layer) for layer in layers]
    whole = [layer for layer, slices in zip(layers, count, strict=True) if 2 * slices >= max(count)]
    again = [part for layer in layers if layer not in whole for part in layer]
    found = []
    for layer in whole:
        own, remarks = [own for part in layer for own in part.slices], [remark for part in layer for remark in part.remarks]
        for part in again if layer is whole[-1] else ():
            if replaced := [old for old in own if any(_at_one_place(old[0], new[0]) for new in part.slices)]:
                own = [old for old in own if old not in replaced] + list(part.slices)
                remarks.append(f"series {part.images[0].number} shows {_counted(len(replaced), 'slice')} of series {replaced[0][0].number} again; "
                               "the later images are taken.")
            else:
                remarks.append(f"Left out, nearer to other slices than these are thick: {part.told}.")
        found.append(Stack(tuple(sorted(own, key=lambda images: along(images[0]))), tuple(remarks)))
    return found


def _layers(parts: Sequence[Stack], nearest: float) -> list[list[Stack]]:
    """The parts dealt out, so that in a layer none is nearer to another than that share of its thickness."""
    layers: list[list[Stack]] = []
    for part in parts:
        layer = next((layer for layer in layers if not any(_overlap(part, other, nearest) for other in layer)), None)
        layers.append([part]) if layer is None else layer.append(part)
    return layers


def _in_succession(layer: Sequence[Stack]) -> bool:
    """Whether the numbers of series rise or fall along the heart: slices that overlap are then meant to, and of one scan."""
    numbers = [number for _, number in sorted((along(own[0]), own[0].number) for part in layer for own in part.slices)]
    return sorted(numbers) in (numbers, numbers[::-1])


def _overlap(one: Stack, other: Stack, nearest: float) -> bool:
    return any(_at_one_place(a[0], b[0], nearest) for a in one.slices for b in other.slices)


def _at_one_place(one: Image, other: Image, nearest: float = _AGAIN) -> bool:
    """Whether two parallel slices are nearer than that share of their thickness."""
    return abs(along(one) - along(other)) < max(_SAME_PLACE, nearest * one.thickness)
