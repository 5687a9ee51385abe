"""What 100 patients say: the sweeps in ablations/results/acdc100*, and the words in which their decisions are told.

The words follow the decisions of the statistics (docs/statistics.md). A study that has no finished reference there is "Not finished."
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from ablations import networks
from ablations.committed import RESULTS
from ablations.studies import KNOWN
from ica_unet_jax.reporting.markup import NONE, counted, number
from ica_unet_jax.sweeps import results, setting, statistics
from ica_unet_jax.sweeps.analysis import Analysis, Finding, Line, analyse
from ica_unet_jax.sweeps.statistics import Contrast

FOLDERS = RESULTS / "acdc100", RESULTS / "acdc100_design", RESULTS / "acdc100_full"  # the first that has a study answers
RIVALS = tuple(networks.RIVALS)  # the first two are plain U-Nets
TERMS = {"S": "sparsity", "I": "independence", "R": "reconstruction"}
[RECOMMENDED] = networks.RECOMMENDED
STREAMS = "independent streams, equal work", "shared streams"  # of the study "design", whose reference has dense ones
NOT_FINISHED = "Not finished."
COMPARED = ("Dice mean", "Change of mean [95 %]", "Change, each fold", "Decision")


@functools.cache
def sweep(folder: Path) -> results.Sweep | None:
    """What was run; None where nothing was."""
    return results.read(folder) if (folder / "sweep.json").is_file() else None


@functools.cache
def analyses(folder: Path) -> dict[str, Analysis]:
    """The studies that were run, by name."""
    found = sweep(folder)
    return {study.name: analyse(found, study, KNOWN.get(study.name)) for study in found.studies} if found else {}


def study(name: str) -> Analysis | None:
    """A study whose reference has all of its trainings."""
    found = next((of[name] for folder in FOLDERS if name in (of := analyses(folder))), None)
    return found if found and not found.reference.state else None


def sweep_of(name: str) -> results.Sweep:
    """The sweep that has a study; StopIteration where none has."""
    return next(sweep(folder) for folder in FOLDERS if name in analyses(folder))


def change(contrast: Contrast) -> str:
    """As in "+0.012 [0.004, 0.020]"; without an interval where there is one block."""
    interval = f" [{number(contrast.low, 3)}, {number(contrast.high, 3)}]" if contrast.low is not None else ""
    return number(contrast.difference, 3, signed=True) + interval


def made(*names: str) -> str:
    """How the networks of some studies were trained, on what, and how long it took."""
    studied = [name for name in names if study(name)]
    if not studied:
        return NOT_FINISHED
    runs = [run for name in studied for run in sweep_of(name).of(study(name).study) if run.status == "done"]
    [shared] = {(c["steps"], c["batch_size"], tuple(c["crop"]), c["spacing"], len(run.split["train"]), len(run.split["val"])) for run in runs for c in [run.config]}
    length, batch, crop, spacing, learned, judged = shared
    folds = sorted({run.fold for run in runs})
    hours = sum(run.timing.get(part) or 0 for run in runs for part in ("training_seconds", "evaluation_seconds")) / 3600
    threads, devices = (", ".join(sorted({str(run.timing.get(part)) for run in runs})) for part in ("threads", "device"))
    return (
        f"{counted(len(runs), 'training')} of {length:,} steps of {batch} frames, on a window of {'x'.join(map(str, crop))} voxels of {spacing:g} mm "
        f"round the heart: in training the labelled one, in judging where the network finds it. Each learns from {learned} patients and is judged on {judged} others, in {results.numbered('fold', folds)} "
        f"of five, one training of a network in each, with a seed of its own. Together {hours:.1f} hours of one core of an {sweep_of(studied[0]).hardware['machine']} "
        f"({devices}, {threads} thread each). {setting.commits(Counter(run.commit for run in runs))}"
    )


def briefly(name: str) -> str:
    """Of how much a study is, in brackets."""
    if not (found := study(name)):
        return ""
    return f"(All trained alike: {steps(sweep_of(name), found):,} steps, {counted(len(found.study.folds), 'fold')}, {found.patients} patients.)"


def steps(of: results.Sweep, found: Analysis) -> int:
    """How long each network of a study was trained."""
    [same] = {run.config["steps"] for run in of.of(found.study) if run.status == "done"}
    return same


def beside(name: str, titles: Sequence[str], intervals: bool = True, **leads: str) -> str:
    """What a study decides about some of its cells against its reference.

    leads: by "better", "worse" and "as_good" what stands first where it decides so of all of them.
    """
    if not (found := study(name)):
        return NOT_FINISHED
    lines = [line for line in found.lines if line.title in titles]
    if not lines or any(not line.state and not line.finding for line in lines):
        return NOT_FINISHED
    kinds = {kind(line.finding.decision) if line.finding else "" for line in lines}
    lead = f"**{leads[word]}** " if len(kinds) == 1 and (word := kinds.pop()) in leads else ""
    known = [(line.title, line.finding) for line in lines if line.finding]
    said = [grouped(known, intervals)] if known else []
    said += [f"{line.title}: {line.state}." for line in lines if line.state]
    return f"{lead}Beside {found.reference.title} (mean Dice {number(found.reference.dice['mean'].mean, 3)}): {' '.join(said)}"


def kind(decision: str) -> str:
    """A decision as "better", "worse", "as_good" or none of these; what is smaller than delta is as good."""
    if "within" in decision or decision.startswith("no effect"):
        return "as_good"
    return decision if decision in ("better", "worse") else ""


def ranked(name: str, titles: Sequence[str]) -> str:
    """Whether the reference of a study is ahead of some of its cells, in bold words; "" where one of them has no figures."""
    lines = [line for line in found.lines if line.title in titles] if (found := study(name)) else []
    if not lines or not all(line.finding for line in lines):
        return ""
    kinds = Counter(kind(line.finding.decision) for line in lines)
    ahead, behind, count = kinds["worse"], kinds["better"], len(lines)
    if ahead and behind:
        return f"**It is ahead of {ahead} of {count}, and behind {behind}.**"
    if behind:
        return f"**No: {behind} of {count} are ahead.**"
    if ahead:
        return f"**Yes, than {ahead} of {count}.**"
    return "**As good.**" if kinds["as_good"] == count else "**Not shown.**"


def grouped(known: Sequence[tuple[str, Finding]], intervals: bool = True) -> str:
    """Names and changes behind the decision that they share."""
    groups: dict[str, list[str]] = {}
    for title, one in known:
        words = change(one.contrast) if intervals else number(one.contrast.difference, 3, signed=True)
        groups.setdefault(one.decision, []).append(f"{title} ({words})")
    return "; ".join(f"**{decision}**: {', '.join(names)}" for decision, names in groups.items()) + "."


def smallest(found: Analysis, titles: Collection[str]) -> str:
    """The smallest effect that a study could have decided of some cells or effects that share an error; "" where none is decided upon."""
    one = next((one for one in found.decided if one.title in titles), None)
    return f"Smallest effect that could have been decided: {number(statistics.smallest(one.contrast, len(found.decided)), 3)}." if one else ""


def decided_otherwise(name: str) -> list[str]:
    """Cells, each with its decision were those far from the reference not left out of the error of the others, where that is another one."""
    if not (found := study(name)) or not found.far:
        return []
    lines = [line for line in found.lines if not line.state]
    all_share = statistics.corrected(statistics.contrasts(table(lines), statistics.against(len(lines), lines.index(found.reference))))
    pairs = zip((line for line in lines if not line.is_reference), all_share, strict=True)
    return [f"{line.title} ({contrast.decision})" for line, contrast in pairs if contrast.decision != line.finding.decision]


def if_all_shared(name: str) -> str:
    """The same in a sentence; "" where no cell is left out."""
    if not (found := study(name)) or not found.far:
        return ""
    others = decided_otherwise(name)
    return f"With {', '.join(sorted(found.far))} in the error of all, the decisions would be {'others for ' + ', '.join(others) if others else 'the same'}."


def curves(name: str, line: Line) -> list[dict[int, float]]:
    """Mean Dice by step of each training of a cell."""
    return [sweep_of(name).curves.get((line.cell.name, *training), {}) for training in study(name).study.trainings]


def table(lines: Sequence[Line]) -> np.ndarray:
    """Mean Dice, (cells, folds), of one training in each fold."""
    return np.array([list(line.trainings.values()) for line in lines])


def between(name: str, first: str, second: str) -> str:
    """In a sentence two cells of a study that it does not compare, with the interval of this contrast alone."""
    if not (found := study(name)):
        return ""
    lines = [line for line in found.lines if not line.state]
    titles = [line.title for line in lines]
    if not {first, second} <= set(titles):
        return ""
    weights = np.zeros((1, len(lines)))
    weights[0, titles.index(first)], weights[0, titles.index(second)] = 1, -1
    [contrast] = statistics.contrasts(table(lines), weights, alike=np.array([title not in found.far for title in titles]))
    return f"A comparison that was not planned: {first} minus {second} {change(contrast)}."


def compared(found: Analysis, line: Line) -> list[str]:
    """Mean Dice of a cell and its change to the reference, under `COMPARED`."""
    if line.state:
        return [*[NONE] * 3, line.state]
    mean = line.dice["mean"]
    each = ", ".join(number(value - found.reference.trainings[training], 3, signed=True) for training, value in line.trainings.items())
    words = [change(line.finding.contrast), each, line.finding.decision] if line.finding else [NONE, NONE, "reference"]
    return [f"{number(mean.mean, 3)} ± {number(mean.sd, 3)}", *words]
