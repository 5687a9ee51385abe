"""The layout of ACDC: a folder for each patient with Info.cfg beside the images, perhaps in training/ and testing/."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ica_unet_jax.data import checks
from ica_unet_jax.data.case import Case, Examination
from ica_unet_jax.data.readers import folder as nifti
from ica_unet_jax.errors import UserError

_PARTS = ("training", "testing", "database/training", "database/testing")
_INFO = "[Ii][Nn][Ff][Oo].[Cc][Ff][Gg]"  # as a pattern
_SPACINGS = ("nominal", "true")  # of voxels
_KEYS = {key.lower(): key for key in ("ED", "ES", "NbFrame", "Group", "Spacing", "Height", "Weight")}


def recognises(root: Path) -> bool:
    """Whether the folder has one of ACDC's parts, or there is an Info.cfg in it or in a patient's folder."""
    return any(any(root.glob(sign)) for sign in (*_PARTS, _INFO, f"*/{_INFO}"))


def find_cases(root: Path) -> Iterator[tuple[Path, Case]]:
    """As `Reader.find_cases`. Info.cfg describes the one case that lies beside it, and is ignored beside several."""
    for place, own in nifti.folders(root, ("", *_PARTS)).items():
        cases = nifti.cases_of(place, root, own)
        yield from ((place, _described(case, place, root) if len(cases) == 1 else case) for case in cases)


def examine(case: Case, label_map: Mapping[int, int], with_labels: bool) -> Examination:
    """As `Reader.examine`."""
    seen, told = nifti.examine(case, label_map, with_labels), []
    info, unknown = case.info and checks.attempt(told, _read_info, case.info) or ({}, [])
    count = len(seen.cine.frames) if case.cine and seen.cine else None
    told += _problems(case, info, count)
    if with_labels:
        seen.problems = told + seen.problems
    else:
        seen.remarks += told
    if unknown:
        listed = ", ".join(f"'{line[:40]}'" for line in unknown[:3]) + (", ..." if len(unknown) > 3 else "")
        seen.remarks.append(f"{case.info}: {listed} says nothing that is known here; known are {', '.join(_KEYS.values())}, as in ED: 1.")
    return seen


def _described(case: Case, place: Path, root: Path) -> Case:
    """The case with what Info.cfg says of it, if that can be read; `examine` reads it again, and reports."""
    path = min(place.glob(_INFO), default=None)
    if path is None or not path.is_file():
        return case
    if problem := checks.of_path(path, root):
        return dataclasses.replace(case, truth_problems=(*case.truth_problems, problem))
    info, _ = checks.attempt([], _read_info, path) or ({}, [])
    return dataclasses.replace(
        case,
        group=info.get("Group", "").upper(),
        ed=_zero_based(info.get("ED")),
        es=_zero_based(info.get("ES")),
        nominal_spacing=info.get("Spacing", "").lower() == "nominal",
        info=path,
    )


def _read_info(path: Path) -> tuple[dict[str, str], list[str]]:
    """Info.cfg as {key: value}, keys as `_KEYS` writes them, and its lines that say nothing known; # begins a comment.

    Raises UserError where it cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); make it readable.") from error
    info, unknown = {}, []
    for line in content.decode(json.detect_encoding(content), errors="replace").splitlines():
        line = "".join(filter(str.isprintable, line)).strip()
        key, sign, value = (part.strip() for part in re.fullmatch(r"([^:=]*)([:=]?)(.*)", line).groups())
        known = _KEYS.get(key.lower()) if sign else None
        if known and (known != "Spacing" or value.lower() in _SPACINGS):
            info[known] = value
        elif line and not line.startswith("#"):
            unknown.append(line)
    return info, unknown


def _zero_based(text: str | None) -> int | None:
    """A frame number counted from 1 as one counted from 0; None for what is no number."""
    return int(text) - 1 if text and re.fullmatch(r"-?\d{1,6}", text) else None


def _problems(case: Case, info: Mapping[str, str], count: int | None) -> list[str]:
    """What Info.cfg says that cannot be; `count` is the number of frames of the cine, if there is one."""
    problems = []
    for key in ("ED", "ES", "NbFrame"):
        if key not in info:
            continue
        number = _zero_based(info[key])
        if number is None or number < 0:
            problems.append(f"{case.info}: {key} is '{info[key][:20]}'; write a frame number counted from 1.")
        elif count is not None and key == "NbFrame" and number + 1 != count:
            problems.append(f"{case.info}: NbFrame is {number + 1}, but {case.cine.name} has {count} frames; "
                            "correct the one that is wrong.")
        elif count is not None and number >= count:
            problems.append(f"{case.info}: {key} is {number + 1}, but {case.cine.name} has {count} frames; correct it.")
    return problems
