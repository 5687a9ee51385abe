"""Where the Dice of an evaluation is lost: errors slice by slice as CSV, and three tables of them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ica_unet_jax.data.case import Cine
from ica_unet_jax.data.geometry import Placement
from ica_unet_jax.errors import UserError
from ica_unet_jax.evaluation.frames import phases, through_the_grid
from ica_unet_jax.labels import STRUCTURES
from ica_unet_jax.metrics.faults import COUNTS, EDGE_MM, KINDS, POSITIONS, dice_of, slice_faults
from ica_unet_jax.metrics.overlap import structure_dice
from ica_unet_jax.reporting.markup import number, plain_table
from ica_unet_jax.runtime.files import replacing

Row = dict[str, Any]

COLUMNS = ("patient", "group", "frame", "phase", "structure", "slice", "position", *COUNTS)
_NUMBERS = ("frame", "slice", *COUNTS)
PLACES = POSITIONS[:-1]
MENDED = {
    "slice": "slices that have the structure in one of prediction and truth alone",
    "island": "islands beside the largest component",
    "edge": f"voxels within {EDGE_MM:g} mm of the true contour",
    "far": "voxels further away",
}
THIRDS = ("smallest third", "middle third", "largest third")


def judge(cine: Cine, labels: Mapping[int, np.ndarray]) -> list[Row]:
    """The rows of a case's labelled frames; `labels` are the predicted ones by number of the frame, as `frames.segment` gives them."""
    names = phases(cine)
    about = dict(patient=cine.case.name, group=cine.case.group)
    return [
        about | dict(frame=time + 1, phase=names.get(time, "")) | row
        for time, truth in sorted(cine.labels.items())
        for row in slice_faults(labels[time], truth, cine.spacing)
    ]


def limits(cine: Cine, placements: Mapping[int, Placement]) -> list[Row]:
    """For each labelled frame of a case the Dice, {RV, MYO, LV}, of its truth on the model's grid and back: more cannot be had.

    `placements` as `frames.segment` gives them.
    """
    name = cine.case.name
    return [dict(patient=name) | structure_dice(through_the_grid(truth, placements[time]), truth) for time, truth in sorted(cine.labels.items())]


def mean_limit(rows: Sequence[Row]) -> dict[str, float]:
    """The mean over patients of what `limits` found; {} of nothing."""
    patients = sorted({row["patient"] for row in rows})
    return {name: _mean([np.mean([row[name] for row in rows if row["patient"] == patient]) for patient in patients]) for name in STRUCTURES if rows}


def write_csv(path: str | Path, rows: Iterable[Row]) -> None:
    """Rows of `metrics.faults.slice_faults` with patient, group, frame (from 1) and phase. UserError where it cannot be written."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: str | Path) -> list[Row]:
    """The rows that `write_csv` wrote. UserError for a file that is none of these."""
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            return [row | {name: int(row[name]) for name in _NUMBERS} for row in csv.DictReader(file)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read as a table of faults ({error}): evaluate again.") from error


def figures(rows: Sequence[Row]) -> dict[str, list[list[Any]]]:
    """Dice {structure: its mean over patients} behind words, JSON-safe, in three tables.

    places: by phase and thirds of the slices that show a heart. sizes: by volume of the truth, of all frames. kinds: what is gained if one
    kind of fault alone is mended.
    """
    phases = [name for name in ("ED", "ES", "") if any(row["phase"] == name for row in rows)]
    third, whole = _thirds(rows), _dice(rows)
    return {
        "places": [
            [phase or "other", place, _dice(rows, lambda row, phase=phase, place=place: (row["phase"], row["position"]) == (phase, place))]
            for phase in phases
            for place in PLACES
        ],
        "sizes": [[size, _dice(rows, lambda row, size=size: third[_frame(row)] == size)] for size in THIRDS],
        "kinds": [[kind, {name: _dice(rows, mended=kind)[name] - whole[name] for name in STRUCTURES}] for kind in KINDS],
    }


def by_place(rows: Iterable[Row]) -> list[Row]:
    """A row for each frame: patient, frame, phase, and dice_base_RV and so on, of the slices of each of `PLACES` together; NaN where nothing is."""
    frames: dict[tuple, dict[tuple, list[Row]]] = {}
    for row in rows:
        frames.setdefault((row["patient"], row["frame"], row["phase"]), {}).setdefault((row["position"], row["structure"]), []).append(row)
    return [
        dict(zip(("patient", "frame", "phase"), frame, strict=True))
        | {f"dice_{place}_{name}": dice_of(parts.get((place, name), [])) for place in PLACES for name in STRUCTURES}
        for frame, parts in frames.items()
    ]


def tables(found: Mapping[str, list[list[Any]]]) -> dict[str, str]:
    """What `figures` found as Markdown."""

    def lines(name: str, signed: bool = False) -> list[list[str]]:
        return [[*words, *(number(value, 3, signed=signed) for value in dice.values())] for *words, dice in found[name]]

    heads = [f"Dice {name}" for name in STRUCTURES]
    return {
        "places": plain_table(["Phase", "Slices", *heads], lines("places")),
        "sizes": plain_table(["Frames", *heads], lines("sizes")),
        "kinds": plain_table(["Mended", *STRUCTURES], [[MENDED[kind], *rest] for kind, *rest in lines("kinds", signed=True)]),
    }


def page(rows: Sequence[Row], limit: Mapping[str, float]) -> str:
    """Three tables in Markdown: by place in the stack, by size of the structure, and by kind of fault; `limit` as `mean_limit` gives it."""
    made = tables(figures(rows))
    most = ", ".join(f"{name} {number(dice, 3)}" for name, dice in limit.items())
    return "\n".join(
        [
            f"The truth itself, put on the model's grid and back, has the Dice {most}: no network on this grid has more.",
            "",
            "**By place in the stack** (thirds of the slices that show a heart; mean over patients)",
            "",
            made["places"],
            "",
            "**By size of the structure** (volume of the truth, of all frames)",
            "",
            made["sizes"],
            "",
            "**What would be gained if one kind of fault alone were mended** (Dice, mean over patients)",
            "",
            made["kinds"],
            "",
        ]
    )


def _frame(row: Row) -> tuple:
    return row["patient"], row["frame"], row["structure"]


def _thirds(rows: Sequence[Row]) -> dict[tuple, str]:
    """{(patient, frame, structure): one of `THIRDS`}, by the volume of the truth among the frames of that structure."""
    found: dict[tuple, str] = {}
    for name in STRUCTURES:
        size: dict[tuple, int] = {}
        for row in rows:
            if row["structure"] == name:
                truth = row["right"] + sum(row[count] for count in COUNTS if count.startswith("missing"))
                size[_frame(row)] = size.get(_frame(row), 0) + truth
        order = sorted(size, key=lambda frame: (size[frame], frame))
        found |= {frame: THIRDS[3 * i // len(order)] for i, frame in enumerate(order)}
    return found


def _dice(rows: Iterable[Row], chosen: Callable[[Row], bool] = lambda row: True, mended: str = "") -> dict[str, float]:
    """{structure: Dice of the chosen slices of each frame together, its mean over frames and then over patients}."""
    frames: dict[tuple, list[Row]] = {}
    for row in filter(chosen, rows):
        frames.setdefault(_frame(row), []).append(row)
    scores: dict[tuple, list[float]] = {}
    for (patient, _, name), several in frames.items():
        if not np.isnan(score := dice_of(several, mended)):
            scores.setdefault((patient, name), []).append(score)
    return {name: _mean([np.mean(values) for (_, of), values in scores.items() if of == name]) for name in STRUCTURES}


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
