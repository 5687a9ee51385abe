"""The orientation of an image in the patient as three letters, such as LPS, and turning it to another one.

LPS says that the stored columns x run to the patient's left, the rows y to the back and the slices z to the head. The letters
are those of the nearest axes: oblique stacks, as short-axis ones are, may have different ones though nothing is turned.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import nibabel as nib
import numpy as np
from nibabel import orientations

_SAME_SIZE = 0.01  # as a part; an affine whose columns are no longer or shorter than the voxels has the scale


def codes_of(header: nib.Nifti1Header) -> str:
    """The letters of an image's axes (x, y, z); "" where its header does not tell, or its two affines tell different ones."""
    found = set()
    try:
        with np.errstate(all="ignore"):  # an affine with numbers beyond all bounds tells nothing either
            for affine, code in (header.get_sform(coded=True), header.get_qform(coded=True)):
                if code:
                    found.add("".join(nib.aff2axcodes(affine)))
    except (ValueError, TypeError, np.linalg.LinAlgError, nib.spatialimages.HeaderDataError):  # TypeError: an axis without direction
        return ""
    return found.pop() if len(found) == 1 else ""


def is_codes(text: str) -> bool:
    """Whether these are letters of three axes."""
    return sorted(next((pair for pair in ("LR", "AP", "IS") if letter in pair), "") for letter in text) == ["AP", "IS", "LR"]


def has_scale(header: nib.Nifti1Header) -> bool:
    """Whether the affine holds the voxel sizes. One that does not was made up, and its letters may be so too."""
    try:
        with np.errstate(all="ignore"):
            return bool(np.allclose(nib.affines.voxel_sizes(header.get_best_affine()), header.get_zooms()[:3], rtol=_SAME_SIZE))
    except (ValueError, nib.spatialimages.HeaderDataError):
        return False


class Cohort(NamedTuple):
    """How the cases of a cohort lie."""

    codes: dict[str, int]  # how many have which letters, as `count` gives them
    scaled: bool  # whether the affines of all hold the voxel sizes

    @property
    def usual(self) -> str:
        """The most frequent letters; "" where no case has any."""
        return min(filter(None, self.codes), key=lambda letters: (-self.codes[letters], letters), default="")

    @property
    def told(self) -> str:
        """How many cases have which letters, in words."""
        return ", ".join(f"{number} {letters or 'without orientation'}" for letters, number in self.codes.items())


def count(codes: Iterable[str]) -> dict[str, int]:
    """How many cases have which letters, the most frequent first."""
    counted = collections.Counter(codes)
    return {letters: counted[letters] for letters in sorted(counted, key=lambda letters: (-counted[letters], letters))}


def remark(cohort: Cohort, reorient: bool = False) -> str:
    """A sentence about a cohort to train on whose cases have different letters; "" where all have the same."""
    if len(cohort.codes) < 2:
        return ""
    if reorient:
        return f"the patients lie differently ({cohort.told}): all are turned to {cohort.usual}.{doubt(cohort)}"
    return (f"the patients lie differently ({cohort.told}), by their affines: if these are true, --reorient turns all to "
            f"{cohort.usual} in training, or --flip, --flip_slices and --rotation=180 teach the network all of them.{doubt(cohort)}")


def doubt(*cohorts: Cohort) -> str:
    """A sentence, behind another, where affines of cohorts do not hold the voxel sizes; "" where all do."""
    return "" if all(cohort.scaled for cohort in cohorts) else " Some affines hold no voxel sizes: these are often not true, so look at pictures first."


@dataclasses.dataclass(frozen=True)
class Turn:
    """The way from axis letters to others, and back; nothing is turned where either is "".

    Volumes are (..., slice, y, x). Voxels are moved, none is computed.
    """

    start: str = ""
    end: str = ""

    @property
    def moves(self) -> bool:
        """Whether anything is turned."""
        return bool(self.start and self.end) and self.start != self.end

    def forth(self, volumes: np.ndarray) -> np.ndarray:
        """Volumes as they are stored, turned."""
        return _move(volumes, self._orientation())

    def back(self, volumes: np.ndarray) -> np.ndarray:
        """Turned volumes as they are stored."""
        return _move(volumes, Turn(self.end, self.start)._orientation())

    def sizes(self, stored: Sequence[float]) -> tuple[float, float, float]:
        """The sizes (dz, dy, dx) of a turned voxel."""
        turned = dict(zip(self._orientation()[:, 0].astype(int), stored[::-1], strict=True))
        return turned[2], turned[1], turned[0]

    def _orientation(self) -> np.ndarray:
        """As nibabel has it: for each stored axis (x, y, z) which one it becomes, and whether it is reversed."""
        start, end = (self.start, self.end) if self.moves else ("RAS", "RAS")
        return orientations.ornt_transform(orientations.axcodes2ornt(start), orientations.axcodes2ornt(end))


def _move(volumes: np.ndarray, orientation: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(orientations.apply_orientation(volumes.T, orientation).T)
