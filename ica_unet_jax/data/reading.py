"""Finds and reads the cases of a folder, by the reader that knows how it is laid out.

A reader is a module of `data/readers` with the three functions of `Reader`, and a line in `READERS`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

import nibabel as nib

from ica_unet_jax.data import checks, images, nifti, orientation
from ica_unet_jax.data.case import Case, Cine, Examination
from ica_unet_jax.data.readers import acdc, dicom, folder, mms, mms2, nnunet, ukbb
from ica_unet_jax.data.truths import parse_label_map
from ica_unet_jax.errors import BadData, UserError


class Reader(Protocol):
    """What knows one layout of a cohort. It follows no link that leads out of the folder: see `checks.of_path`."""

    @staticmethod
    def recognises(root: Path) -> bool:
        """Whether a folder is laid out so, by names, or by the first bytes of few files."""

    @staticmethod
    def find_cases(root: Path) -> Iterable[tuple[Path, Case]]:
        """Every case below a folder, behind the folder that its files lie in, which a sentence may name.

        Of images no more than headers is read. What names and links show to be wrong is among the `problems` of its case, or, of ground
        truths and tables, among its `truth_problems`. Raises OSError where a folder cannot be listed.
        """

    @staticmethod
    def examine(case: Case, label_map: Mapping[int, int], with_labels: bool) -> Examination:
        """Reads all files of a case of this reader and compares them; see `reading.examine`. Raises nothing.

        For NIfTI files that is `images.examine`, to which a reader may add.
        """


# The first that recognises a folder reads it; the last takes any.
READERS: dict[str, Reader] = {
    "nnunet": nnunet, "mms": mms, "mms2": mms2, "ukbb": ukbb, "acdc": acdc, "dicom": dicom, "folder": folder,
}  # fmt: skip
AUTO = "auto"


def find_cases(data_dir: str | Path, label_map: str = "", reader: str = AUTO, labelled_frames: str = "") -> list[Case]:
    """The cases of a cohort, sorted by name; of images no more than headers is read.

    `data_dir` is laid out as one of `READERS` knows it, the one named `reader` or the first that recognises it. `label_map` is only
    validated, so that a wrong flag fails before the data are read. `labelled_frames` are those of ground truths of whole cines that
    count although they are empty, as "1,12", counted from 1. Names that clash, numbers that cannot be and links that lead outside are
    among the problems of their case.

    Raises UserError for a folder that is missing, cannot be listed, or holds no cases, an unknown reader, and frames that are none.
    """
    parse_label_map(label_map)
    frames = _frames(labelled_frames)
    root = Path(data_dir)
    if not root.is_dir():
        raise UserError(f"--data_dir={data_dir} is not a folder: give the folder that holds the patients.")
    if reader not in (AUTO, *READERS):
        raise UserError(f"--reader={reader} is not known: choose one of {', '.join((AUTO, *READERS))}.")
    if reader == AUTO:
        reader = reader_of(root)
    try:
        found = list(READERS[reader].find_cases(root))
    except OSError as error:
        raise UserError(f"{error.filename} cannot be listed ({error.strerror}); make it readable.") from error
    cases: dict[str, Case] = {}
    for place, case in found:
        if case.name in cases:
            twin = f"{place}: there is a second case named {case.name} in {root}; rename one of them."
            case = dataclasses.replace(cases[case.name], problems=(*cases[case.name].problems, twin))
        cases[case.name] = dataclasses.replace(case, reader=reader, labelled_frames=frames if case.truth else ())
    if not cases and reader not in ("acdc", "folder"):
        raise UserError(f"--data_dir={data_dir} holds no cases of the layout '{reader}': see docs/data.md for it, or choose another --reader.")
    if not cases:
        raise UserError(
            f"--data_dir={data_dir} holds no cases: expected patientXXX/patientXXX_4d.nii.gz with "
            "patientXXX_frameNN_gt.nii.gz beside it, or a folder of NAME.nii.gz with NAME_frameNN_gt.nii.gz."
        )
    return [cases[name] for name in sorted(cases)]


def reader_of(root: Path) -> str:
    """The name of the reader that knows a folder."""
    return next(name for name, known in READERS.items() if known.recognises(root))


def examine(case: Case, label_map: str = "", *, with_labels: bool = True, codes: str = "") -> Examination:
    """Reads all files of a case, compares them, and turns the case to the axis letters `codes`, where these are given.

    An empty `label_map` is the one that its reader knows, if it knows any.
    Where `with_labels` is false ground truths and tables are not looked at, and NAME.nii.gz may be a single frame.

    Raises UserError only for a malformed `label_map`.
    """
    return _turned(READERS[case.reader].examine(case, parse_label_map(label_map or case.label_map), with_labels), codes)


def examine_file(path: Path, codes: str = "", *, whole: bool = True) -> Examination:
    """`examine` of an image by itself, 3D or 4D, whatever its name; if not `whole`, its frames may hold anything.

    Raises UserError where it cannot be read.
    """
    return _turned(images.examine_file(path, whole), codes)


def _turned(seen: Examination, codes: str) -> Examination:
    """What was found in a case, its axes turned to `codes`, and whether they are then in the order that everything here expects."""
    if not seen.cine:
        return seen
    if codes and not orientation.codes_of(seen.cine.header):
        seen.problems.append(f"{seen.cine.case.image} does not tell how it lies in the patient (its header has no orientation, or two that "
                             "differ), so that --reorient cannot turn it; write the true one into it.")
        return seen
    seen.cine = seen.cine.turned(codes)
    problems, remarks = checks.of_axes(seen.cine)
    seen.problems += problems
    seen.remarks += remarks
    return seen


def _frames(text: str) -> tuple[int, ...]:
    """'1,12' as (0, 11). Raises UserError for what are no frame numbers."""
    try:
        frames = tuple(sorted({int(number) - 1 for number in filter(None, text.split(","))}))
    except ValueError:
        frames = (-1,)
    if min(frames, default=0) < 0:
        raise UserError(f"--labelled_frames={text} must be frame numbers counted from 1, as 1,12.")
    return frames


def faults(case: Case, label_map: str = "") -> tuple[list[str], list[str]]:
    """The problems and the remarks of `examine`, without the arrays, which are much to send from one process to another."""
    seen = examine(case, label_map)
    return seen.problems, seen.remarks


def check(case: Case, label_map: str = "", *, with_labels: bool = True) -> list[str]:
    """Everything that makes a case unfit, a sentence each; see `examine`."""
    return examine(case, label_map, with_labels=with_labels).problems


def read(case: Case, label_map: str = "", *, with_labels: bool = True, codes: str = "") -> Cine:
    """All frames and labels of a case, turned to the axis letters `codes` where these are given.

    Raises BadData with all that is wrong with it; frame files without any ground truth are, unless `with_labels` is
    false.
    """
    seen = examine(case, label_map, with_labels=with_labels, codes=codes)
    if seen.problems:
        raise BadData(seen.problems)
    return seen.cine


def codes_of(case: Case) -> str:
    """The letters of a case's axes as they are stored, by its header alone; "" where that does not tell. See `orientation`."""
    header = _header(case)
    return orientation.codes_of(header) if header else ""


def lie(cases: Iterable[Case]) -> orientation.Cohort:
    """How cases lie, as they are stored, by those of their headers that can be read."""
    headers = [header for case in cases if (header := _header(case))]
    return orientation.Cohort(orientation.count(map(orientation.codes_of, headers)), all(map(orientation.has_scale, headers)))


def _header(case: Case) -> nib.Nifti1Header | None:
    """The header that stands for all images of a case; None where it cannot be read."""
    return case.header or (nifti.read_header(case.image) if case.image else None)
