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

from ica_unet_jax.data import checks
from ica_unet_jax.data.nifti import check_frames, parse_label_map, read_labels, read_volume, spacing_of
from ica_unet_jax.errors import BadData, UserError

__all__ = ["Case", "Cine", "Examination", "check", "examine", "find_cases", "missing_truth", "parse_label_map", "read", "read_volume",
           "spacing_of"]

_FILE = re.compile(r"(?P<name>.+?)(?:_4d|_frame(?P<frame>\d+)(?P<gt>_gt)?)?\.nii(?:\.gz)?", re.DOTALL)
_SUBFOLDERS = ("", "training", "testing", "database/training", "database/testing")
_SAME_AFFINE = 0.01  # mm; ground truths are often saved with rounded affines


@dataclasses.dataclass(frozen=True)
class Case:
    """Where the files of one patient lie. Frame numbers are 0-based.

    `group` is '' and `ed`, `es` are None where Info.cfg does not say. With `nominal_spacing` the voxel size is not
    the true one, so mm and mL of this case mean nothing. `frames` and `labels` map frame numbers to 3D files.
    `problems` are what names and links alone show to be wrong, a sentence each; files in them stand nowhere else.
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
    problems: tuple[str, ...] = ()

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
    `label_map` is only validated, so that a wrong flag fails before the data are read. Names that clash, numbers that
    cannot be and links that lead outside are among the problems of their case.

    Raises UserError for a folder that is missing, cannot be listed, or holds no cases.
    """
    parse_label_map(label_map)
    root = Path(data_dir)
    if not root.is_dir():
        raise UserError(f"--data_dir={data_dir} is not a folder: give the folder that holds the patients.")
    try:
        folders: dict[Path, bool] = {}  # whether it is a patient's own
        for top in filter(Path.is_dir, (root / subfolder for subfolder in _SUBFOLDERS)):
            folders |= {path: True for path in sorted(top.iterdir()) if path.is_dir()} | {top: False}
        found = [(folder, case) for folder, own in folders.items() for case in _cases_of_folder(folder, root, own)]
    except OSError as error:
        raise UserError(f"{error.filename} cannot be listed ({error.strerror}); make it readable.") from error
    cases: dict[str, Case] = {}
    for folder, case in found:
        if case.name in cases:
            twin = f"{folder}: there is a second case named {case.name} in {root}; rename one of them."
            case = dataclasses.replace(cases[case.name], problems=(*cases[case.name].problems, twin))
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
        match = _FILE.fullmatch(path.name)
        if not match or path.name.startswith(".") or (path.is_dir() and not own_folder):
            continue
        name, number = match["name"], match["frame"]
        name = name if name.isprintable() else ascii(name)[1:-1]
        unnumbered = number is None and name.endswith("_gt")
        files = found.setdefault(name.removesuffix("_gt") if unnumbered else name,
                                 {"cine": {}, "frames": {}, "labels": {}, "problems": []})
        kind = "cine" if number is None else "labels" if match["gt"] else "frames"
        time = -1 if number is None else int(number) - 1
        if problem := _path_problem(path, root):
            files["problems"].append(problem)
        elif unnumbered:
            files["problems"].append(f"{path}: a ground truth needs its frame number in its name; save each labelled "
                                     "frame as NAME_frameNN_gt.nii.gz.")
        elif number is not None and time < 0:
            files["problems"].append(f"{path}: frames are counted from 1; rename the file.")
        elif time in files[kind]:
            files["problems"].append(f"{path}: {files[kind][time].name} stands for the same data; remove one of the "
                                     "two.")
        else:
            files[kind][time] = path
    info_path = folder / "Info.cfg"
    info_path = info_path if info_path.is_file() and len(found) == 1 else None
    if info_path and (problem := _path_problem(info_path, root)):
        next(iter(found.values()))["problems"].append(problem)
        info_path = None
    info = _attempt([], _read_info, info_path) or {}  # `examine` reads it again, and reports
    return [
        Case(
            name=folder.name if own_folder and len(found) == 1 and folder.name.isprintable() else name,
            group=info.get("Group", "").upper(),
            ed=checks.zero_based(info.get("ED")),
            es=checks.zero_based(info.get("ES")),
            nominal_spacing=info.get("Spacing", "").lower() == "nominal",
            cine=files["cine"].get(-1),
            frames=files["frames"],
            labels=files["labels"],
            info=info_path,
            problems=tuple(files["problems"]),
        )
        for name, files in found.items()
    ]


def _path_problem(path: Path, root: Path) -> str:
    """Why a path must not be opened, or ""."""
    if not f"{path.relative_to(root)}".isprintable():
        return f"{str(path.relative_to(root))!a} in {root} has a name that cannot be written; rename it."
    if path.is_dir():
        return f"{path} is a folder where a file is expected; put the file itself there."
    try:
        inside = path.resolve(strict=True).is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # RuntimeError: a link to itself, before Python 3.13
        return f"{path} is a link that leads nowhere; put the file itself there."
    return "" if inside else f"{path} is a link that leads outside {root}; put the file itself there."


def _read_info(path: Path | None) -> dict[str, str]:
    """Info.cfg as {key: value}, what is no text left out; other lines are ignored. UserError where it cannot be read."""
    if path is None:
        return {}
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); make it readable.") from error
    pairs = ("".join(filter(str.isprintable, line)).partition(":") for line in text.splitlines())
    return {key.strip(): value.strip() for key, colon, value in pairs if colon}


def _attempt(problems: list[str], reader: Callable, *arguments):
    """What `reader` returns, or None and its complaint among the problems."""
    try:
        return reader(*arguments)
    except UserError as error:
        problems.append(str(error))
        return None


@dataclasses.dataclass
class Examination:
    """What was found in the files of a case: the images and labels, if they can be read, and a sentence each for

    problems: what makes it unfit; remarks: what is odd about it but no reason to leave it out.
    """

    cine: Cine | None = None
    problems: list[str] = dataclasses.field(default_factory=list)
    remarks: list[str] = dataclasses.field(default_factory=list)


def examine(case: Case, label_map: str = "", *, with_labels: bool = True) -> Examination:
    """Reads all files of a case and compares them.

    Where `with_labels` is false ground truths are not looked at, and NAME.nii.gz may be a single frame.

    Raises UserError only for a malformed `label_map`.
    """
    mapping, seen = parse_label_map(label_map), Examination(problems=list(case.problems))
    problems = seen.problems
    volumes = {}
    if case.cine and (opened := _attempt(problems, check_frames, case.cine)):
        image, frames, found = opened
        problems += found
        if image.ndim == 3 and (with_labels or "_4d.nii" in case.cine.name):
            problems.append(f"{case.cine} is 3D {image.shape} where a cine (x, y, z, t) is expected; replace it, or "
                            "name a single frame NAME_frameNN.nii.gz.")
        else:
            seen.cine = _cine(case, frames, range(len(frames)), image)
    for time, path in sorted(case.frames.items()):
        if opened := _attempt(problems, check_frames, path):
            image, frames, found = opened
            problems += found
            if len(frames) > 1:
                problems.append(f"{path} has {len(frames)} frames where one is expected; name a cine NAME_4d.nii.gz.")
            else:
                volumes[time] = frames[0]
    info = _attempt(problems, _read_info, case.info) or {}
    problems += checks.of_info(case.info, info, case.cine, len(seen.cine.frames) if seen.cine else None)
    if seen.cine:
        for time, volume in volumes.items():
            problems += checks.of_frame(case.frames[time], time, volume, case.cine, seen.cine.frames)
    elif volumes and not case.cine:
        shapes = sorted({volume.shape[::-1] for volume in volumes.values()})
        if len(shapes) == 1:
            seen.cine = _cine(case, np.stack(list(volumes.values())), volumes, image)
        else:
            problems.append(f"{case.frames[min(volumes)].parent}: the frames of {case.name} differ in shape "
                            f"({' and '.join(map(str, shapes))}); export them on one grid.")
    elif not case.cine and not case.frames and not case.problems:
        problems.append(f"{case.labels[min(case.labels)]} has no image; add {case.name}_4d.nii.gz.")
    if with_labels:
        _examine_labels(seen, case, mapping)
    return seen


def _examine_labels(seen: Examination, case: Case, mapping: dict[int, int]) -> None:
    """Adds the ground truths to the cine, if there is one, and what is to be said of them."""
    for time, path in sorted(case.labels.items()):
        opened = _attempt(seen.problems, read_labels, path, mapping)
        if not opened or not seen.cine:
            continue
        labels, affine = opened
        seen.cine.labels[time] = labels
        times, shape = seen.cine.times, seen.cine.frames.shape[1:]
        seen.problems += checks.of_labels(path, time, labels.shape, case.cine, times, shape)
        if not np.allclose(affine, seen.cine.affine, rtol=0, atol=_SAME_AFFINE):
            image = case.cine or case.frames.get(time)
            seen.remarks.append(f"{path} has another affine than {image.name if image else 'its image'}; voxels are "
                                "matched by index all the same.")
    seen.problems += missing_truth(case)
    if case.labels:
        bare = sorted(set(case.frames) - set(case.labels))
        seen.remarks += [f"{case.frames[time]} has no ground truth and is not trained on." for time in bare]


def missing_truth(case: Case) -> list[str]:
    """A problem where there are frame files, as ACDC has them for ED and ES, and no ground truth of any."""
    if case.labels or not case.frames:
        return []
    path = case.frames[min(case.frames)]
    suffix = ".nii.gz" if path.name.endswith(".gz") else ".nii"
    truth = path.name.removesuffix(suffix) + "_gt" + suffix
    return [f"{path} has no ground truth, nor has another frame of {case.name}; add {truth}."]


def _cine(case: Case, frames: np.ndarray, times: Iterable[int], image: nib.Nifti1Image) -> Cine:
    return Cine(case, frames, tuple(times), {}, spacing_of(image), image.affine, image.header)


def check(case: Case, label_map: str = "", *, with_labels: bool = True) -> list[str]:
    """Everything that makes a case unfit, a sentence each; see `examine`."""
    return examine(case, label_map, with_labels=with_labels).problems


def read(case: Case, label_map: str = "", *, with_labels: bool = True) -> Cine:
    """All frames and labels of a case.

    Raises BadData with all that is wrong with it; frame files without any ground truth are, unless `with_labels` is
    false.
    """
    seen = examine(case, label_map, with_labels=with_labels)
    if seen.problems:
        raise BadData(seen.problems)
    return seen.cine
