"""Reads what is committed below ablations/results, for the documents that are made of it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from ica_unet_jax.benchmarking import report
from ica_unet_jax.metrics import cases
from ica_unet_jax.reporting.markup import number

RESULTS = Path(__file__).resolve().parent / "results"

Line = dict[str, str]


def lines(path: str) -> list[Line]:
    """The lines of a CSV file below ablations/results, named without its ending."""
    with (RESULTS / f"{path}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def named(path: str, name: str) -> Line:
    """The one line of such a file whose first column is `name`."""
    [found] = [line for line in lines(path) if next(iter(line.values())) == name]
    return found


def result(path: str) -> dict[str, Any]:
    """A JSON file below ablations/results, named without its ending."""
    return json.loads((RESULTS / f"{path}.json").read_text(encoding="utf-8"))


def value(line: Line, column: str) -> float | None:
    """The number in a column; None where it is empty."""
    return float(line[column]) if line.get(column) else None


def dice(line: Line, structure: str) -> str:
    return f"{number(value(line, f'dice_{structure}'), 3)} ± {number(value(line, f'dice_{structure}_sd'), 3)}"


def change(line: Line, removed: bool = False) -> str:
    """The change of Dice to the reference, with its 95 % interval where there is one; turned round for what the setting `removed`."""
    difference, *limits = (value(line, column) for column in ("difference", *(("high", "low") if removed else ("low", "high"))))
    if removed:
        difference, *limits = (None if x is None else -x for x in (difference, *limits))
    interval = "" if None in limits else f" [{', '.join(number(limit, 3) for limit in limits)}]"
    return number(difference, 3, signed=True) + interval


def timed(name: str) -> dict[str, Any]:
    """The rows of a committed benchmark of frames."""
    return report.read(RESULTS / "real_time" / f"{name}.json")["rows"]


def judged(network: str, name: str = "cases") -> list[cases.Row]:
    """The cases that a network was judged on."""
    return cases.read_cases_csv(RESULTS / network / f"{name}.csv")


def printed_in_paper(line: Line) -> bool:
    return line["System"].endswith("(paper)")
