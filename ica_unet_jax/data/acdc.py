"""Finds, reads and checks short-axis cine cases in the ACDC layout or in a plain folder of 4D NIfTI files.

Frame numbers are 0-based here; files and Info.cfg count from 1. Arrays have the axes (time, slice, y, x).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import nibabel as nib
import numpy as np

from ica_unet_jax.data.volumes import open_frames, parse_label_map, read_labels, read_volume, spacing_of
from ica_unet_jax.errors import UserError

__all__ = ["Case", "Cine", "check", "find_cases", "parse_label_map", "read", "read_volume", "remarks", "spacing_of"]

_FILE = re.compile(r"(?P<name>.+?)(?:_4d|_frame(?P<frame>\d+)(?P<gt>_gt)?)?\.nii(?:\.gz)?")
_SUBFOLDERS = ("", "training", "testing", "database/training", "database/testing")
_SAME_INTENSITY = 0.01  # largest difference between a frame file and its cine, as a part of the frame's range
_SAME_AFFINE = 0.01  # mm; ground truths are often saved with rounded affines


@dataclasses.dataclass(frozen=True)
class Case:
    """Where the files of one patient lie. Frame numbers are 0-based.

    `group` is '' and `ed`, `es` are None where Info.cfg does not say. With `nominal_spacing` the voxel size is not
    the true one, so mm and mL of this case mean nothing. `frames` and `labels` map frame numbers to 3D files.
    """

    name: str
    group: str = ""
    ed: int | None = None
    es: int | None = None
    nominal_spacing: bool = False
    cine: Path | None = None
    frames: dict[int, Path] = dataclasses.field(default_factory=dict)
    labels: dict[int, Path] = dataclasses.field(default_factory=dict)
    info: Path | None = None

    @property
    def files(self) -> list[Path]:
        """All files of the case, in a fixed order."""
        single = [path for path in (self.info, self.cine) if path]
        return single + [group[time] for group in (self.frames, self.labels) for time in sorted(group)]


@dataclasses.dataclass
class Cine:
    """The images and labels of one case.

    `frames` is float32 (t, s, h, w) and `times[i]` is the frame number of `frames[i]`: 0 to t-1 with a cine, the
    numbers of the frame files without one. `labels` maps frame numbers to uint8 (s, h, w), 0 background, 1 RV cavity,
    2 myocardium, 3 LV cavity. `spacing` is (dz, dy, dx) in mm.
    """

    case: Case
    frames: np.ndarray
    times: tuple[int, ...]
    labels: dict[int, np.ndarray]
    spacing: tuple[float, float, float]
    affine: np.ndarray
    header: nib.Nifti1Header

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


def find_cases(data_dir: str | Path, label_map: str = "") -> list[Case]:
    """The cases of a cohort, sorted by name; nothing but names and Info.cfg is read.

    `data_dir` is the ACDC root (with training/, testing/ or database/ inside), a folder of patient folders, or a folder
    of NAME.nii.gz or NAME_4d.nii.gz cines with NAME_frameNN_gt.nii.gz (and NAME_frameNN.nii.gz where there is no cine).
    `label_map` is only validated, so that a wrong flag fails before the data are read.

    Raises UserError for a missing folder, no cases, names that clash and links that lead outside.
    """
    parse_label_map(label_map)
    root = Path(data_dir)
    if not root.is_dir():
        raise UserError(f"--data_dir={data_dir} is not a folder: give the folder that holds the patients.")
    folders: dict[Path, bool] = {}  # whether it is a patient's own
    for top in filter(Path.is_dir, (root / subfolder for subfolder in _SUBFOLDERS)):
        folders |= {path: True for path in sorted(top.iterdir()) if path.is_dir()} | {top: False}
    cases: dict[str, Case] = {}
    for folder, own in folders.items():
        for case in _cases_of_folder(folder, root, own):
            if case.name in cases:
                raise UserError(f"{folder}: there is a second case named {case.name} in {root}; rename one of them.")
            cases[case.name] = case
    if not cases:
        raise UserError(
            f"--data_dir={data_dir} holds no cases: expected patientXXX/patientXXX_4d.nii.gz with "
            "patientXXX_frameNN_gt.nii.gz beside it, or a folder of NAME.nii.gz with NAME_frameNN_gt.nii.gz."
        )
    return [cases[name] for name in sorted(cases)]


def _cases_of_folder(folder: Path, root: Path, own_folder: bool) -> list[Case]:
    """Groups the NIfTI files of one folder by case; a patient's own folder with one case gives it its name."""
    found: dict[str, dict] = {}
    for path in sorted(folder.iterdir()):
        match = None if path.name.startswith(".") or path.is_dir() else _FILE.fullmatch(path.name)
        if not match:
            continue
        _stay_inside(path, root)
        name, number = match["name"], match["frame"]
        if number is None and name.endswith("_gt"):
            raise UserError(f"{path}: a ground truth needs its frame number in its name; save each labelled frame as "
                            "NAME_frameNN_gt.nii.gz.")
        if number is not None and int(number) == 0:
            raise UserError(f"{path}: frames are counted from 1; rename the file.")
        kind = "cine" if number is None else "labels" if match["gt"] else "frames"
        time = -1 if number is None else int(number) - 1
        files = found.setdefault(name, {"cine": {}, "frames": {}, "labels": {}})[kind]
        if time in files:
            raise UserError(f"{path}: {files[time].name} stands for the same data; remove one of the two.")
        files[time] = path
    info_path = folder / "Info.cfg"
    info_path = info_path if info_path.is_file() and len(found) == 1 else None
    if info_path:
        _stay_inside(info_path, root)
    info = _read_info(info_path)
    return [
        Case(
            name=folder.name if own_folder and len(found) == 1 else name,
            group=info.get("Group", "").upper(),
            ed=_zero_based(info.get("ED")),
            es=_zero_based(info.get("ES")),
            nominal_spacing=info.get("Spacing", "").lower() == "nominal",
            cine=files["cine"].get(-1),
            frames=files["frames"],
            labels=files["labels"],
            info=info_path,
        )
        for name, files in found.items()
    ]


def _stay_inside(path: Path, root: Path) -> None:
    if not path.resolve().is_relative_to(root.resolve()):
        raise UserError(f"{path} is a link that leads outside {root}; put the file itself there.")


def _read_info(path: Path | None) -> dict[str, str]:
    """Info.cfg as {key: value}: lines of 'key: value', others ignored."""
    if path is None:
        return {}
    pairs = (line.partition(":") for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines())
    return {key.strip(): value.strip() for key, colon, value in pairs if colon}


def _zero_based(text: str | None) -> int | None:
    return int(text) - 1 if text and re.fullmatch(r"-?\d{1,6}", text) else None


def _same(frame: np.ndarray, other: np.ndarray) -> bool:
    """Equal up to the rounding of a change of type; NaN and infinity are reported elsewhere."""
    difference = np.abs(np.nan_to_num(frame) - np.nan_to_num(other))
    return difference.max() <= _SAME_INTENSITY * np.ptp(np.nan_to_num(other))


def _examine(case: Case, label_map: str) -> tuple[Cine | None, list[str]]:
    """The case, if its images can be read, and everything that is wrong with it."""
    mapping, problems = parse_label_map(label_map), []
    cine, volumes = None, {}
    if case.cine and (opened := _attempt(problems, open_frames, case.cine)):
        image, frames, found = opened
        problems += found
        if image.ndim == 3:
            problems.append(f"{case.cine} is 3D {image.shape} where a cine (x, y, z, t) is expected; replace it, or "
                            "name a single frame NAME_frameNN.nii.gz.")
        else:
            cine = _cine(case, frames, range(len(frames)), image)
    for time, path in sorted(case.frames.items()):
        if opened := _attempt(problems, open_frames, path):
            image, frames, found = opened
            problems += found
            if len(frames) > 1:
                problems.append(f"{path} has {len(frames)} frames where one is expected; name a cine NAME_4d.nii.gz.")
            else:
                volumes[time] = frames[0]
    problems += _info_problems(case, len(cine.frames) if cine else None)
    if cine:
        for time, volume in volumes.items():
            problems += _frame_problems(case, time, volume, cine.frames)
    elif volumes and not case.cine:
        shapes = sorted({volume.shape[::-1] for volume in volumes.values()})
        if len(shapes) == 1:
            cine = _cine(case, np.stack(list(volumes.values())), volumes, image)
        else:
            problems.append(f"{case.frames[min(volumes)].parent}: the frames of {case.name} differ in shape "
                            f"({' and '.join(map(str, shapes))}); export them on one grid.")
    elif not case.cine and not case.frames:
        problems.append(f"{case.labels[min(case.labels)]} has no image; add {case.name}_4d.nii.gz.")
    for time, path in sorted(case.labels.items()):
        labels = _attempt(problems, read_labels, path, mapping)
        if cine and labels is not None:
            problems += _label_problems(cine, time, labels)
            cine.labels[time] = labels
    return cine, problems


def _attempt(problems: list[str], reader: Callable, *arguments):
    """What `reader` returns, or None and its complaint among the problems."""
    try:
        return reader(*arguments)
    except UserError as error:
        problems.append(str(error))
        return None


def _cine(case: Case, frames: np.ndarray, times: Iterable[int], image: nib.Nifti1Image) -> Cine:
    return Cine(case, frames, tuple(times), {}, spacing_of(image), image.affine, image.header)


def _info_problems(case: Case, count: int | None) -> list[str]:
    """What Info.cfg says that cannot be; `count` is the number of frames of the cine, if there is one."""
    problems, info = [], _read_info(case.info)
    for key in ("ED", "ES", "NbFrame"):
        if key not in info:
            continue
        number = _zero_based(info[key])
        if number is None or number < 0:
            problems.append(f"{case.info}: {key} is '{info[key]}'; write a frame number counted from 1.")
        elif count is not None and key == "NbFrame" and number + 1 != count:
            problems.append(f"{case.info}: NbFrame is {number + 1}, but {case.cine.name} has {count} frames; "
                            "correct the one that is wrong.")
        elif count is not None and number >= count:
            problems.append(f"{case.info}: {key} is {number + 1}, but {case.cine.name} has {count} frames; correct it.")
    return problems


def _frame_problems(case: Case, time: int, volume: np.ndarray, frames: np.ndarray) -> list[str]:
    """Whether a frame file is the frame of the cine that its name says."""
    path, cine = case.frames[time], case.cine.name
    if time >= len(frames):
        return [f"{path} is frame {time + 1}, but {cine} has {len(frames)} frames; rename or remove it."]
    if volume.shape != frames.shape[1:]:
        return [f"{path} has the shape {volume.shape[::-1]}, the frames of {cine} {frames.shape[:0:-1]}; "
                "export both on one grid."]
    if not np.isfinite([volume, frames[time]]).all() or _same(volume, frames[time]):
        return []
    twin = next((f" (it is frame {other + 1})" for other in range(len(frames)) if _same(volume, frames[other])), "")
    return [f"{path} is not frame {time + 1} of {cine}{twin}; correct its number or its content."]


def _label_problems(cine: Cine, time: int, labels: np.ndarray) -> list[str]:
    """Whether a ground truth has an image and its shape."""
    path, shape = cine.case.labels[time], cine.frames.shape[1:]
    if time not in cine.times:
        there = f"{cine.case.cine.name} has {len(cine.times)} frames" if cine.case.cine else "that frame is not there"
        return [f"{path} labels frame {time + 1}, but {there}; add the image or remove the file."]
    if labels.shape != shape:
        return [f"{path} has the shape {labels.shape[::-1]}, its image {shape[::-1]}; export both on one grid."]
    return []


def check(case: Case, label_map: str = "") -> list[str]:
    """Everything that makes a case unfit for training, a sentence each; reads all of its files.

    Raises UserError only for a malformed `label_map`.
    """
    _, problems = _examine(case, label_map)
    if case.frames and not case.labels:
        path = case.frames[min(case.frames)]
        suffix = ".nii.gz" if path.name.endswith(".gz") else ".nii"
        truth = path.name.removesuffix(suffix) + "_gt" + suffix
        problems.append(f"{path} has no ground truth, nor has another frame of {case.name}; add {truth}.")
    return problems


def remarks(case: Case) -> list[str]:
    """What is odd about a readable case but no reason to leave it out, a sentence each.

    These are: a ground truth whose affine differs from its image's by more than rounding, and a frame file without
    ground truth beside labelled ones.
    """
    found = []
    for time, path in sorted(case.labels.items()):
        source = case.cine or case.frames.get(time)
        if source and not np.allclose(nib.load(path).affine, nib.load(source).affine, rtol=0, atol=_SAME_AFFINE):
            found.append(f"{path} has another affine than {source.name}; voxels are matched by index all the same.")
    if case.labels:
        for time in sorted(set(case.frames) - set(case.labels)):
            found.append(f"{case.frames[time]} has no ground truth and is not trained on.")
    return found


def read(case: Case, label_map: str = "") -> Cine:
    """All frames and labels of a case; a case without ground truth has no labels.

    Raises UserError with the first problem of the case.
    """
    cine, problems = _examine(case, label_map)
    if problems:
        raise UserError(problems[0])
    return cine
