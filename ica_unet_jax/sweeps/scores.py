"""From figures of frames to scores of patients, and of trainings.

Frames are averaged within a patient first, then the seeds of a fold; what is not finite is left out. Asked of cells that have all
of their trainings.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ica_unet_jax.labels import STRUCTURES
from ica_unet_jax.metrics import cases
from ica_unet_jax.sweeps.results import PLACES, Figures, Run

Scores = dict[tuple[int, str], float]  # (fold, patient) -> score
Cases = Mapping[tuple, float]  # (seed, fold, patient, frame, structure) -> score


@dataclasses.dataclass(frozen=True)
class Summary:
    """One figure of one cell."""

    n: int  # patients
    mean: float
    sd: float | None  # over patients; None below two


@dataclasses.dataclass(frozen=True)
class Distances:
    """HD95 in mm. A case is one structure of one labelled frame; it counts where it is finite with every seed."""

    scores: Scores  # without the patients that have no such case
    finite: int  # cases in the scores
    missed: int  # cases that only one of prediction and truth has, with any seed, whatever the spacing
    total: int


def overlaps(runs: Sequence[Run], measure: str = "dice") -> dict[str, Scores]:
    """By "RV", "MYO", "LV", and "mean": a patient's mean over the three. A patient without a finite figure is left out."""
    parts = {name: [f"{measure}_{name}"] for name in STRUCTURES} | {"mean": [f"{measure}_{name}" for name in STRUCTURES]}
    return {part: _averaged(((run.fold, run.cases) for run in runs), columns) for part, columns in parts.items()}


def by_place(runs: Sequence[Run]) -> dict[str, Scores]:
    """By the columns of `PLACES`; empty where a run has none."""
    return {name: _averaged(((run.fold, run.places) for run in runs), [name]) for name in PLACES} if all(run.places for run in runs) else {}


def of_trainings(runs: Sequence[Run]) -> dict[tuple[int, int], float]:
    """Mean Dice by (seed, fold)."""
    columns = [f"dice_{name}" for name in STRUCTURES]
    return {(run.seed, run.fold): _mean(list(patient_means(run.cases, columns).values())) for run in runs}


def by_fold(values: Scores) -> dict[int, np.ndarray]:
    """The patients' scores of each fold, both sorted."""
    folds: dict[int, list[float]] = {}
    for fold, patient in sorted(values):
        folds.setdefault(fold, []).append(values[fold, patient])
    return {fold: np.array(scores) for fold, scores in folds.items()}


def summarize(values: Scores, pooled: bool = False) -> Summary | None:
    """The mean over folds of the mean over their patients, as contrasts are of; None without a patient.

    pooled: the mean over all patients instead, for figures that many of a fold may lack.
    """
    if not values:
        return None
    scores = np.array(list(values.values()))
    means = scores.tolist() if pooled else [float(part.mean()) for part in by_fold(values).values()]
    return Summary(len(scores), math.fsum(means) / len(means), float(scores.std(ddof=1)) if len(scores) > 1 else None)


def distances(runs: Sequence[Run], others: Sequence[Run] = ()) -> Distances:
    """HD95 of a cell's runs; with `others`, of another cell, over the cases that are finite in both."""
    everything = {
        (run.seed, run.fold, patient, frame, name): row[f"hd95_mm_{name}"]
        for run in runs
        for (patient, frame), row in run.cases.items()
        for name in STRUCTURES
    }
    kept = finite_cases(_trusted(runs), *([_trusted(others)] if others else []))
    rows: dict[tuple[int, int], Figures] = {}
    for (seed, fold, patient, frame, name), value in _trusted(runs).items():
        if (fold, patient, frame, name) in kept:
            rows.setdefault((seed, fold), {}).setdefault((patient, frame), {})[name] = value
    return Distances(
        scores=_averaged(((fold, figures) for (_, fold), figures in rows.items()), list(STRUCTURES)),
        finite=len(kept),
        missed=len({key[1:] for key, value in everything.items() if math.isinf(value)}),
        total=len({key[1:] for key in everything}),
    )


def finite_cases(*cells: Cases) -> set[tuple]:
    """The cases, keys without the seed, that are finite in every cell with every seed."""
    wrong = {key[1:] for cell in cells for key, value in cell.items() if not math.isfinite(value)}
    return set.intersection(*({key[1:] for key in cell} for cell in cells)) - wrong


def ica(runs: Iterable[Figures]) -> dict[str, float]:
    """Means over patients of the figures of several runs, of those that all have; empty where there are none."""
    runs = [figures for figures in runs if figures]
    rows = [next(iter(figures.values())) for figures in runs]
    names = [name for name in rows[0] if all(name in row for row in rows)] if rows else []
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
    means = cases.patient_means(((patient, figures[patient, frame]) for patient, frame in sorted(figures)), columns)
    return {patient: _mean(values.tolist()) for patient, values in means.items()}


def _averaged(figures: Iterable[tuple[int, Figures]], columns: Sequence[str]) -> Scores:
    """The patients' means over their seeds, of figures with their fold."""
    seeds: dict[tuple[int, str], list[float]] = {}
    for fold, of_run in figures:
        for patient, value in patient_means(of_run, columns).items():
            seeds.setdefault((fold, patient), []).append(value)
    means = {key: _mean(values) for key, values in sorted(seeds.items())}
    return {key: value for key, value in means.items() if math.isfinite(value)}


def _trusted(runs: Sequence[Run]) -> dict[tuple, float]:
    """HD95 where the voxel size is known."""
    return {
        (run.seed, run.fold, patient, frame, name): row[f"hd95_mm_{name}"]
        for run in runs
        for (patient, frame), row in run.cases.items()
        for name in STRUCTURES
        if not row["nominal_spacing"]
    }


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return math.fsum(finite) / len(finite) if finite else math.nan
