"""One row per case (patient × frame); the summary and the CSV file of many rows.

A failed case never leaves an average unseen. A structure that only one of prediction and truth has is "missed":
its Dice and surface Dice are 0, its distances are infinite and stay out of their mean, which n_missed stands beside.
A structure that neither has is "absent": Dice 1, no distance, no surface Dice. Cases of nominal spacing are in no mm,
mL or g figure, nor in the surface Dice, whose tolerance is in mm; Dice and EF need no spacing and keep them.
"""

import csv
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ica_unet_jax.errors import UserError
from ica_unet_jax.labels import STRUCTURES
from ica_unet_jax.metrics.clinical import agreement, ejection_fraction, myocardial_mass, volumes_ml
from ica_unet_jax.metrics.overlap import structure_dice
from ica_unet_jax.metrics.surface import NSD_MM, surface_figures
from ica_unet_jax.runtime.files import replacing

Row = dict[str, Any]

METRICS_VERSION = 1  # raise it when a figure of a row changes its meaning: rows of two versions share no table

CASE = ("patient", "group", "frame", "phase", "nominal_spacing", "labelled_voxels", "labelled_outside")
SCORES = ("dice", "hd_mm", "hd95_mm", "assd_mm", "nsd")
MEASURES = (*SCORES, "volume_ml", "volume_ml_true")
COLUMNS = (*CASE, *(f"{measure}_{name}" for measure in MEASURES for name in STRUCTURES))
LATER = tuple(f"nsd_{name}" for name in STRUCTURES)  # columns that files of earlier versions lack


def case_metrics(prediction: np.ndarray, truth: np.ndarray, spacing: Sequence[float], nsd_mm: float = NSD_MM) -> Row:
    """The figures of one frame.

    prediction, truth: labels (slices, rows, columns) on the native grid; spacing: (dz, dy, dx) in mm;
    nsd_mm: tolerance of the normalized surface Dice.
    Keys: each of MEASURES followed by _RV, _MYO, _LV, and labelled_voxels, the size of the truth.
    Raises UserError where the shapes differ, the spacing does not fit or the tolerance is none.
    """
    if prediction.shape != truth.shape or truth.ndim != 3:
        raise UserError(
            f"Prediction {prediction.shape} and truth {truth.shape} cannot be compared: "
            "give both as (slices, rows, columns) on the native grid."
        )
    row: Row = {"labelled_voxels": int(np.count_nonzero(truth))}
    overlaps = structure_dice(prediction, truth)
    volumes, true_volumes = volumes_ml(prediction, spacing), volumes_ml(truth, spacing)
    for name, label in STRUCTURES.items():
        surfaces = surface_figures(prediction == label, truth == label, spacing, nsd_mm)
        figures = (overlaps[name], *surfaces, volumes[name], true_volumes[name])
        row |= {f"{measure}_{name}": float(figure) for measure, figure in zip(MEASURES, figures, strict=True)}
    return row


def mean_row(rows: Sequence[Row]) -> Row:
    """One row for several readings of the same frame: the mean of each figure over the readings that have it.

    A structure missed once is missed: the mean of a distance is infinite then.
    """
    means = {}
    for name in (f"{measure}_{structure}" for measure in MEASURES for structure in STRUCTURES):
        values = [row[name] for row in rows if not math.isnan(row[name])]
        means[name] = float(np.mean(values)) if values else math.nan
    return {**rows[0], **means}


def summarize(rows: Sequence[Row]) -> dict[str, Any]:
    """Means over patients, each patient's frames averaged first, as a JSON-safe dict (NaN and inf are None).

    rows: case_metrics plus patient, group, frame (from 1), phase ("ED", "ES" or ""), nominal_spacing (bool) and
    labelled_outside (voxels of the truth outside the window). Returns

    dice, hd_mm, hd95_mm, assd_mm, nsd: {RV, MYO, LV, mean}, the mean over patients; beside each its sample SD (dice_sd,
        …) and the patients in it (dice_n, …). A patient's "mean" is over the structures that it has a value for.
    n_cases (rows), n_patients, n_mm (patients with a spacing to be trusted), n_missed and n_absent (cases,
        {RV, MYO, LV}, whatever their spacing), labelled_voxels, labelled_voxels_outside.
    ef (fractions), edv_ml, esv_ml: {LV, RV}, and mass (g, of the myocardium at ED): agreement with the truth as
        {bias, limits, r, n, n_undefined}, over patients that have the phases it needs.
    """
    trusted = [row for row in rows if not row["nominal_spacing"]]
    summary: dict[str, Any] = {
        "n_cases": len(rows),
        "n_patients": len({row["patient"] for row in rows}),
        "n_mm": len({row["patient"] for row in trusted}),
        "n_missed": {name: _count(rows, name, math.isinf) for name in STRUCTURES},
        "n_absent": {name: _count(rows, name, math.isnan) for name in STRUCTURES},
        "labelled_voxels": sum(int(row["labelled_voxels"]) for row in rows),
        "labelled_voxels_outside": sum(int(row["labelled_outside"]) for row in rows),
    }
    for score in SCORES:
        scores = _patient_scores(rows if score == "dice" else trusted, score)
        columns = dict(zip((*STRUCTURES, "mean"), [*scores.T, _finite_mean(scores, axis=1)], strict=True))
        columns = {name: column[np.isfinite(column)] for name, column in columns.items()}
        summary[score] = {name: _mean(column) for name, column in columns.items()}
        summary[f"{score}_sd"] = {name: _sd(column) for name, column in columns.items()}
        summary[f"{score}_n"] = {name: len(column) for name, column in columns.items()}

    ventricles = ("LV", "RV")
    summary["ef"] = {name: _agreement(rows, name, ("ED", "ES"), ejection_fraction) for name in ventricles}
    summary["edv_ml"] = {name: _agreement(trusted, name, ("ED",), float) for name in ventricles}
    summary["esv_ml"] = {name: _agreement(trusted, name, ("ES",), float) for name in ventricles}
    summary["mass"] = _agreement(trusted, "MYO", ("ED",), myocardial_mass)
    return _json_safe(summary)


def write_cases_csv(path: str | os.PathLike, rows: Iterable[Row]) -> None:
    """Writes the rows under COLUMNS, whole or not at all; nominal_spacing as 0 or 1, inf as inf, NaN as nan."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "nominal_spacing": int(row["nominal_spacing"])} for row in rows)


def read_cases_csv(path: str | os.PathLike) -> list[Row]:
    """The rows that `write_cases_csv` wrote, as they were; what a file of an earlier version lacks is NaN (`LATER`).

    Raises UserError where the file is not one of its.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as the cases of an evaluation ({error!r}): run it again.") from error
    return rows_of(lines, path, "run it again")


def rows_of(lines: Iterable[Mapping[str, str]], path: str | os.PathLike, advice: str) -> list[Row]:
    """The rows of lines of such a file. Raises UserError, which ends with the advice, where they are none."""
    text, whole = ("patient", "group", "phase"), ("frame", "nominal_spacing", "labelled_voxels", "labelled_outside")
    kinds = {name: str if name in text else int if name in whole else float for name in COLUMNS}
    try:
        whole_lines = (dict.fromkeys(LATER, "nan") | dict(line) for line in lines)
        rows = [{name: kinds[name](line[name]) for name in COLUMNS} for line in whole_lines]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read as the cases of an evaluation ({error!r}): {advice}.") from error
    return [row | {"nominal_spacing": bool(row["nominal_spacing"])} for row in rows]


def patient_means(frames: Iterable[tuple[str, Mapping[str, Any]]], columns: Sequence[str]) -> dict[str, np.ndarray]:
    """{patient: the mean of each column over its frames}, of what is finite; NaN where nothing is.

    frames: (patient, figures of a frame by column) each; a column that a frame lacks is NaN.
    """
    found: dict[str, list[list[float]]] = {}
    for patient, row in frames:
        found.setdefault(patient, []).append([row.get(name, math.nan) for name in columns])
    return {patient: _finite_mean(np.array(values), axis=0) for patient, values in found.items()}


def _count(rows: Sequence[Row], name: str, kind) -> int:
    return sum(kind(row[f"hd_mm_{name}"]) for row in rows)


def _patient_scores(rows: Sequence[Row], score: str) -> np.ndarray:
    """(patients, structures): means over a patient's frames of what is finite, NaN where nothing is."""
    means = patient_means(((row["patient"], row) for row in rows), [f"{score}_{name}" for name in STRUCTURES])
    return np.array(list(means.values())).reshape(-1, len(STRUCTURES))


def _agreement(rows: Sequence[Row], name: str, phases: tuple[str, ...], figure) -> dict[str, Any]:
    """Agreement of a figure of the volumes of one structure at the given phases, over patients that have them."""
    by_patient: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_patient.setdefault(row["patient"], {})[row["phase"]] = row
    complete = [frames for frames in by_patient.values() if all(phase in frames for phase in phases)]
    sides = [
        [figure(*(frames[phase][f"{measure}_{name}"] for phase in phases)) for frames in complete]
        for measure in ("volume_ml", "volume_ml_true")
    ]
    return agreement(*sides)._asdict()


def _finite_mean(values: np.ndarray, axis: int) -> np.ndarray:
    finite = np.isfinite(values)
    count = finite.sum(axis)
    return np.where(count > 0, np.where(finite, values, 0).sum(axis) / np.maximum(count, 1), np.nan)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _sd(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else math.nan


def _json_safe(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _json_safe(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_json_safe(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
