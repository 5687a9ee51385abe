"""A cohort in parts, for the jobs of a cluster: which cases are whose, which are finished, and the table of all."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ica_unet_jax.errors import UserError
from ica_unet_jax.runtime.files import replacing

T = TypeVar("T")
TABLE = "cohort.csv"
_COLUMNS = ("case", "frames", "ed_frame", "es_frame", "LV_ef", "RV_ef", *(f"{name}_{phase}_ml" for phase in ("ed", "es") for name in ("LV", "RV", "MYO")),
            "LV_stroke_ml", "RV_stroke_ml", "LV_mass_g", "nominal_spacing", "doubts")  # fmt: skip


def of(cases: Sequence[T], part: str) -> Sequence[T]:
    """The cases of part "I/N", counted from 1: each N-th from the I-th on; all where it is "".

    Raises UserError for what is no part.
    """
    if not part:
        return cases
    numbers = re.fullmatch(r"(\d+)/(\d+)", part)
    number, count = map(int, numbers.groups()) if numbers else (0, 0)
    if not 1 <= number <= count:
        raise UserError(f"--part={part} is no part: write --part=3/20 for the third of twenty.")
    return cases[number - 1 :: count]


def are_newer(outputs: Iterable[Path], sources: Iterable[Path]) -> bool:
    """Whether all outputs are there and none is older than a source."""
    try:
        return min(path.stat().st_mtime_ns for path in outputs) >= max(path.stat().st_mtime_ns for path in sources)
    except OSError:
        return False


def write_table(folder: Path, ending: str) -> None:
    """cohort.csv in a folder: a row for each case of which a summary NAME{ending} lies there, by name; empty what is not known.

    Raises UserError where a summary cannot be read.
    """
    summaries = {path.name.removesuffix(ending): path for path in sorted(folder.glob(f"*{ending}"))}
    with replacing(folder / TABLE) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        for name, summary in summaries.items():
            try:
                told = json.loads(summary.read_text(encoding="utf-8"))
                writer.writerow({"case": name} | _row(told))
            except (OSError, ValueError, KeyError, AttributeError) as error:
                raise UserError(f"{summary} cannot be read ({error}): remove it, and give the same command again.") from error


def _row(told: dict[str, Any]) -> dict[str, Any]:
    row = {key: told.get(key) for key in ("frames", "ed_frame", "es_frame")}
    for phase in ("ed", "es"):
        row |= {f"{name}_{phase}_ml": value for name, value in (told.get(f"{phase}_volume_ml") or {}).items()}
    row |= {f"{name}_ef": value for name, value in told.get("ejection_fraction", {}).items()}
    row |= {f"{name}_stroke_ml": value for name, value in (told.get("stroke_volume_ml") or {}).items()}
    return row | {"LV_mass_g": told.get("lv_mass_g"), "nominal_spacing": int(told["nominal_spacing"]), "doubts": " ".join(told["doubts"])}
