"""What a sweep has finished so far, and which of it may stand in one table.

WORKDIR/sweep.json says what was to run (in files of earlier versions every seed with every fold), `records` what has ended.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ica_unet_jax.config import Config
from ica_unet_jax.errors import UserError
from ica_unet_jax.evaluation import where_lost
from ica_unet_jax.labels import STRUCTURES
from ica_unet_jax.metrics.cases import rows_of
from ica_unet_jax.reporting.markup import counted
from ica_unet_jax.runtime.files import read_object
from ica_unet_jax.sweeps import records
from ica_unet_jax.sweeps.records import Line, Record

Frame = tuple[str, str]  # (patient, frame)
Figures = dict[Frame, dict[str, Any]]  # the lines of a CSV by frame, numbers as numbers

GRID = ("crop", "spacing", "label_map", "phantom_patients", "phantom_shape")  # knobs that say what is segmented
PLACES = tuple(f"dice_{place}_{name}" for place in where_lost.PLACES for name in STRUCTURES)
NSD = tuple(f"nsd_{name}" for name in STRUCTURES)  # NaN where the file is of a version that did not measure it
ICA = (
    "hoyer", "kurtosis", "negentropy", "correlation", "mutual_information", "n_constant",
    "psnr", "ssim", "explained_variance", "scale_of_bases", "scale_of_coefficients",
)  # fmt: skip
ICA_EXTRA = (
    "n_values", "converged", "cross_entropy", "weighted_sparsity", "weighted_independence", "weighted_reconstruction",
    "negentropy_alpha", "frame_share",
)  # fmt: skip  # kept where a file has them
_DEFAULTS = Config().flat()  # of a knob that a run's version did not have


def numbered(word: str, numbers: Sequence[int]) -> str:
    """As in "seed 0" and "folds 0, 1"."""
    return f"{word}{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


Training = tuple[int, int]  # (seed, fold)


@dataclasses.dataclass(frozen=True)
class Cell:
    name: str  # of its folder
    label: str  # the knobs that differ from the reference
    parameters: float | None
    gflop: float | None
    title: str = ""  # what its study called it when it was planned; files of earlier versions have none


@dataclasses.dataclass(frozen=True)
class Study:
    name: str
    question: str
    section: str  # of the paper
    reference: str  # the name of one of the cells
    cells: tuple[Cell, ...]
    trainings: tuple[Training, ...]  # of each cell

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(sorted({seed for seed, _ in self.trainings}))

    @property
    def folds(self) -> tuple[int, ...]:
        return tuple(sorted({fold for _, fold in self.trainings}))


@dataclasses.dataclass(frozen=True)
class Run:
    """One cell at one seed and fold, ended: "done", "diverged" or "crashed". Only a done one has figures."""

    cell: str
    seed: int
    fold: int
    status: str
    message: str
    step: int | None
    metrics_version: int | None
    commit: str  # that it was trained from; empty where that is not known
    config: dict[str, Any]  # as it was written, by whatever version
    split: dict[str, tuple[str, ...]]
    timing: dict[str, Any]
    cases: Figures
    ica: Figures
    places: Figures  # Dice by place in the stack; empty where the run's version did not measure it

    def __str__(self) -> str:
        return f"{self.cell} (seed {self.seed}, fold {self.fold})"


@dataclasses.dataclass(frozen=True)
class Sweep:
    command: str
    hardware: dict[str, Any]
    studies: tuple[Study, ...]
    runs: dict[tuple[str, int, int], Run]  # by cell, seed and fold; those that ended
    peers: dict[int, dict[int, Figures]]  # FastICA's figures by m and fold
    curves: dict[tuple[str, int, int], dict[int, float]] = dataclasses.field(default_factory=dict)  # mean Dice of validations by step, of these runs

    def of(self, study: Study, *cells: str) -> Iterator[Run]:
        """The ended runs of a study's cells, or of some of them, in the order of the study."""
        names = cells or [cell.name for cell in study.cells]
        keys = ((cell, seed, fold) for cell in names for seed, fold in study.trainings)
        return (self.runs[key] for key in keys if key in self.runs)

    def state(self, study: Study, cell: str) -> str:
        """Why a cell of a study has no figures yet, or never will; empty for one that has all of its trainings."""
        ended = list(self.of(study, cell))
        done, total = sum(run.status == "done" for run in ended), len(study.trainings)
        failed: dict[tuple, list[Run]] = {}
        for run in ended:
            if run.status != "done":
                failed.setdefault((run.fold, run.status, run.step, run.message), []).append(run)
        parts = [f"incomplete: {done} of {counted(total, 'training')}"] if len(ended) < total or 0 < done < total else []
        for (fold, status, step, message), runs in failed.items():
            places = numbered("seed", [run.seed for run in runs]) + (f", fold {fold}" if len(study.folds) > 1 else "")
            when = f" at step {step}" if step else ""
            parts.append(f"{status}{when} ({places})" + (f": {message}" if message else ""))
        return "; ".join(parts)

    def planned(self) -> list[tuple[str, int, int]]:
        """Cell, seed and fold of every training of the sweep, once."""
        keys = ((cell.name, *training) for study in self.studies for cell in study.cells for training in study.trainings)
        return list(dict.fromkeys(keys))


def read(workdir: str | Path) -> Sweep:
    """Raises UserError where a file is missing or not what it should be, and where runs may not share a table."""
    workdir = Path(workdir)
    plan = read_object(workdir / "sweep.json", "is --workdir the folder of a sweep?")
    try:
        studies = tuple(
            Study(s["name"], s["question"], s["section"], s["reference"], tuple(map(_cell, s["cells"])), _trainings(s, plan))
            for s in plan["studies"]
        )
        sweep = Sweep(plan["command"], plan["hardware"], studies, {}, {})
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{workdir / 'sweep.json'} lacks {error}: run the sweep's command again.") from error
    ended = records.read(workdir)
    sweep.runs.update((key, _run(ended[key])) for key in sweep.planned() if key in ended)
    try:
        for key, lines in records.curves(workdir, [ended[key] for key in sweep.runs]).items():
            sweep.curves[key] = {int(line["step"]): float(line["dice_mean"]) for line in lines if line.get("dice_mean") is not None}
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{workdir / 'curves.csv'}, or metrics.jsonl of a cell, is damaged ({error!r}): bring it back, or remove it.") from error
    wanted = {(run.config["bases"], run.fold) for run in sweep.runs.values() if run.ica}
    for (m, fold), lines in sorted(records.peers(workdir).items()):
        if (m, fold) in wanted:
            sweep.peers.setdefault(m, {})[fold] = _figures(lines, ICA, ICA_EXTRA, f"FastICA's file of m = {m}, fold {fold},", "make it again")
    for study in studies:
        _check(sweep, study)
    return sweep


def _trainings(study: Mapping[str, Any], plan: Mapping[str, Any]) -> tuple[Training, ...]:
    """A study's own, or the sweep's; fold by fold, as blocks are."""
    pairs = study.get("runs") or plan.get("runs") or [(seed, fold) for seed in plan["seeds"] for fold in plan["folds"]]
    return tuple(sorted(((seed, fold) for seed, fold in pairs), key=lambda pair: pair[::-1]))


def _check(sweep: Sweep, study: Study) -> None:
    """Raises UserError where two runs of a study were not judged on the same data by the same metrics."""
    runs = [run for run in sweep.of(study) if run.status == "done"]
    questions: Sequence[tuple[str, bool, Callable[[Run], Any]]] = (
        ("versions of the metrics", False, lambda run: run.metrics_version),
        ("grids", False, lambda run: {name: run.config.get(name, _DEFAULTS[name]) for name in GRID}),
        ("splits", True, lambda run: run.split),
        ("patients or frames", True, lambda run: set(run.cases)),
    )
    for what, by_fold, answer in questions:
        first: dict[int, Run] = {}
        for run in runs:
            other = first.setdefault(run.fold if by_fold else 0, run)
            if answer(run) != answer(other):
                raise UserError(
                    f"{study.name}: {other} and {run} have different {what} and cannot share a table: "
                    "run one of them again, or keep them in two sweeps."
                )
    seen: dict[str, Run] = {}
    for run in runs:
        for patient, _ in run.cases:
            other = seen.setdefault(patient, run)
            if other.fold != run.fold:
                raise UserError(
                    f"{study.name}: patient {patient} is judged in two folds, by {other} and {run}: "
                    "give folds that share no patient."
                )
    for run in runs:
        peer = sweep.peers.get(run.config["bases"], {}).get(run.fold) if run.ica else None
        if peer is not None and set(peer) != set(run.ica):
            raise UserError(
                f"FastICA at m = {run.config['bases']} in fold {run.fold} and the cell {run} were judged on different frames: "
                "delete it in peers/ or in peers.csv, so that the sweep makes it again."
            )


def _run(record: Record) -> Run:
    facts = record.facts
    status = facts.get("status")
    if status not in ("done", "diverged", "crashed"):
        raise UserError(f"{record.place} has a run with the status {status}: {record.advice}.")
    judged, ica, places = (record.figures.get(part, []) if status == "done" else [] for part in records.PARTS)
    if status == "done" and not judged:
        raise UserError(f"{record.place / 'cases.csv'} has no line of {record.cell}, seed {record.seed}, fold {record.fold}: {record.advice}.")
    return Run(
        record.cell,
        record.seed,
        record.fold,
        status,
        message=" ".join("".join(c if c.isprintable() else " " for c in facts.get("message", "")).split()),
        step=facts.get("step"),
        metrics_version=facts.get("metrics_version"),
        commit=facts.get("commit", ""),
        config=record.config,
        split={part: tuple(sorted(record.split[part])) for part in sorted(record.split)} if status == "done" else {},
        timing={name: facts[name] for name in (*records.TIMING, "device") if name in facts},
        cases=_cases(judged, record.place / "cases.csv", record.advice),
        ica=_figures(ica, ICA, ICA_EXTRA, record.place / "ica.csv", record.advice) if ica else {},
        places={frame: dict.fromkeys(PLACES, math.nan) | row for frame, row in _figures(places, (), PLACES, record.place / "places.csv", record.advice).items()} if places else {},
    )


def _cell(cell: Mapping[str, Any]) -> Cell:
    return Cell(cell["cell"], cell["label"], cell.get("parameters"), cell.get("gflop"), cell.get("title", ""))


def _cases(lines: Sequence[Line], path: Path, advice: str) -> Figures:
    """The rows of cases.csv by frame."""
    rows = rows_of(({"group": "", "phase": ""} | line for line in lines), path, advice)  # which may be empty, and so not in a line
    return _by_frame((((row["patient"], str(row["frame"])), row) for row in rows), path, advice)


def _figures(lines: Sequence[Line], columns: Sequence[str], optional: Sequence[str], place: str | Path, advice: str) -> Figures:
    """The numbers of lines with a patient and a frame; what a line lacks is NaN where another line has it."""
    heads = {name for line in lines for name in line}
    lacking = [name for name in ("patient", "frame", *columns) if name not in heads]
    if lacking:
        raise UserError(f"{place} has no column {lacking[0]}: {advice}.")
    names = (*columns, *(name for name in optional if name in heads))
    try:
        found = [((line["patient"], line["frame"]), {name: float(line.get(name, "nan")) for name in names}) for line in lines]
    except (KeyError, ValueError) as error:
        raise UserError(f"{place} is damaged ({error}): {advice}.") from error
    return _by_frame(found, place, advice)


def _by_frame(rows: Iterable[tuple[Frame, dict[str, Any]]], place: str | Path, advice: str) -> Figures:
    figures: Figures = {}
    for frame, row in rows:
        if frame in figures:
            raise UserError(f"{place} has frame {frame[1]} of {frame[0]} twice: {advice}.")
        figures[frame] = row
    return figures
