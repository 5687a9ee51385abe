"""Tables of patients as CSV files: those that cohorts bring with them, and those of --cohort_csv."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path

from ica_unet_jax.data import checks
from ica_unet_jax.errors import UserError

Row = dict[str, str]
_BEGINNING = 4096  # bytes that hold the heads
_VENDORS = ("Siemens", "Philips", "GE", "Canon", "Toshiba")


def read(path: Path, flag: str = "") -> list[Row]:
    """The rows of a table with a line of heads, whose names are in small letters in each row; empty rows are left out.

    Commas or semicolons, in any UTF; a first line sep=; says which. Raises UserError where it cannot be read, with the `flag` that names it.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{flag}{path} cannot be read ({error.strerror}); make it readable.") from error
    try:
        heads, *rows = list(_cells(content)) or [[]]
    except csv.Error as error:
        raise UserError(f"{flag}{path} cannot be read as CSV ({error}); save it again.") from error
    return [dict(zip(map(str.lower, heads), row, strict=False)) for row in rows if any(row)]


def _cells(content: bytes) -> Iterator[list[str]]:
    """The cells of a table, row by row. Raises csv.Error."""
    lines = content.decode(json.detect_encoding(content), errors="replace").replace("\0", "").splitlines()
    told = re.fullmatch(r"sep=([,;])", lines[0].strip(), re.IGNORECASE) if lines else None  # Excel writes it
    heads = "".join(lines[:1])
    delimiter = told[1] if told else ";" if heads.count(";") > heads.count(",") else ","
    return ([cell.strip() for cell in row] for row in csv.reader(lines[1:] if told else lines, delimiter=delimiter))


class Patients:
    """The table that a cohort brings: the first with the column `column` in its folder or, where that is a part of it, up to two above.

    `path` is None where there is none. Raises UserError for one that cannot be read as CSV or names a patient twice.
    """

    def __init__(self, root: Path, column: str):
        self._root, self._column, self._told = root, column, False
        self.path = next(filter(None, (_with_column(folder, column.lower()) for folder in (root, *root.resolve().parents[:2]))), None)
        self._rows = by_name(self.path, column.lower()) if self.path else {}

    def row(self, name: str, problems: list[str]) -> tuple[Row, tuple[str, ...]]:
        """What is known of a patient, and a remark; that there is no table is said once, that a patient lacks in it is a problem."""
        if self.path is None:
            told, self._told = self._told, True
            return {}, () if told else (f"{self._root}: there is no table of the patients (a CSV file with the column {self._column}) here or "
                                        "above, so that vendors and diagnoses are not known.",)
        if key(name) not in self._rows:
            problems.append(f"{self.path} has no row for {name}; add it.")
        return self._rows.get(key(name), {}), ()


def key(name: str) -> str:
    """A patient's name without leading zeros, which spreadsheets drop."""
    return name.lstrip("0") or name[-1:]


def by_name(path: Path, column: str, flag: str = "") -> dict[str, Row]:
    """The rows of a table by the `key` of their name in that column. Raises UserError as `read` does, and where a patient is named twice."""
    found: dict[str, Row] = {}
    for row in read(path, flag):
        name = row.get(column, "")
        if other := found.get(key(name)):
            raise UserError(f"{flag}{path} has two rows for {' and '.join(sorted({other.get(column, ''), name}))}; remove one of them.")
        found[key(name)] = row
    return found


def _with_column(folder: Path, column: str) -> Path | None:
    for path in sorted(folder.glob("*.[Cc][Ss][Vv]")):
        if not checks.of_path(path, folder) and column in _heads(path):
            return path
    return None


def _heads(path: Path) -> list[str]:
    """The heads of a table, in small letters; none where it cannot be read, as it may have nothing to do with the cohort."""
    try:
        with path.open("rb") as file:
            return [head.lower() for head in next(_cells(file.read(_BEGINNING)), [])]
    except (OSError, csv.Error):
        return []


def vendor(text: str) -> str:
    """The maker of a scanner by one name in all cohorts: SIEMENS is Siemens, GE MEDICAL SYSTEMS is GE."""
    return next((known for known in _VENDORS if text.lower().startswith(known.lower())), text)
