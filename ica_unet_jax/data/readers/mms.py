"""M&Ms (2020): CODE/CODE_sa.nii.gz with the ground truth of the whole cine, filled at ED and ES alone, and a table of the patients.

The parts are Training/Labeled, Training/Unlabeled, Validation and Testing. The ground truths of Unlabeled hold zeros and are none.
Labels are 1 LV, 2 myocardium, 3 RV; the table counts frames from 0.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ica_unet_jax.data import folders, images, tables
from ica_unet_jax.data.case import Case, Examination

LABEL_MAP = "1:3,2:2,3:1"
_CODE = "External code"  # the column of the patients' names
_PARTS = {"Labeled": "train", "Unlabeled": "train", "Training": "train", "Validation": "val", "Testing": "test"}
_DEPTH = 3  # Training/Labeled/CODE
_FILE = re.compile(r"(.+)_sa(?:_gt)?")


def recognises(root: Path) -> bool:
    """Whether there are M&Ms' parts, or ground truths of whole cines under its names, in folders of these names."""
    truths = (path for level in range(_DEPTH + 1) for path in root.glob("*/" * level + "*_sa_gt.nii*"))
    return any((root / "Training" / part).is_dir() for part in ("Labeled", "Unlabeled")) or any(
        path.name.startswith(f"{path.absolute().parent.name}_sa_gt.") for path in truths)


def find_cases(root: Path) -> Iterator[tuple[Path, Case]]:
    """As `Reader.find_cases`."""
    table = tables.Patients(root, _CODE)
    for place in folders.below(root, _DEPTH):
        files = folders.Images(place, root)
        for name in sorted({match[1] for match in map(_FILE.fullmatch, files) if match}):
            yield place, _case(name, files, table)


def examine(case: Case, label_map: Mapping[int, int], with_labels: bool) -> Examination:
    """As `Reader.examine`: the table's frames must be there, and are told where nothing labels them."""
    seen = images.examine(case, label_map, with_labels)
    for phase, time in (("ED", case.ed), ("ES", case.es)):
        if with_labels and seen.cine and time is not None:
            count = len(seen.cine.frames)
            if not 0 <= time < count:
                seen.problems.append(f"{case.info}: {phase} of {case.name} is {time}, counted from 0, but {case.cine.name} has {count} frames; correct it.")
            elif seen.cine.labels and time not in seen.cine.labels:
                seen.remarks.append(f"{case.truth} does not label frame {time + 1}, counted from 1, which {case.info.name} calls {phase}.")
    return seen


def _case(name: str, files: folders.Images, table: tables.Patients) -> Case:
    """The patient of that name, as the files of its folder and its row of the table describe it."""
    problems: list[str] = []
    truth_problems: list[str] = []
    parents, row, remarks = Path(os.path.abspath(files.place)).parts[-3:], *table.row(name, truth_problems)
    told = {phase: row[phase.lower()] for phase in ("ED", "ES") if row.get(phase.lower())}
    numbers = {phase.lower(): int(match[1]) for phase, text in told.items() if (match := re.fullmatch(r"(-?\d{1,6})(?:\.0)?", text))}
    truth_problems += [f"{table.path}: {phase} of {name} is '{text[:20]}'; write a frame number counted from 0."
                       for phase, text in told.items() if phase.lower() not in numbers]
    truth = None if "Unlabeled" in parents else files.take(f"{name}_sa_gt", truth_problems)
    if f"{name}_sa" not in files:
        truth_problems.append(f"{truth or files.place / name} has no image; add {name}_sa.nii.gz.")
    return Case(
        name,
        group=row.get("pathology", ""),
        vendor=tables.vendor(row.get("vendorname") or row.get("vendor", "")),
        centre=row.get("centre", ""),
        cine=files.take(f"{name}_sa", problems),
        truth=truth,
        label_map=LABEL_MAP,
        info=table.path,
        part=next((_PARTS[folder] for folder in reversed(parents) if folder in _PARTS), ""),
        problems=tuple(problems),
        truth_problems=tuple(truth_problems),
        remarks=remarks,
        **numbers,
    )
