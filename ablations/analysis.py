"""The figures of one study: a line for each cell, with its contrast to the reference."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from ablations import scores
from ablations.results import Cell, Study, Sweep
from ablations.scores import Distances, Scores
from ablations.statistics import Contrast, Summary, contrast, holm, summarize


@dataclasses.dataclass(frozen=True)
class Line:
    """A cell of a study. Without all of its seeds it has a state, and none of the figures below it."""

    cell: Cell
    label: str
    is_reference: bool
    seeds_done: int
    state: str  # why there are no figures; empty where there are
    failed: bool  # some run diverged or crashed
    dice: dict[str, Summary] = dataclasses.field(default_factory=dict)  # RV, MYO, LV, mean
    seeds: dict[int, float] = dataclasses.field(default_factory=dict)  # mean Dice over the patients by seed
    hd95: Summary | None = None  # mm; None where no case has a finite distance
    distances: Distances | None = None
    contrast: Contrast | None = None  # of mean Dice to the reference's; None of the reference, and until it has figures
    hd95_contrast: Contrast | None = None  # mm, over what is finite in both; None where nothing is
    hd95_pairs: int = 0  # cases that hd95_contrast is over
    ica: dict[str, float] = dataclasses.field(default_factory=dict)  # means over patients; empty without bases
    bases: int | None = None


@dataclasses.dataclass(frozen=True)
class Analysis:
    study: Study
    seeds: tuple[int, ...]
    folds: tuple[int, ...]
    lines: tuple[Line, ...]
    patients: int  # 0 until a cell is finished
    peers: dict[int, dict[str, float]]  # FastICA's figures by m; empty ones where a fold is missing

    @property
    def reference(self) -> Line:
        return next(line for line in self.lines if line.is_reference)

    @property
    def contrasts(self) -> list[tuple[Line, Contrast]]:
        return [(line, line.contrast) for line in self.lines if line.contrast]


def analyse(sweep: Sweep, study: Study) -> Analysis:
    """Every finished cell against the reference; p is Holm's over the study's finished cells.

    Raises UserError where the scores of two cells cannot be paired.
    """
    lines = [_line(sweep, study, cell) for cell in study.cells]
    finished = [line.cell.name for line in lines if not line.state]
    folds = {patient: run.fold for run in sweep.of(*finished) for patient, _ in run.cases}
    if study.reference in finished:
        lines = _contrasts(sweep, lines, study.reference, folds)
    peers = {m: _peer(sweep, m) for m in sorted({line.bases for line in lines if line.ica} & set(sweep.peers))}
    return Analysis(study, sweep.seeds, sweep.folds, tuple(lines), len(folds), peers)


def _contrasts(sweep: Sweep, lines: list[Line], reference: str, folds: dict[str, int]) -> list[Line]:
    """The lines, finished ones with their contrasts to the reference."""
    theirs = scores.dice(sweep, reference)["mean"]
    rivals = [line.cell.name for line in lines if not line.state and not line.is_reference]
    found = holm(
        [contrast(scores.dice(sweep, name)["mean"], theirs, folds, names=(name, reference)) for name in rivals]
    )
    changes = {
        name: dict(contrast=dice, **_distance_contrast(sweep, name, reference, folds))
        for name, dice in zip(rivals, found, strict=True)
    }
    return [dataclasses.replace(line, **changes.get(line.cell.name, {})) for line in lines]


def _line(sweep: Sweep, study: Study, cell: Cell) -> Line:
    is_reference, state = cell.name == study.reference, sweep.state(cell.name)
    failed = any(run.status != "done" for run in sweep.of(cell.name))
    line = Line(cell, cell.label, is_reference, len(sweep.seeds_done(cell.name)), state, failed)
    if state:
        return line
    dice, distances = scores.dice(sweep, cell.name), scores.distances(sweep, cell.name)
    runs = list(sweep.of(cell.name))
    return dataclasses.replace(
        line,
        label=_reference_label(study, runs[0].config) if is_reference else cell.label,
        dice={part: summarize(values, cell.name) for part, values in dice.items()},
        seeds={seed: _mean_of_seed(dice["mean"], seed) for seed in sweep.seeds},
        hd95=summarize(distances.scores, cell.name) if distances.scores else None,
        distances=distances,
        ica=scores.ica(run.ica for run in runs),
        bases=runs[0].config.get("bases"),
    )


def _reference_label(study: Study, config: dict[str, Any]) -> str:
    """With the values of the knobs that the study turns, or of those that every cell turns where they are more than two."""
    cells = [[change.partition("=")[0] for change in cell.label.split(", ") if "=" in change] for cell in study.cells]
    turned = dict.fromkeys(knob for cell in cells for knob in cell if knob in config)
    if len(turned) > 2:
        turned = [knob for knob in turned if all(knob in cell for cell in cells if cell)]
    values = (f"{knob}={config[knob]:g}" if isinstance(config[knob], float) else f"{knob}={config[knob]}" for knob in turned)
    return f"reference ({', '.join(values)})" if turned else "reference"


def _mean_of_seed(values: Scores, seed: int) -> float:
    of_seed = [score for (other, _), score in values.items() if other == seed]
    return math.fsum(of_seed) / len(of_seed)


def _distance_contrast(sweep: Sweep, cell: str, reference: str, folds: dict[str, int]) -> dict[str, Any]:
    ours, theirs = scores.distances(sweep, cell, reference), scores.distances(sweep, reference, cell)
    if not ours.scores:
        return {}
    found = contrast(ours.scores, theirs.scores, folds, lower_is_better=True, names=(cell, reference))
    return {"hd95_contrast": found, "hd95_pairs": ours.finite}


def _peer(sweep: Sweep, m: int) -> dict[str, float]:
    folds = sweep.peers[m]
    return scores.ica(folds.values()) if set(folds) == set(sweep.folds) else {}
