"""A plain folder of NIfTI files, or of patients' folders of them: cines, single frames, and ground truths of frames.

NAME.nii.gz or NAME_4d.nii.gz is a cine, NAME_frameNN.nii.gz a frame and NAME_frameNN_gt.nii.gz its ground truth; .nii and
pairs of .img and .hdr are as good, in capitals too. Frame numbers are 0-based here; files count from 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from ica_unet_jax.data import checks, orientation
from ica_unet_jax.data.case import Case, Cine, Examination
from ica_unet_jax.data.nifti import check_frames, files_of, open_frames, read_labels, spacing_of, stem

_FILE = re.compile(r"(?P<name>.+?)(?:_4d|_frame(?P<frame>\d+)(?P<gt>_gt)?)?\.(?:nii|img)(?:\.gz)?", re.DOTALL | re.IGNORECASE)
_SAME_AFFINE = 0.01  # mm; ground truths are often saved with rounded affines


def recognises(root: Path) -> bool:
    """Whatever no other reader knows."""
    return True


def find_cases(root: Path) -> Iterator[tuple[Path, Case]]:
    """As `Reader.find_cases`."""
    for place, own in folders(root).items():
        yield from ((place, case) for case in cases_of(place, root, own))


def folders(root: Path, tops: Sequence[str] = ("",)) -> dict[Path, bool]:
    """The folders that may hold images: those of `tops` that are there, and the folders in them; whether each is a patient's own."""
    found: dict[Path, bool] = {}
    for top in filter(Path.is_dir, (root / name for name in tops)):
        found |= {path: True for path in sorted(top.iterdir()) if path.is_dir()} | {top: False}
    return found


def cases_of(place: Path, root: Path, own: bool) -> list[Case]:
    """Groups the NIfTI files of one folder by case; a patient's own folder with one case gives it its name."""
    found: dict[str, dict] = {}
    for path in sorted(place.iterdir()):
        match = _FILE.fullmatch(path.name)
        if not match or path.name.startswith(".") or (path.is_dir() and not own):
            continue
        name, number = match["name"], match["frame"]
        name = name if name.isprintable() else ascii(name)[1:-1]
        unnumbered = number is None and name.lower().endswith("_gt")
        files = found.setdefault(name[: -len("_gt")] if unnumbered else name,
                                 {"cine": {}, "frames": {}, "labels": {}, "problems": []})
        kind = "cine" if number is None else "labels" if match["gt"] else "frames"
        time = -1 if number is None else int(number) - 1
        there = (file for file in files_of(path) if file == path or file.is_symlink() or file.exists())
        if problem := next(filter(None, (checks.of_path(file, root) for file in there)), ""):
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
    return [
        Case(
            name=place.name if own and len(found) == 1 and place.name.isprintable() else name,
            cine=files["cine"].get(-1),
            frames=files["frames"],
            labels=files["labels"],
            problems=tuple(files["problems"]),
        )
        for name, files in found.items()
    ]


def examine(case: Case, label_map: Mapping[int, int], with_labels: bool) -> Examination:
    """As `Reader.examine`."""
    seen = Examination(problems=list(case.problems))
    problems = seen.problems
    volumes, images = {}, {}
    if case.cine and (opened := checks.attempt(problems, check_frames, case.cine)):
        image, frames, found, empty = opened
        problems += found
        # What is learnt from or judged must be whole; of another cine the rest is worth having.
        (problems if with_labels and case.labels else seen.remarks).extend(empty)
        if image.ndim == 3 and (with_labels or stem(case.cine).lower().endswith("_4d")):
            problems.append(f"{case.cine} is 3D {image.shape} where a cine (x, y, z, t) is expected; replace it, or "
                            "name a single frame NAME_frameNN.nii.gz.")
        else:
            seen.cine = _cine(case, frames, range(len(frames)), image)
    for time, path in sorted(case.frames.items()):
        if opened := checks.attempt(problems, check_frames, path):
            image, frames, found, empty = opened
            problems += found + empty
            if len(frames) > 1:
                problems.append(f"{path} has {len(frames)} frames where one is expected; name a cine NAME_4d.nii.gz.")
            else:
                volumes[time], images[time] = frames[0], image
    if seen.cine:
        for time, volume in volumes.items():
            problems += checks.of_frame(case.frames[time], time, volume, case.cine, seen.cine.frames)
    elif volumes and not case.cine:
        shapes = sorted({volume.shape[::-1] for volume in volumes.values()})
        if len(shapes) == 1:
            seen.cine = _cine(case, np.stack(list(volumes.values())), volumes, images[min(images)])
            codes = {orientation.codes_of(image.header) or "without orientation" for image in images.values()}
            if len(codes) > 1:
                problems.append(f"{case.frames[min(volumes)].parent}: the frames of {case.name} lie differently in the patient "
                                f"({' and '.join(sorted(codes))}); export them on one grid.")
        else:
            problems.append(f"{case.frames[min(volumes)].parent}: the frames of {case.name} differ in shape "
                            f"({' and '.join(map(str, shapes))}); export them on one grid.")
    elif not case.cine and not case.frames and not case.problems:
        problems.append(f"{case.labels[min(case.labels)]} has no image; add {case.name}_4d.nii.gz.")
    if with_labels:
        _examine_labels(seen, case, label_map)
    return seen


def examine_file(path: Path, whole: bool = True) -> Examination:
    """An image by itself, 3D or 4D, whatever its name; if not `whole`, its frames may hold anything. Raises UserError if unreadable."""
    image, frames, problems, empty = check_frames(path) if whole else (*open_frames(path), [])
    return Examination(_cine(Case(stem(path), cine=path), frames, range(len(frames)), image), problems, empty)


def _examine_labels(seen: Examination, case: Case, label_map: Mapping[int, int]) -> None:
    """Adds the ground truths to the cine, if there is one, and what is to be said of them."""
    for time, path in sorted(case.labels.items()):
        opened = checks.attempt(seen.problems, read_labels, path, label_map)
        if not opened or not seen.cine:
            continue
        labels, affine, rounded = opened
        seen.cine.labels[time] = labels
        if rounded:
            seen.remarks.append(f"{path} holds labels that are no whole numbers, but close to them; they are rounded.")
        times, shape = seen.cine.times, seen.cine.frames.shape[1:]
        seen.problems += checks.of_labels(path, time, labels.shape, case.cine, times, shape)
        if not np.allclose(affine, seen.cine.affine, rtol=0, atol=_SAME_AFFINE):
            image = case.cine or case.frames.get(time)
            seen.remarks.append(f"{path} has another affine than {image.name if image else 'its image'}; voxels are "
                                "matched by index all the same.")
    seen.problems += checks.of_truth(case)
    if case.labels:
        bare = sorted(set(case.frames) - set(case.labels))
        seen.remarks += [f"{case.frames[time]} has no ground truth and is not trained on." for time in bare]


def _cine(case: Case, frames: np.ndarray, times: Iterable[int], image: nib.Nifti1Image) -> Cine:
    return Cine(case, frames, tuple(times), {}, spacing_of(image), image.affine, image.header)
