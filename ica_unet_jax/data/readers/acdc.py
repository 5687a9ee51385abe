"""The layout of ACDC: a folder for each patient with Info.cfg beside the images, perhaps in training/ and testing/."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ica_unet_jax.data import checks
from ica_unet_jax.data.case import Case, Examination
from ica_unet_jax.data.readers import folder as nifti
from ica_unet_jax.errors import UserError

_PARTS = ("training", "testing", "database/training", "database/testing")
_INFO = "Info.cfg"


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
    info = checks.attempt(told, _read_info, case.info) if case.info else None
    count = len(seen.cine.frames) if case.cine and seen.cine else None
    seen.problems = told + _problems(case, info or {}, count) + seen.problems
    return seen


def _described(case: Case, place: Path, root: Path) -> Case:
    """The case with what Info.cfg says of it, if that can be read; `examine` reads it again, and reports."""
    path = place / _INFO
    if not path.is_file():
        return case
    if problem := checks.of_path(path, root):
        return dataclasses.replace(case, problems=(*case.problems, problem))
    info = checks.attempt([], _read_info, path) or {}
    return dataclasses.replace(
        case,
        group=info.get("Group", "").upper(),
        ed=_zero_based(info.get("ED")),
        es=_zero_based(info.get("ES")),
        nominal_spacing=info.get("Spacing", "").lower() == "nominal",
        info=path,
    )


def _read_info(path: Path) -> dict[str, str]:
    """Info.cfg as {key: value}, what is no text left out; other lines are ignored. UserError where it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); make it readable.") from error
    pairs = ("".join(filter(str.isprintable, line)).partition(":") for line in text.splitlines())
    return {key.strip(): value.strip() for key, colon, value in pairs if colon}


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
