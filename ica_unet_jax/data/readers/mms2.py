"""M&Ms-2 (2021): NNN/NNN_SA_ED.nii.gz, _SA_ES, their ground truths _gt, the cine _SA_CINE, long-axis images and a table of the patients.

Labels are 1 LV, 2 myocardium, 3 RV. Which frame of the cine ES is nothing tells: it is the one that equals NNN_SA_ES. Long-axis images
are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ica_unet_jax.data import checks, folders, images, phases, tables
from ica_unet_jax.data.case import Case, Examination
from ica_unet_jax.data.readers.mms import LABEL_MAP

_CODE = "SUBJECT_CODE"  # the column of the patients' numbers, without leading zeros
_DEPTH = 2  # dataset/NNN
_FILE = re.compile(r"(.+)_SA_(?:CINE|E[DS](?:_gt)?)")
_PARTS = {"train": range(1, 161), "val": range(161, 201), "test": range(201, 361)}  # as in the challenge


def recognises(root: Path) -> bool:
    """Whether there are images of ED or ES under the names of M&Ms-2."""
    return folders.holds(root, _DEPTH, "*_SA_E[DS].nii*")


def find_cases(root: Path) -> Iterator[tuple[Path, Case]]:
    """As `Reader.find_cases`."""
    table, remarks = tables.Patients(root, _CODE), ()
    told = False
    for place in folders.below(root, _DEPTH):
        files = folders.Images(place, root)
        if not told and any("_LA_" in name for name in files):
            told, remarks = True, (f"{place}: long-axis images (_LA_) are left out, here and of all patients.",)
        for name in sorted({match[1] for match in map(_FILE.fullmatch, files) if match}):
            yield place, _case(name, files, table, remarks)
            remarks = ()


def examine(case: Case, label_map: Mapping[int, int], with_labels: bool) -> Examination:
    """As `Reader.examine`; a ground truth without a heart is a problem."""
    return checks.with_hearts(images.examine(case, label_map, with_labels))


def _case(name: str, files: folders.Images, table: tables.Patients, remarks: tuple[str, ...]) -> Case:
    """The patient of that name, as the files of its folder and its row of the table describe it."""
    problems: list[str] = []
    truth_problems: list[str] = []
    row, more = table.row(name, truth_problems)
    cine = files.take(f"{name}_SA_CINE", problems)
    return Case(
        name,
        group=row.get("disease", ""),
        vendor=tables.vendor(row.get("vendor", "")),
        cine=cine,
        label_map=LABEL_MAP,
        info=table.path,
        part=next((part for part, numbers in _PARTS.items() if name.isdecimal() and int(name) in numbers), ""),
        **phases.fields(files, cine, {phase: (f"{name}_SA_{phase}", f"{name}_SA_{phase}_gt") for phase in ("ED", "ES")}, problems, truth_problems),
        problems=tuple(problems),
        truth_problems=tuple(truth_problems),
        remarks=remarks + more,
    )
