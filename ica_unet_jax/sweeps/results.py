"""What a sweep has finished so far, read from its folder, and which of it may stand in one table.

WORKDIR/sweep.json says what was to run (in files of earlier versions every seed with every fold), WORKDIR/cells/CELL/seedS_foldF/ is there for every run that ended, whole, and
WORKDIR/peers/fastica_mM_foldF.csv is what FastICA makes of the same frames.
"""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ica_unet_jax.config import Config
from ica_unet_jax.errors import UserError
from ica_unet_jax.labels import STRUCTURES
from ica_unet_jax.reporting.markup import counted

Frame = tuple[str, str]  # (patient, frame)
Figures = dict[Frame, dict[str, float]]  # the numbers of a CSV by frame

GRID = ("crop", "spacing", "train_window", "label_map", "phantom_patients", "phantom_shape")  # knobs that say what is segmented
CASES = ("nominal_spacing", *(f"{score}_{name}" for score in ("dice", "hd95_mm") for name in STRUCTURES))
NSD = tuple(f"nsd_{name}" for name in STRUCTURES)  # kept where a file has them
ICA = (
    "hoyer", "kurtosis", "negentropy", "correlation", "mutual_information", "n_constant",
    "psnr", "ssim", "explained_variance", "scale_of_bases", "scale_of_coefficients",
)  # fmt: skip
ICA_EXTRA = (
    "n_values", "converged", "cross_entropy", "weighted_sparsity", "weighted_independence", "weighted_reconstruction",
    "negentropy_alpha", "frame_share",
)  # fmt: skip  # kept where a file has them
_DEFAULTS = Config().flat()  # of a knob that a run's version did not have
_AGAIN = "delete it (of a cell the whole folder) and run the sweep's command again"


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

    def __str__(self) -> str:
        return f"{self.cell} (seed {self.seed}, fold {self.fold})"


@dataclasses.dataclass(frozen=True)
class Sweep:
    command: str
    hardware: dict[str, Any]
    studies: tuple[Study, ...]
    runs: dict[tuple[str, int, int], Run]  # by cell, seed and fold; those that ended
    peers: dict[int, dict[int, Figures]]  # FastICA's figures by m and fold

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
    plan = _json(workdir / "sweep.json")
    try:
        studies = tuple(
            Study(s["name"], s["question"], s["section"], s["reference"], tuple(map(_cell, s["cells"])), _trainings(s, plan))
            for s in plan["studies"]
        )
        sweep = Sweep(plan["command"], plan["hardware"], studies, {}, {})
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{workdir / 'sweep.json'} lacks {error}: run the sweep's command again.") from error
    for cell, seed, fold in sweep.planned():
        folder = workdir / "cells" / cell / f"seed{seed}_fold{fold}"
        if (folder / "done.json").is_file():
            sweep.runs[cell, seed, fold] = _run(folder, cell, seed, fold)
    for m, fold in sorted({(run.config["bases"], run.fold) for run in sweep.runs.values() if run.ica}):
        path = workdir / "peers" / f"fastica_m{m}_fold{fold}.csv"
        if path.is_file():
            sweep.peers.setdefault(m, {})[fold] = _figures(path, ICA, ICA_EXTRA)
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
                f"peers/fastica_m{run.config['bases']}_fold{run.fold}.csv and the cell {run} were judged on different "
                "frames: delete the file, so that the sweep makes it again."
            )


def _run(folder: Path, cell: str, seed: int, fold: int) -> Run:
    done, timing = _json(folder / "done.json"), folder / "timing.json"
    status = done.get("status")
    if status not in ("done", "diverged", "crashed"):
        raise UserError(f"{folder / 'done.json'} has the status {status}: {_AGAIN}.")
    finished = status == "done"
    split = _json(folder / "split.json") if finished else {}
    config, provenance, ica = (folder / name for name in ("config.json", "provenance.json", "ica.csv"))
    return Run(
        cell,
        seed,
        fold,
        status,
        message=" ".join("".join(c if c.isprintable() else " " for c in str(done.get("message") or "")).split()),
        step=done.get("step"),
        metrics_version=done.get("metrics_version"),
        commit=str(_json(provenance).get("commit") or "") if provenance.is_file() else "",
        config=_json(config) if finished or config.is_file() else {},
        split={part: tuple(sorted(split[part])) for part in sorted(split)},
        timing=_json(timing) if timing.is_file() else {},
        cases=_figures(folder / "cases.csv", CASES, NSD) if finished else {},
        ica=_figures(ica, ICA, ICA_EXTRA) if finished and ica.is_file() else {},
    )


def _cell(cell: Mapping[str, Any]) -> Cell:
    return Cell(cell["cell"], cell["label"], cell.get("parameters"), cell.get("gflop"), cell.get("title", ""))


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): is --workdir the folder of a sweep?") from error
    except ValueError as error:
        raise UserError(f"{path} is no JSON ({error}): {_AGAIN}.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object: {_AGAIN}.")
    return content


def _figures(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> Figures:
    """The numbers of a CSV with the columns patient and frame; an empty field is NaN."""
    figures: Figures = {}
    try:
        with path.open(newline="") as file:
            lines = csv.reader(file)
            head = next(lines, [])
            lacking = [name for name in ("patient", "frame", *columns) if name not in head]
            if lacking:
                raise UserError(f"{path} has no column {lacking[0]}: {_AGAIN}.")
            columns = (*columns, *(name for name in optional if name in head))
            patient, frame, *places = (head.index(name) for name in ("patient", "frame", *columns))
            for line in lines:
                values = [float(line[i] or "nan") for i in places]
                if (line[patient], line[frame]) in figures:
                    raise UserError(f"{path} has frame {line[frame]} of {line[patient]} twice: {_AGAIN}.")
                figures[line[patient], line[frame]] = dict(zip(columns, values, strict=True))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): {_AGAIN}.") from error
    except (ValueError, IndexError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is damaged ({error}): {_AGAIN}.") from error
    return figures
