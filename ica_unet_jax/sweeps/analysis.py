"""The figures of one study: a line for each cell, and the contrasts that it decides."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import statistics as plain
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ica_unet_jax.config import Config
from ica_unet_jax.errors import UserError
from ica_unet_jax.sweeps import scores, setting, statistics, titles
from ica_unet_jax.sweeps.results import NSD, Cell, Run, Study, Sweep
from ica_unet_jax.sweeps.scores import Distances, Scores, Summary
from ica_unet_jax.sweeps.statistics import DELTA, Contrast
from ica_unet_jax.sweeps.study import Study as Definition
from ica_unet_jax.sweeps.study import label


@dataclasses.dataclass(frozen=True)
class Finding:
    """A contrast, with what stands beside it."""

    title: str
    contrast: Contrast
    patients: tuple[float, float] | None  # 95 % of these networks on other patients; None below ten
    mixed: bool  # over trainings of different commits
    is_effect: bool = False  # of a factorial, or a trend; else a cell against the reference

    @property
    def decision(self) -> str:
        """In words; an effect that is within delta is none above it."""
        contrast = self.contrast
        if self.is_effect and contrast.within and not contrast.verdict:
            return f"no effect above {contrast.delta:g}"
        return contrast.decision


@dataclasses.dataclass(frozen=True)
class Line:
    """A cell of a study. Without all of its trainings it has a state, and none of the figures below it."""

    cell: Cell
    title: str
    is_reference: bool
    done: int  # trainings
    state: str  # why there are no figures; empty where there are
    failed: bool  # some run diverged or crashed
    levels: tuple[bool, ...] | None = None  # which factors of a factorial are there; None of a cell that is none of its
    dice: dict[str, Summary] = dataclasses.field(default_factory=dict)  # RV, MYO, LV, mean
    nsd: dict[str, Summary | None] = dataclasses.field(default_factory=dict)  # the same; empty where a run has none
    places: dict[str, Summary | None] = dataclasses.field(default_factory=dict)  # Dice by `PLACES`; empty where a run has none
    trainings: dict[tuple[int, int], float] = dataclasses.field(default_factory=dict)  # mean Dice by seed and fold
    hd95: Summary | None = None  # mm; None where no case has a finite distance
    distances: Distances | None = None
    finding: Finding | None = None  # of mean Dice to the reference's; None of the reference, and until it has figures
    hd95_difference: float | None = None  # mm, over what is finite in both; None where nothing is
    hd95_pairs: int = 0  # cases that it is over
    ica: dict[str, float] = dataclasses.field(default_factory=dict)  # means over patients; empty without bases
    bases: int | None = None
    frame_ms: float | None = None  # of one streamed frame, the median over runs


@dataclasses.dataclass(frozen=True)
class Analysis:
    study: Study
    question: str
    section: str
    opening: str  # data, reference, loss
    noun: str  # of a validation case
    patients: int  # 0 until a cell is finished
    factors: tuple[str, ...]  # letters of a factorial, of which all cells are there; else none
    lines: tuple[Line, ...]
    effects: tuple[Finding, ...]  # of a factorial, and trends
    delta: float
    residual: float | None  # SD of a training round cell + block, of the cells that share an error; None of one block
    freedom: int  # its degrees of freedom
    far: frozenset[str]  # titles of the cells that do not
    commits: Mapping[str, int]  # runs by commit
    peers: dict[int, dict[str, float]]  # FastICA's figures by m; empty ones where a fold is missing
    series: Mapping[str, Mapping[int, Line]]  # of each trend the cells on its line, by the first knob's value

    @property
    def reference(self) -> Line:
        return next(line for line in self.lines if line.is_reference)

    @property
    def findings(self) -> list[Finding]:
        """Of the cells against the reference."""
        return [line.finding for line in self.lines if line.finding]

    @property
    def decided(self) -> list[Finding]:
        """Those that Holm's correction is over: a factorial speaks by its effects, not by its cells."""
        of_cells = [line.finding for line in self.lines if line.finding and not (self.factors and line.levels)]
        return [*self.effects, *of_cells]


def analyse(sweep: Sweep, study: Study, definition: Definition | None = None, delta: float = DELTA) -> Analysis:
    """Every finished cell against the reference, the effects of a factorial, the trends.

    Question, titles, factors and trends are those of the study as it is defined now; without a definition, question and
    titles are those that it was planned with.
    """
    configs = {cell.name: setting.recorded(run.config) for cell in study.cells for run in sweep.of(study, cell.name) if run.config}
    reference = configs.get(study.reference)
    names = _titles(study, definition, reference)
    factors = definition.factors if definition else {}
    lines = []
    for cell in study.cells:
        config = configs.get(cell.name)
        line = _line(sweep, study, cell, names[cell.name])
        lines.append(dataclasses.replace(line, levels=_levels(config, reference, factors)))
    whole = {line.levels for line in lines if not line.state} - {None}
    letters = tuple(factors.values()) if factors and len(whole) == 2 ** len(factors) else ()
    trends = definition.trends if definition else {}
    lines, effects, residual, freedom, far = _contrasts(sweep, study, lines, configs, letters, trends, delta)
    ended = list(sweep.of(study))
    by_name = {line.cell.name: line for line in lines}
    points = _on_trends([line for line in lines if not line.state], configs, study.reference, trends)
    patients = len({patient for run in ended for patient, _ in run.cases})
    shown = reference or next(iter(configs.values()), None)
    return Analysis(
        study=study,
        question=definition.question if definition else study.question,
        section=definition.section if definition else study.section,
        opening=setting.opening(shown, sweep.command, patients),
        noun=setting.noun(shown),
        patients=patients,
        factors=letters,
        lines=tuple(lines),
        effects=tuple(effects),
        delta=delta,
        residual=residual,
        freedom=freedom,
        far=far,
        commits=dict(Counter(run.commit for run in ended if run.status == "done")),
        series={title: {value: by_name[name] for value, name in sorted(cells.items())} for title, cells in points.items()},
        peers={m: _peer(sweep, study, m) for m in sorted({line.bases for line in lines if line.ica} & set(sweep.peers))},
    )


def _titles(study: Study, definition: Definition | None, reference: Config | None) -> dict[str, str]:
    """By cell; as it was planned, or from its label, where the study does not have it, or its reference is not there yet."""
    known = {}
    if definition and reference:
        with contextlib.suppress(UserError):  # where the launch files of its networks are not installed
            known = {_parts(label(config, reference)): title for title, config in definition.round(reference).items()}
    found = {cell.name: known.get(_parts(cell.label)) or cell.title or titles.of_label(cell.label) for cell in study.cells}
    if found[study.reference] == "reference" and reference:
        found[study.reference] = _reference_title(study, reference)
    return found


def _reference_title(study: Study, reference: Config) -> str:
    """By the knobs that the cells turn, or by those that every cell turns where they are more than two."""
    labels = [cell.label for cell in study.cells if cell.name != study.reference]
    cells = [[change.partition("=")[0] for change in label.split(", ")] for label in labels]
    values = reference.flat()
    turned = list(dict.fromkeys(knob for cell in cells for knob in cell if knob in values))
    if len(turned) > 2:
        turned = [knob for knob in turned if all(knob in cell for cell in cells)]
    return titles.title({knob: titles.text(values[knob]) for knob in turned})


def _parts(text: str) -> frozenset[str]:
    return frozenset(text.split(", "))


def _levels(config: Config | None, reference: Config | None, factors: Mapping[str, str]) -> tuple[bool, ...] | None:
    """Which terms count; None of a cell that changes something else, or a weight to something else than 0."""
    if not (factors and config and reference):
        return None
    changes = setting.turned(config, reference)
    if set(changes) - {*factors, "ica_weight"} or any(changes.values()):
        return None
    return tuple(bool(config.loss.ica_weight and getattr(config.loss, weight)) for weight in factors)


def _line(sweep: Sweep, study: Study, cell: Cell, title: str) -> Line:
    runs, state = list(sweep.of(study, cell.name)), sweep.state(study, cell.name)
    failed, done = (sum(run.status != "done" for run in runs), sum(run.status == "done" for run in runs))
    line = Line(cell, title, cell.name == study.reference, done, state, bool(failed))
    if state:
        return line
    distances = scores.distances(runs)
    judged = all(any(math.isfinite(row[name]) for row in run.cases.values() for name in NSD) for run in runs)
    times = [run.timing["frame_ms"] for run in runs if run.timing.get("frame_ms") is not None]
    return dataclasses.replace(
        line,
        dice={part: scores.summarize(values) for part, values in scores.overlaps(runs).items()},
        nsd={part: scores.summarize(values, pooled=True) for part, values in scores.overlaps(runs, "nsd").items()} if judged else {},
        places={name: scores.summarize(values, pooled=True) for name, values in scores.by_place(runs).items()},
        trainings=scores.of_trainings(runs),
        hd95=scores.summarize(distances.scores, pooled=True),
        distances=distances,
        ica=scores.ica(run.ica for run in runs),
        bases=runs[0].config.get("bases"),
        frame_ms=plain.median(times) if times else None,
    )


def _contrasts(
    sweep: Sweep,
    study: Study,
    lines: Sequence[Line],
    configs: Mapping[str, Config],
    letters: Sequence[str],
    trends: Mapping[str, Collection[str]],
    delta: float,
) -> tuple[list[Line], list[Finding], float | None, int, frozenset[str]]:
    """The lines with their contrasts to the reference, effects and trends; the residual SD, its freedom, the titles of cells far off."""
    finished = [line for line in lines if not line.state]
    place = next((i for i, line in enumerate(finished) if line.is_reference), None)
    if place is None:
        return list(lines), [], None, 0, frozenset()
    runs = [list(sweep.of(study, line.cell.name)) for line in finished]
    dice = [scores.by_fold(scores.overlaps(part)["mean"]) for part in runs]
    of_patients = {fold: np.array([cell[fold] for cell in dice]) for fold in dice[0]}  # (cells, patients) each
    table = np.array([values.mean(axis=1) for values in of_patients.values()]).T
    pairs = statistics.against(len(finished), place)
    named = _effects(finished, letters) | _trends(finished, configs, study.reference, trends)
    weights = np.concatenate([pairs, np.array(list(named.values())).reshape(-1, len(finished))])
    alike = statistics.near(table, place)
    found = statistics.contrasts(table, weights, delta, alike)
    rivals = [line for line in finished if not line.is_reference]
    family = [i for i, line in enumerate(rivals) if not (letters and line.levels)] + list(range(len(pairs), len(weights)))
    for i, contrast in zip(family, statistics.corrected([found[i] for i in family]), strict=True):
        found[i] = contrast

    def finding(title: str, i: int, is_effect: bool) -> Finding:
        used = [run.commit for part, weight in zip(runs, weights[i], strict=True) if weight for run in part]
        interval = statistics.patients_interval([weights[i] @ values for values in of_patients.values()])
        return Finding(title, found[i], interval, len(set(used)) > 1, is_effect)

    changes = {line.cell.name: dict(finding=finding(line.title, i, False)) for i, line in enumerate(rivals)}
    for line in rivals:
        changes[line.cell.name] |= _distance_difference(*(list(sweep.of(study, name)) for name in (line.cell.name, study.reference)))
    effects = [finding(title, len(pairs) + i, True) for i, title in enumerate(named)]
    _, square, freedom = statistics.additive(table[alike])
    compared = [dataclasses.replace(line, **changes.get(line.cell.name, {})) for line in lines]
    far = frozenset(line.title for line, one in zip(finished, alike, strict=True) if not one)
    return compared, effects, math.sqrt(square) if freedom else None, freedom, far


def _effects(lines: Sequence[Line], letters: Sequence[str]) -> dict[str, np.ndarray]:
    """{title: weights} of the factorial's effects."""
    if not letters:
        return {}
    cells = [i for i, line in enumerate(lines) if line.levels is not None]
    found = {}
    for factors, weights in statistics.factorial(np.array([lines[i].levels for i in cells])).items():
        found[" x ".join(letters[factor] for factor in factors)] = whole = np.zeros(len(lines))
        whole[cells] = weights
    return found


def _trends(
    lines: Sequence[Line], configs: Mapping[str, Config], reference: str, trends: Mapping[str, Collection[str]]
) -> dict[str, np.ndarray]:
    """{title: weights} of the lines over the logarithm of the first knob that cells turn."""
    found, place = {}, {line.cell.name: i for i, line in enumerate(lines)}
    for title, cells in _on_trends(lines, configs, reference, trends).items():
        found[title] = whole = np.zeros(len(lines))
        whole[[place[name] for name in cells.values()]] = statistics.trend(np.log2(list(cells)))
    return found


def _on_trends(
    lines: Sequence[Line], configs: Mapping[str, Config], reference: str, trends: Mapping[str, Collection[str]]
) -> dict[str, dict[int, str]]:
    """{title: {value of the first knob: cell}} of each trend that at least three cells are on, with the reference."""
    found = {}
    for words, knobs in trends.items() if any(line.is_reference for line in lines) else ():
        turned = [set(setting.turned(configs[line.cell.name], configs[reference])) for line in lines]
        names = [line.cell.name for line, knob in zip(lines, turned, strict=True) if line.is_reference or knob == set(knobs)]
        first = next(iter(knobs))
        cells = {configs[name].flat()[first]: name for name in names}
        if len(cells) < len(names):
            raise UserError(f"The trend {words!r} has two cells of one {first}: name the cells of a trend by knobs that say which they are.")
        if len(cells) < 3:
            continue
        found[f"{titles.SYMBOLS.get(first, first)} from {min(cells)} to {max(cells)}, {words}"] = cells
    return found


def _distance_difference(ours: Sequence[Run], theirs: Sequence[Run]) -> dict[str, Any]:
    """Of HD95, over the cases that are finite in both."""
    one, other = scores.distances(ours, theirs), scores.distances(theirs, ours)
    if not one.scores:
        return {}
    differences: Scores = {key: value - other.scores[key] for key, value in one.scores.items()}
    return {"hd95_difference": scores.summarize(differences, pooled=True).mean, "hd95_pairs": one.finite}


def _peer(sweep: Sweep, study: Study, m: int) -> dict[str, float]:
    folds = sweep.peers[m]
    return scores.ica(folds[fold] for fold in study.folds) if set(study.folds) <= set(folds) else {}
