"""A patient's short-axis cine, as every reader hands it over. Frame numbers are 0-based; arrays are (time, slice, y, x)."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import nibabel as nib
import numpy as np

from ica_unet_jax.data import orientation
from ica_unet_jax.data.dicom.stacks import Stack
from ica_unet_jax.data.orientation import Turn

LATE = 99  # the number of an ES frame without a cine, of which nobody tells when it was: so late that ED is no neighbour of it


@dataclasses.dataclass(frozen=True)
class Phase:
    """A frame that is a file by itself, and its ground truth, whose number nothing tells: it is that of the cine's equal frame."""

    name: str  # ED or ES
    image: Path
    labels: Path


@dataclasses.dataclass(frozen=True)
class Case:
    """Where the files of one patient lie. Frame numbers are 0-based.

    `reader` names the reader that knows these files, one of `reading.READERS`, `cohort` the folder where there are several. `group`, `vendor` and `centre` are '' and `ed`, `es`
    are None where nothing says. With `nominal_spacing` the voxel size is not the true one, so mm and mL of this case mean nothing.
    `frames` and `labels` map frame numbers to 3D files; `info` is the file that describes the patient, where there is one.
    `truth` is a ground truth of the whole cine in one file, of which those frames count that hold a label, or are among
    `labelled_frames`. `phases` are frames of the cine that are still to be found in it. `label_map` says, as --label_map does, what the
    labels of these files are. `part` is train, val or test as the cohort's publishers split it, `folds` the part in each of their folds.
    `problems` are what names and links alone show to be wrong, a sentence each; files in them stand nowhere else. `truth_problems` are those
    of ground truths and tables, which say nothing against the images. `remarks` are what they show to be odd. Of a cine in DICOM
    `stack` holds its images, `cine` is the folder of these, and `header` is as NIfTI would have it.
    """

    name: str
    group: str = ""
    vendor: str = ""
    centre: str = ""
    ed: int | None = None
    es: int | None = None
    nominal_spacing: bool = False
    cine: Path | None = None
    frames: dict[int, Path] = dataclasses.field(default_factory=dict)
    labels: dict[int, Path] = dataclasses.field(default_factory=dict)
    truth: Path | None = None
    labelled_frames: tuple[int, ...] = ()
    phases: tuple[Phase, ...] = ()
    label_map: str = ""
    info: Path | None = None
    part: str = ""
    folds: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    truth_problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    stack: Stack | None = None
    header: nib.Nifti1Header | None = None
    reader: str = "folder"
    cohort: str = ""

    @property
    def labelled(self) -> bool:
        """Whether there is a ground truth of any frame, by names alone."""
        return bool(self.labels or self.truth or self.phases)

    @property
    def perhaps_labelled(self) -> bool:
        """Whether there may be a ground truth: one that may not be opened is among the problems."""
        return bool(self.labelled or self.problems or self.truth_problems)

    @property
    def image(self) -> Path | None:
        """The cine, or the first of the frame files, whose header stands for all."""
        return self.cine or self.frames.get(min(self.frames, default=0))

    @property
    def files(self) -> list[Path]:
        """All files of the case, in a fixed order."""
        single = [path for path in (self.info, None if self.stack else self.cine, self.truth) if path]
        single += [path for phase in self.phases for path in (phase.image, phase.labels)]
        return single + (self.stack.paths if self.stack else []) + [group[time] for group in (self.frames, self.labels) for time in sorted(group)]


@dataclasses.dataclass
class Cine:
    """The images and labels of one case.

    `frames` is float32 (t, s, h, w) and `times[i]` is the frame number of `frames[i]`: 0 to t-1 with a cine, the
    numbers of the frame files without one. `labels` maps frame numbers to uint8 (s, h, w), 0 background, 1 RV cavity,
    2 myocardium, 3 LV cavity. `spacing` is (dz, dy, dx) in mm. `affine` and `header` are those of the file; `turn` leads from
    its axes to those of the arrays.
    """

    case: Case
    frames: np.ndarray
    times: tuple[int, ...]
    labels: dict[int, np.ndarray]
    spacing: tuple[float, float, float]
    affine: np.ndarray
    header: nib.Nifti1Header
    turn: Turn = Turn()

    @property
    def empty(self) -> np.ndarray:
        """(t,) bool: the frames that are constant and so show nothing."""
        return self.frames.min(axis=(1, 2, 3)) == self.frames.max(axis=(1, 2, 3))

    def turned(self, codes: str) -> Cine:
        """The case with its axes turned to other letters; as it is where these, or its own, are ""."""
        turn = Turn(orientation.codes_of(self.header), codes)
        labels = {time: turn.forth(volume) for time, volume in self.labels.items()}
        return dataclasses.replace(self, frames=turn.forth(self.frames), labels=labels, spacing=turn.sizes(self.spacing), turn=turn)

    def frame(self, time: int) -> np.ndarray:
        """The volume (s, h, w) of frame number `time`."""
        return self.frames[self.times.index(time)]

    def window(self, time: int, reach: int = 1, cyclic: bool = False) -> tuple[int, ...]:
        """The 2 * reach + 1 frame numbers round `time`; a frame that does not exist is its neighbour towards `time`.

        With `cyclic` a complete cine is a closed beat: its last frame precedes its first.
        """
        count = len(self.times)
        closed = cyclic and self.times == tuple(range(count))

        def side(step: int) -> list[int]:
            found = [time]
            for _ in range(reach):
                following = (found[-1] + step) % count if closed else found[-1] + step
                found.append(following if following in self.times else found[-1])
            return found[1:]

        return (*reversed(side(-1)), time, *side(1))


@dataclasses.dataclass
class Examination:
    """What was found in the files of a case: the images and labels, if they can be read, and a sentence each for

    problems: what makes it unfit; remarks: what is odd about it but no reason to leave it out. `stored` are the labels as the files
    have them.
    """

    cine: Cine | None = None
    problems: list[str] = dataclasses.field(default_factory=list)
    remarks: list[str] = dataclasses.field(default_factory=list)
    stored: set[int] = dataclasses.field(default_factory=set)
