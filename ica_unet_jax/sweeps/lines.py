"""Writes rows of figures as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def csv_text(lines: Iterable[Mapping[str, Any]], columns: Sequence[str] = (), exact: bool = False) -> str:
    """A CSV of all columns that some line has, `columns` first; empty for None, NaN and what a line lacks.

    exact: floats as they are, not to six significant digits.
    """
    lines, text = list(lines), io.StringIO()
    heads = dict.fromkeys([*columns, *(name for line in lines for name in line)])
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows([_field(line.get(head), exact) for head in heads] for line in lines)
    return text.getvalue()


def _field(value: Any, exact: bool) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) and not exact else value
