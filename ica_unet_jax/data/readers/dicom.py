"""Studies in DICOM: the short-axis cine of each study below a folder is a case. Nothing there is a ground truth."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from ica_unet_jax.data import checks
from ica_unet_jax.data.case import Case, Cine, Examination
from ica_unet_jax.data.dicom import grid, images, stacks
from ica_unet_jax.data.dicom.images import Image
from ica_unet_jax.data.nifti import SUFFIX, check_intensities, check_zooms
from ica_unet_jax.errors import UserError

STUDY = "study_"  # so begins the name of a case that is one


def recognises(root: Path) -> bool:
    """Whether some of the first files below begin as DICOM does, whatever their names."""
    return images.holds_dicom(root)


def find_cases(root: Path, series: str = "") -> Iterator[tuple[Path, Case]]:
    """As `Reader.find_cases`; headers are read. Of each study the cine to which `series`, a number or UID, belongs, if one is named.

    A case is called by a digest of its study, so that its name tells nothing of the patient. A file that cannot be read is a case of
    its own: which study it belongs to is not known.
    """
    images.silent_pydicom(root)
    studies: dict[str, list[Image]] = defaultdict(list)
    others = 0
    for path in images.files_below(root):
        problem = _of_link(path, root) if path.is_symlink() else ""
        if problem or images.is_dicom(path):
            found = None if problem else checks.attempt(told := [], images.read_headers, path)
            if found is None:
                yield path.parent, Case(f"file_{_digest(str(path))}", problems=(problem or told[0],), reader="dicom")
            for image in found or ():
                studies[image.study].append(image)
        elif SUFFIX.search(path.name):
            others += 1
    remarks = (f"{others} NIfTI files lie beside the DICOM files and are not read: name them, or a folder of their own.",) if others else ()
    for study, seen in studies.items():
        place = root if len(studies) == 1 else Path(os.path.commonpath([image.path.parent for image in seen]))
        case = _case(f"{STUDY}{_digest(study)}", place, seen, series)
        yield place, dataclasses.replace(case, remarks=remarks + case.remarks)


def examine(case: Case, label_map: Mapping[int, int], with_labels: bool) -> Examination:
    """As `Reader.examine`."""
    seen = Examination(problems=list(case.problems))
    if not case.stack:
        return seen
    made = grid.arrange(case.stack)
    seen.problems += [" ".join((f"{case.cine}: {problem}", *case.remarks)) for problem in made.problems]
    seen.remarks += [f"{case.name}: {remark}" for remark in dict.fromkeys((*case.remarks, *made.remarks))]
    if seen.problems:
        return seen
    frames = checks.attempt(seen.problems, made.frames)
    if frames is not None:
        header = made.header()
        dx, dy, dz = (float(size) for size in header.get_zooms()[:3])
        problems, empty = check_intensities(case.name, frames)
        seen.problems += [*check_zooms(case.cine, (dx, dy, dz)), *(f"{case.cine}: {problem}" for problem in problems)]
        seen.remarks += empty
        seen.cine = Cine(case, frames, tuple(range(len(frames))), {}, (dz, dy, dx), header.get_best_affine(), header)
    return seen


def _case(name: str, place: Path, seen: list[Image], series: str) -> Case:
    try:
        stack = stacks.choose(stacks.stacks_of(seen), series)
    except UserError as error:
        return Case(name, problems=(f"{place}: {error}",), reader="dicom")
    return Case(name, cine=place, remarks=stack.remarks, stack=stack, header=grid.arrange(stack).header(), reader="dicom")


def _of_link(path: Path, root: Path) -> str:
    """Why a link below `root` must not be followed, or ""."""
    if not path.is_dir():
        return checks.of_path(path, root)
    inside = path.resolve().is_relative_to(root.resolve())  # where it is read anyway
    return "" if inside else f"{path} is a link to a folder outside {root}; put the folder itself there, as `cp -rL` does for all of a folder."


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
