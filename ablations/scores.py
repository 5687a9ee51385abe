"""From figures of frames to scores of patients: frames are averaged first, what is not finite is left out.

Asked of cells that have all of their seeds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

from ablations.results import Figures, Sweep
from ablations.statistics import finite_pairs
from ica_unet_jax.metrics import STRUCTURES

Scores = dict[tuple[int, str], float]  # (seed, patient) -> score


@dataclasses.dataclass(frozen=True)
class Distances:
    """HD95 in mm. A case is one structure of one labelled frame; it counts where it is finite with every seed."""

    scores: Scores  # without the patients that have no such case
    finite: int  # cases in the scores
    missed: int  # cases that only one of prediction and truth has, with any seed, whatever the spacing
    total: int


def dice(sweep: Sweep, cell: str) -> dict[str, Scores]:
    """By "RV", "MYO", "LV", and "mean": a patient's mean over the three."""
    parts = {name: [f"dice_{name}"] for name in STRUCTURES}
    parts["mean"] = [f"dice_{name}" for name in STRUCTURES]
    return {
        part: {
            (run.seed, patient): score
            for run in sweep.of(cell)
            for patient, score in patient_means(run.cases, columns).items()
        }
        for part, columns in parts.items()
    }


def distances(sweep: Sweep, cell: str, other: str = "") -> Distances:
    """HD95 of a cell; with `other`, of the same study, over the cases that are finite in both."""
    everything = {
        (run.seed, patient, frame, name): row[f"hd95_mm_{name}"]
        for run in sweep.of(cell)
        for (patient, frame), row in run.cases.items()
        for name in STRUCTURES
    }
    ours, theirs = _trusted_distances(sweep, cell), _trusted_distances(sweep, other or cell)
    kept, _, finite = finite_pairs(ours, theirs)
    rows: dict[int, Figures] = {}
    for (seed, patient, frame, name), value in kept.items():
        rows.setdefault(seed, {}).setdefault((patient, frame), {})[name] = value
    return Distances(
        scores={
            (seed, patient): score
            for seed, figures in rows.items()
            for patient, score in patient_means(figures, list(STRUCTURES)).items()
        },
        finite=finite,
        missed=len({key[1:] for key, value in everything.items() if math.isinf(value)}),
        total=len({key[1:] for key in everything}),
    )


def ica(runs: Iterable[Figures]) -> dict[str, float]:
    """Means over patients of the figures of several runs of the same patients; empty where there are none."""
    runs = [figures for figures in runs if figures]
    names = list(next(iter(runs[0].values()))) if runs else []
    means = {}
    for name in names:
        patients: dict[str, list[float]] = {}
        for figures in runs:
            for patient, value in patient_means(figures, [name]).items():
                patients.setdefault(patient, []).append(value)
        means[name] = _mean([_mean(values) for values in patients.values()])
    return means


def patient_means(figures: Figures, columns: Sequence[str]) -> dict[str, float]:
    """By patient: the mean over the columns of the means over the frames, each over what is finite; NaN for none."""
    frames: dict[str, list[dict[str, float]]] = {}
    for patient, frame in sorted(figures):
        frames.setdefault(patient, []).append(figures[patient, frame])
    return {
        patient: _mean([_mean([row.get(name, math.nan) for row in rows]) for name in columns])
        for patient, rows in frames.items()
    }


def _trusted_distances(sweep: Sweep, cell: str) -> dict[tuple, float]:
    return {
        (run.seed, patient, frame, name): row[f"hd95_mm_{name}"]
        for run in sweep.of(cell)
        for (patient, frame), row in run.cases.items()
        for name in STRUCTURES
        if not row["nominal_spacing"]
    }


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return math.fsum(finite) / len(finite) if finite else math.nan
