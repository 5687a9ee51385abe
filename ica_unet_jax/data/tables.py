"""Tables of patients as CSV files: those that cohorts bring with them, and those of --cohort_csv."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from ica_unet_jax.data import checks
from ica_unet_jax.errors import UserError

Row = dict[str, str]
_VENDORS = ("Siemens", "Philips", "GE", "Canon", "Toshiba")


def read(path: Path, flag: str = "") -> list[Row]:
    """The rows of a table with a line of heads, whose names are in small letters in each row; empty rows are left out.

    Commas or semicolons, in any UTF. Raises UserError where it cannot be read, with the `flag` that names it.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{flag}{path} cannot be read ({error.strerror}); make it readable.") from error
    lines = _decoded(content).splitlines()
    first = lines[0] if lines else ""
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=";" if first.count(";") > first.count(",") else ",")]
    except csv.Error as error:
        raise UserError(f"{flag}{path} cannot be read as CSV ({error}); save it again.") from error
    heads = [head.lower() for head in rows[0]] if rows else []
    return [dict(zip(heads, row, strict=False)) for row in rows[1:] if any(row)]


class Patients:
    """The table that a cohort brings: the first with the column `column` in its folder or, where that is a part of it, up to two above.

    `path` is None where there is none. Raises UserError for one that cannot be read or names a patient twice.
    """

    def __init__(self, root: Path, column: str):
        self._root, self._column, self._told = root, column, False
        self.path = next(filter(None, (_with_column(folder, column.lower()) for folder in (root, *root.resolve().parents[:2]))), None)
        self._rows = {_key(name): row for name, row in by_name(self.path, column.lower()).items()} if self.path else {}

    def row(self, name: str, problems: list[str]) -> tuple[Row, tuple[str, ...]]:
        """What is known of a patient, and a remark; that there is no table is said once, that a patient lacks in it is a problem."""
        if self.path is None:
            told, self._told = self._told, True
            return {}, () if told else (f"{self._root}: there is no table of the patients (a CSV file with the column {self._column}) here or "
                                        "above, so that vendors and diagnoses are not known.",)
        if _key(name) not in self._rows:
            problems.append(f"{self.path} has no row for {name}; add it.")
        return self._rows.get(_key(name), {}), ()


def _key(name: str) -> str:
    """A patient's name without leading zeros, which spreadsheets drop."""
    return name.lstrip("0")


def by_name(path: Path, column: str, flag: str = "") -> dict[str, Row]:
    """The rows of a table by their name in that column. Raises UserError as `read` does, and where a patient is named twice."""
    found: dict[str, Row] = {}
    for row in read(path, flag):
        if row.get(column, "") in found:
            raise UserError(f"{flag}{path} has two rows for {row.get(column, '')}; remove one of them.")
        found[row.get(column, "")] = row
    return found


def _with_column(folder: Path, column: str) -> Path | None:
    for path in sorted(folder.glob("*.[Cc][Ss][Vv]")):
        if not checks.of_path(path, folder) and column in _decoded(path.read_bytes()[:4096]).lower():
            return path
    return None


def _decoded(content: bytes) -> str:
    return content.decode(json.detect_encoding(content), errors="replace").replace("\0", "")


def vendor(text: str) -> str:
    """The maker of a scanner by one name in all cohorts: SIEMENS is Siemens, GE MEDICAL SYSTEMS is GE."""
    return next((known for known in _VENDORS if text.lower().startswith(known.lower())), text)
