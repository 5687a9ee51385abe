"""A plain folder of NIfTI files, or of patients' folders of them: cines, single frames, and ground truths of frames.

NAME.nii.gz or NAME_4d.nii.gz is a cine, NAME_frameNN.nii.gz a frame and NAME_frameNN_gt.nii.gz its ground truth, NAME_gt.nii.gz that of
the whole cine; .nii and pairs of .img and .hdr are as good, in capitals too. Frame numbers are 0-based here; files count from 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ica_unet_jax.data import checks, images
from ica_unet_jax.data.case import Case
from ica_unet_jax.data.nifti import read_header
from ica_unet_jax.data.saving import holds_our_labels

_FILE = re.compile(r"(?P<name>.+?)(?:_4d|_frame(?P<frame>\d+)(?P<gt>_gt)?)?\.(?:nii|img)(?:\.gz)?", re.DOTALL | re.IGNORECASE)


examine = images.examine


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
        if match["name"].endswith("_seg") and holds_our_labels(path):  # which predict left beside its input
            continue
        name, number = match["name"], match["frame"]
        name = name if name.isprintable() else ascii(name)[1:-1]
        unnumbered = number is None and name.lower().endswith("_gt")
        files = found.setdefault(name[: -len("_gt")] if unnumbered else name,
                                 {"cine": {}, "truth": {}, "frames": {}, "labels": {}, "problems": [], "truth_problems": []})
        kind = "truth" if unnumbered else "cine" if number is None else "labels" if match["gt"] else "frames"
        time = -1 if number is None else int(number) - 1
        problems = files["truth_problems" if kind in ("truth", "labels") else "problems"]
        if problem := checks.of_image(path, root):
            problems.append(problem)
        elif unnumbered and not _is_cine(path):
            problems.append(f"{path}: a ground truth needs its frame number in its name; save each labelled "
                                     "frame as NAME_frameNN_gt.nii.gz.")
        elif number is not None and time < 0:
            problems.append(f"{path}: frames are counted from 1; rename the file.")
        elif time in files[kind]:
            problems.append(f"{path}: {files[kind][time].name} stands for the same data; remove one of the "
                                     "two.")
        else:
            files[kind][time] = path
    for files in found.values():
        if files["truth"] and files["labels"]:
            files["truth_problems"].append(f"{files['truth'].pop(-1)}: {min(files['labels'].values()).name} is a ground truth of the same cine; remove one "
                                     "of the two.")
    return [
        Case(
            name=place.name if own and len(found) == 1 and place.name.isprintable() else name,
            cine=files["cine"].get(-1),
            frames=files["frames"],
            labels=files["labels"],
            truth=files["truth"].get(-1),
            problems=tuple(files["problems"]),
            truth_problems=tuple(files["truth_problems"]),
        )
        for name, files in found.items()
    ]


def _is_cine(path: Path) -> bool:
    """Whether an image has several frames, by its header alone."""
    header = read_header(path)
    return header is not None and header.get_data_shape()[3:4] > (1,)
