"""nnU-Net's raw data: imagesTr/CASE_0000.nii.gz, labelsTr/CASE.nii.gz, imagesTs, labelsTs, dataset.json, perhaps splits_final.json.

A case there is a frame. Frames whose names end with _frameNN, or with _ED and _ES, or are those of nnU-Net's own M&Ms, CODE_NNNN_VENDOR_CENTRE,
are joined to patients. dataset.json names the labels, by which they are mapped; splits_final.json, if it lies beside it, splits the patients.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ica_unet_jax.data import checks, folders, images, phases
from ica_unet_jax.data.case import Case, Examination
from ica_unet_jax.errors import UserError
from ica_unet_jax.labels import STRUCTURES

_NAMES = {  # of labels, without blanks and signs
    "RV": {"rv", "rvc", "rvbp", "rvcavity", "rvbloodpool", "rightventricle", "rightventricularcavity", "rightventricularbloodpool"},
    "MYO": {"myo", "mlv", "lvm", "lvmyo", "myocardium", "lvmyocardium", "leftventricularmyocardium"},
    "LV": {"lv", "lvc", "lvbp", "lvcavity", "lvbloodpool", "leftventricle", "leftventricularcavity", "leftventricularbloodpool"},
}  # fmt: skip
_FRAME = re.compile(r"(?P<patient>.+?)_(?:frame(?P<number>\d+)|(?P<phase>ED|ES))", re.IGNORECASE)
_OF_MMS = re.compile(r"(?:[A-Z]_\d_)?(?P<patient>(?:[A-Z]\d){3})_(?P<time>\d{4})(?:_[A-Z]_\d)?")  # its codes are like A0S9V9; from 0
Folds = list[dict[str, list[str]]]  # {"train": names of frames, "val": names} of each


def recognises(root: Path) -> bool:
    """Whether there is a folder of images for the training, or the test."""
    return any((root / part).is_dir() for part in ("imagesTr", "imagesTs"))


def find_cases(root: Path) -> Iterator[tuple[Path, Case]]:
    """As `Reader.find_cases`. Raises UserError too, where dataset.json or splits_final.json is none."""
    info, folds = root / "dataset.json", _read_folds(root / "splits_final.json")
    known = _read_names(info)
    about: dict[str, Any] = dict(
        label_map=",".join(f"{value}:{label}" for value, label in known.values() if label is not None), info=info if known else None
    )
    remarks = () if known else (f"{root}: there is no dataset.json that names the labels; they are taken as 1 RV, 2 myocardium, 3 LV.",)
    for part, ending in (("train", "Tr"), ("test", "Ts")):
        pictures, truths = (folders.Images(root / f"{kind}{ending}", root) for kind in ("images", "labels"))
        patients: dict[str, list[str]] = {}
        for name in sorted({*(name.rpartition("_")[0] for name in pictures), *truths}):
            patients.setdefault(_place(name)[0], []).append(name)
        for patient, names in patients.items():
            case = _case(patient, names, pictures, truths, folds if part == "train" else [])
            yield pictures.place, dataclasses.replace(case, part=part if any(truths) else "test", remarks=remarks, **about)
            remarks = ()


def examine(case: Case, label_map: Mapping[int, int], with_labels: bool) -> Examination:
    """As `Reader.examine`; a ground truth without a heart is a problem, and so is a label that is found and has an unknown name."""
    seen = checks.with_hearts(images.examine(case, label_map, with_labels))
    known = _read_names(case.info) if case.info else {}
    if unnamed := sorted(seen.stored - {0, *label_map, *(value for value, _ in known.values())}) if known else []:
        seen.problems.append(f"{case.info} names no label {unnamed[0]}, which {case.name} has; add it, or use --label_map.")
    for name, (value, label) in known.items():
        if label is None and value in seen.stored and value not in label_map:
            seen.problems.append(f"{case.info} calls label {value} '{name[:20]}', which is not known; call it RV, MYO or LV, or use --label_map.")
    return seen


def _case(patient: str, names: list[str], pictures: folders.Images, truths: folders.Images, folds: Folds) -> Case:
    """A patient with the frames of those names."""
    frames: dict[int, Path] = {}
    labels: dict[int, Path] = {}
    problems: list[str] = []
    truth_problems: list[str] = []
    for name in names:
        time, image, truth = _place(name)[1], pictures.take(f"{name}_0000", problems), truths.take(name, truth_problems)
        if f"{name}_0001" in pictures:
            problems.append(f"{pictures.place}: {name} has several channels; cine MRI has one, {name}_0000.")
        elif time < 0 or time in frames:
            problems.append(f"{pictures.place}: {name} is no frame of its own, counted from 1; rename it, in all folders.")
        elif f"{name}_0000" not in pictures:
            truth_problems.append(f"{truth or truths.place / name} has no image; add {pictures.place.name}/{name}_0000.nii.gz.")
        elif image:
            frames[time] = image
            labels |= {time: truth} if truth else {}
            if any(truths) and name not in truths:
                truth_problems.append(f"{image} has no ground truth; add {truths.place.name}/{name}.nii.gz.")
    parts = [{part for part in ("train", "val") for name in names if name in fold[part]} for fold in folds]
    truth_problems += [f"{pictures.place.parent / 'splits_final.json'}: fold {number} trains on frames of {patient} and validates on others; keep a "
                       "patient together." for number, part in enumerate(parts) if len(part) > 1]
    told = {(match["phase"] or "").upper() for name in names if (match := _FRAME.fullmatch(name))}
    times = {phase.lower(): time for phase, time in phases.TIMES.items() if phase in told}
    return Case(
        patient, frames=frames, labels=labels, folds=tuple("".join(part) for part in parts), problems=tuple(problems),
        truth_problems=tuple(truth_problems), **times,
    )  # fmt: skip


def _place(name: str) -> tuple[str, int]:
    """The patient and the frame number that a frame's name tells; a name that tells none is a patient's with one frame."""
    if match := _OF_MMS.fullmatch(name):
        return match["patient"], int(match["time"])
    if match := _FRAME.fullmatch(name):
        return match["patient"], phases.TIMES[match["phase"].upper()] if match["phase"] else int(match["number"]) - 1
    return name, 0


def _read_names(path: Path) -> dict[str, tuple[int, int | None]]:
    """The labels that dataset.json names: {name: (value, class here)}, None for a class that is not known; {} where there is no such file.

    Raises UserError where it cannot be read, or gives two labels one value.
    """
    if not path.is_file():
        return {}
    try:
        named = json.loads(path.read_bytes())["labels"]
        pairs = [(name, value) if isinstance(value, int) else (value, int(name)) for name, value in named.items()]  # or, in version 1, {"1": "RV"}
        found = {name: (value, _class(name, value)) for name, value in pairs}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f'{path} does not name the labels as "labels": {{"background": 0, "RV": 1, ...}} ({error!r}); correct it.') from error
    if twice := [value for value, count in Counter(value for value, _ in found.values()).items() if count > 1]:
        raise UserError(f"{path} gives several labels the value {twice[0]}; correct it.")
    return found


def _class(name: str, value: int) -> int | None:
    plain = re.sub(r"[^a-z]", "", name.lower())
    return 0 if value == 0 else next((STRUCTURES[structure] for structure, names in _NAMES.items() if plain in names), None)


def _read_folds(path: Path) -> Folds:
    """The folds that splits_final.json lists; none where there is no such file. Raises UserError where it cannot be read."""
    if not path.is_file():
        return []
    try:
        return [{part: [str(name) for name in fold[part]] for part in ("train", "val")} for fold in json.loads(path.read_bytes())]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f'{path} is no list of {{"train": [names], "val": [names]}} ({error!r}); correct it.') from error
