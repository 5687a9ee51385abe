"""The table of a study's cells, and that of the effects that it decides beside them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ica_unet_jax.labels import STRUCTURES
from ica_unet_jax.reporting.markup import NONE, Column, Item, Row, Table, counted, number, p_value
from ica_unet_jax.sweeps import setting, statistics
from ica_unet_jax.sweeps.analysis import Analysis, Finding, Line
from ica_unet_jax.sweeps.results import ICA, ICA_EXTRA, PLACES
from ica_unet_jax.sweeps.scores import Summary

PARTS = (*STRUCTURES, "mean")
NSD = "NSD 2 mm"
TICK, MIXED = "✓", "†"
_SIZE = (Column("Parameters (M)"), Column("GFLOP"))  # in a paper only where they differ
_NOTE = (
    "Dice: mean over folds (of the mean over their patients) ± SD over patients; frames, then the seeds of a fold, are averaged within a "
    "patient, the column mean is over RV, MYO and LV, a missed structure counts 0. Δ: difference to the reference with its 95 % interval "
    "by t, of this contrast alone, from the residuals of the additive model cell + fold: what other trainings on other folds may give. "
    "The interval over patients is something else: these trained networks on other patients. p and decision: Holm over the {family}; "
    "within {delta:g}: two one-sided tests, Holm over the same. HD95: mean over patients of the distances that are finite with "
    "every seed and of known voxel size; a case is one structure of one frame; missed: only one of prediction and truth has it; "
    "Δ HD95 is over the cases finite in both. GFLOP, ms: of one streamed frame, ms the median over runs as each ended, FPS 1000 / ms."
)
_PLACES = (
    "Thirds of the slices that show a heart, those of a frame together; mean over all patients whose frames have the structure there, in prediction or truth."
)
_FACTORIAL = (
    "A main effect is the mean Dice of the cells with a term minus that of the cells without it, so a term that helps has a positive one; "
    "an interaction (x) is half the difference of one effect with and without the other term."
)
_TREND = "A trend is the change from the smallest to the largest on the line that is fitted over log2."


def main_table(analysis: Analysis) -> Table:
    """A row for each cell."""
    rows, with_nsd = [], _all_have_nsd(analysis)
    for line in analysis.lines:
        cell = line.cell
        title = f"{line.title} (reference)" if line.is_reference and line.title != "reference" else line.title
        items = [Item(title)]
        items += [_tick(line.levels[i] if line.levels else None) for i in range(len(analysis.factors))]
        items += [_significant(None if cell.parameters is None else cell.parameters / 1e6), _significant(cell.gflop)]
        if line.state:
            rows.append(Row(items, line.state))
            continue
        items += [item(line.frame_ms, 1), item(1000 / line.frame_ms if line.frame_ms else None, 1)]
        items += [_mean_sd(line.dice[part], short=part != "mean") for part in PARTS]
        if with_nsd:
            items.append(item(line.nsd["mean"] and line.nsd["mean"].mean, 3))
        items += [Item(NONE, 0.0) if line.is_reference else _change(line.finding), *_verdict(line, analysis)]
        found = line.distances
        items += [item(line.hd95 and line.hd95.mean, 2), Item(f"{found.finite}/{found.total}", found.finite)]
        items += [Item(str(found.missed), found.missed), _distance(line)]
        rows.append(Row(items, emphasis=_emphasis(line)))
    sizes = {(line.cell.parameters, line.cell.gflop) for line in analysis.lines}
    columns = (
        Column("Cell", number=False),
        *(Column(letter, number=False) for letter in analysis.factors),
        *(column._replace(in_paper=len(sizes) > 1) for column in _SIZE),
        Column("ms"),
        Column("FPS"),
        *(Column(f"Dice {part}") for part in PARTS),
        *([Column(NSD)] if with_nsd else []),
        Column("Δ Dice [95 %]"),
        Column("p (Holm)"),
        Column(f"p within {analysis.delta:g} (Holm)", in_paper=False),
        Column("Decision", number=False, verdict=True),
        Column("over patients [95 %]", in_paper=False),
        Column("HD95 (mm)"),
        Column("HD95 cases", in_paper=False),
        Column("Missed", in_paper=False),
        Column("Δ HD95 (cases)", in_paper=False),
    )
    return Table("Segmentation", columns, rows, _note(analysis), _caption(analysis))


def effects_table(analysis: Analysis) -> Table:
    """The effects of a factorial, or the trends; their p are of the same correction as those of the cells."""
    rows = []
    for found in analysis.effects:
        contrast = found.contrast
        items = [Item(found.title), _change(found), _p(contrast.p_holm), _p(contrast.p_within_holm)]
        items += [Item(found.decision), Item(_ends(*found.patients, 3) if found.patients else NONE)]
        rows.append(Row(items, emphasis=contrast.verdict or "undecided"))
    heads = ["Effect", "Change of Dice [95 %]", "p (Holm)", f"p within {analysis.delta:g} (Holm)", "Decision", "over patients [95 %]"]
    columns = [Column(head, number=head not in (heads[0], heads[4]), verdict=head == heads[4]) for head in heads]
    note = " ".join(filter(None, (_FACTORIAL if analysis.factors else _TREND, limits(analysis), _mixed(analysis.effects))))
    return Table("Effects", columns, rows, note, _caption(analysis))


def places_table(analysis: Analysis) -> Table:
    """Dice by place in the stack, of the cells that were judged so."""
    rows = [Row([Item(line.title), *(item(found and found.mean, 3) for found in line.places.values())]) for line in analysis.lines if line.places]
    heads = [" ".join(name.split("_")[1:]) for name in PLACES]
    return Table("Dice by place in the stack", [Column("Cell", number=False), *map(Column, heads)], rows, _PLACES, "Dice by place in the stack.")


def limits(analysis: Analysis) -> str:
    """The smallest effects that the study could have decided, in words; empty where nothing is compared."""
    decided = analysis.decided
    if not decided:
        return ""
    if decided[0].contrast.error is None:
        seeds = f", of which {counted(len(analysis.study.seeds), 'seed')} are averaged" if len(analysis.study.seeds) > 1 else ""
        return f"One block (fold {analysis.study.folds[0]}){seeds}: differences only, no p, no decision."
    groups: dict[str, float] = {}
    for found in decided:
        words = "a cell against the reference"
        if found.title in analysis.far:
            words = f"a cell more than {statistics.FAR:g} from it"
        if found.is_effect:
            words = "a main effect or an interaction" if analysis.factors else f"the trend of {found.title}"
        groups.setdefault(words, statistics.smallest(found.contrast, len(decided)))
    smallest = "; ".join(f"{number(value, 3)} for {words}" for words, value in groups.items())
    without = f", without {', '.join(sorted(analysis.far))}" if analysis.far else ""
    return (
        f"Smallest effect that could have been decided, at the first of Holm's {counted(len(decided), 'step')}: {smallest} "
        f"(residual SD {number(analysis.residual, 4)}, {counted(analysis.freedom, 'degree')} of freedom{without})."
    )


def csv_lines(analysis: Analysis) -> list[dict[str, Any]]:
    """All figures of the cells, then those of the effects."""
    effects = [{"title": found.title, "kind": "effect"} | _csv_finding(found) for found in analysis.effects]
    return [*(_csv_line(line, analysis) for line in analysis.lines), *effects]


def item(value: float | None, digits: int) -> Item:
    return Item(number(value, digits), value)


def _csv_line(line: Line, analysis: Analysis) -> dict[str, Any]:
    values: dict[str, Any] = {"title": line.title, "kind": "reference" if line.is_reference else "cell", "cell": line.cell.name}
    values |= {letter: int(line.levels[i]) if line.levels else None for i, letter in enumerate(analysis.factors)}
    values |= {"state": line.state, "trainings": line.done, "parameters": line.cell.parameters, "gflop": line.cell.gflop}
    values |= {"frame_ms": line.frame_ms, "patients": line.dice["mean"].n if line.dice else None}
    for name, summaries in (("dice", line.dice), ("nsd", line.nsd)):
        for part in PARTS:
            summary = summaries.get(part)
            values |= {f"{name}_{part}": summary and summary.mean, f"{name}_{part}_sd": summary and summary.sd}
    trainings = (f"seed{seed}_fold{fold}:{value:.6g}" for (seed, fold), value in line.trainings.items())
    values |= {"dice_by_training": ";".join(trainings)} | _csv_finding(line.finding)
    values |= {"hd95_mm": line.hd95 and line.hd95.mean, "hd95_mm_sd": line.hd95 and line.hd95.sd}
    values |= {f"hd95_{name}": getattr(line.distances, name, None) for name in ("finite", "missed", "total")}
    values |= {"hd95_difference": line.hd95_difference, "hd95_difference_cases": line.hd95_pairs or None, "bases": line.bases}
    values |= {name: line.places[name] and line.places[name].mean for name in PLACES if line.places}
    return values | {name: line.ica.get(name) for name in (*ICA, *ICA_EXTRA)}


def _csv_finding(found: Finding | None) -> dict[str, Any]:
    names = ("difference", "error", "freedom", "low", "high", "p", "p_holm", "p_within", "p_within_holm")
    low, high = (found and found.patients) or (None, None)
    values = {name: getattr(found and found.contrast, name, None) for name in names} | {"decision": found and found.decision}
    return values | {"patients_low": low, "patients_high": high, "mixed_commits": int(found.mixed) if found else None}


def _significant(value: float | None) -> Item:
    """Three significant digits."""
    return item(value, max(0, 2 - math.floor(math.log10(value))) if value else 0)


def _tick(there: bool | None) -> Item:
    return Item(NONE if there is None else TICK if there else " ")


def _mean_sd(summary: Summary, short: bool) -> Item:
    mean = number(summary.mean, 3)
    return Item(f"{mean} ± {number(summary.sd, 3)}", summary.mean, mean if short else None)


def _change(found: Finding | None) -> Item:
    if found is None:
        return Item(NONE)
    contrast = found.contrast
    text = number(contrast.difference, 3, signed=True)
    if contrast.low is not None:
        text += f" {_ends(contrast.low, contrast.high, 3)}"
    return Item(text + (f" {MIXED}" if found.mixed else ""), contrast.difference)


def _ends(low: float, high: float, digits: int) -> str:
    return f"[{number(low, digits)}, {number(high, digits)}]"


def _distance(line: Line) -> Item:
    if line.hd95_difference is None:
        return Item(NONE)
    return Item(f"{number(line.hd95_difference, 2, signed=True)} ({line.hd95_pairs})", line.hd95_difference)


def _p(p: float | None) -> Item:
    return Item(p_value(p), p)


def _verdict(line: Line, analysis: Analysis) -> list[Item]:
    """p, p within, decision, interval over patients."""
    if line.is_reference:
        return [Item(NONE), Item(NONE), Item("reference"), Item(NONE)]
    if line.finding is None:
        return [Item(NONE), Item(NONE), Item("no finished reference yet", short=""), Item(NONE)]
    contrast, patients = line.finding.contrast, line.finding.patients
    words = line.finding.decision or ("see the effects" if analysis.factors else NONE)
    return [_p(contrast.p_holm), _p(contrast.p_within_holm), Item(words), Item(_ends(*patients, 3) if patients else NONE)]


def _emphasis(line: Line) -> str:
    return "reference" if line.is_reference else (line.finding and line.finding.contrast.verdict) or "undecided"


def _all_have_nsd(analysis: Analysis) -> bool:
    finished = [line for line in analysis.lines if not line.state]
    return bool(finished) and all(line.nsd for line in finished)


def _note(analysis: Analysis) -> str:
    note = _NOTE.format(family=counted(len(analysis.decided), "contrast"), delta=analysis.delta)
    return " ".join(filter(None, (note, limits(analysis), setting.commits(analysis.commits), _mixed(analysis.findings))))


def _mixed(findings: Iterable[Finding]) -> str:
    return f"{MIXED} over trainings of different commits." if any(found.mixed for found in findings) else ""


def _caption(analysis: Analysis) -> str:
    return (
        f"Dice: mean (± SD) over {counted(analysis.patients, analysis.noun)}; Δ: difference to the reference with its 95 % interval "
        "by t over folds; p: corrected by Holm; HD95 over finite distances."
    )
