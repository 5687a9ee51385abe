"""UK Biobank as ukbb_cardiac lays it out: a folder for each participant with sa.nii.gz, sa_ED, sa_ES, label_sa_ED and label_sa_ES.

label_sa.nii.gz, the ground truth of the whole cine, counts where the two are not there. Labels are 1 LV, 2 myocardium, 3 RV; 4 is taken as
RV too. Which frame ES is nothing tells: it is the one of the cine that equals sa_ES.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from ica_unet_jax.data import checks, folders, images, phases
from ica_unet_jax.data.case import Case, Examination
from ica_unet_jax.data.readers import mms

_OTHER_RV = 4
LABEL_MAP = f"{mms.LABEL_MAP},{_OTHER_RV}:1"
_DEPTH = 2  # train/1234567
_PARTS = {"train": "train", "validation": "val", "test": "test"}


def recognises(root: Path) -> bool:
    """Whether there are frames or ground truths under the names of ukbb_cardiac."""
    return folders.holds(root, _DEPTH, "sa_E[DS].nii*", "label_sa*.nii*")


def find_cases(root: Path) -> Iterator[tuple[Path, Case]]:
    """As `Reader.find_cases`."""
    for place in folders.below(root, _DEPTH):
        files = folders.Images(place, root)
        if {"sa", "sa_ED", "sa_ES", "label_sa", "label_sa_ED", "label_sa_ES"} & set(files):
            yield place, _case(place, files)


def examine(case: Case, label_map: Mapping[int, int], with_labels: bool) -> Examination:
    """As `Reader.examine`; a ground truth without a heart is a problem, and label 4 is told."""
    seen = checks.with_hearts(images.examine(case, label_map, with_labels))
    if _OTHER_RV in seen.stored and label_map.get(_OTHER_RV) == 1:
        seen.remarks.append(f"{case.image.parent}: label {_OTHER_RV} is taken as RV.")
    return seen


def _case(place: Path, files: folders.Images) -> Case:
    """The participant whose folder that is."""
    problems: list[str] = []
    truth_problems: list[str] = []
    cine = files.take("sa", problems)
    known = phases.fields(files, cine, {phase: (f"sa_{phase}", f"label_sa_{phase}") for phase in ("ED", "ES")}, problems, truth_problems)
    truth = None if known.get("phases") or known.get("labels") else files.take("label_sa", truth_problems)
    if truth and "sa" not in files:
        truth_problems.append(f"{truth} has no image; add sa.nii.gz.")
    whole = Path(os.path.abspath(place))  # `.` has a name, and is in a folder, only so
    return Case(
        whole.name, cine=cine, truth=truth, label_map=LABEL_MAP, part=_PARTS.get(whole.parent.name, ""), **known, problems=tuple(problems),
        truth_problems=tuple(truth_problems),
    )  # fmt: skip
