"""What 100 patients say: the parts of docs/results/acdc100.md, of the sweep in ablations/results/acdc100.

The sentences follow the decisions of the statistics (docs/statistics.md). A study that has no finished reference there, or that was not
run on these patients, is told as such.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ablations.committed import RESULTS, named
from ablations.committed import change as committed_change
from ablations.studies import KNOWN
from ica_unet_jax.evaluation import where_lost
from ica_unet_jax.labels import STRUCTURES
from ica_unet_jax.metrics import cases
from ica_unet_jax.reporting import figures
from ica_unet_jax.reporting.markup import NONE, counted, number, plain_table
from ica_unet_jax.sweeps import results, segmentation, setting, statistics
from ica_unet_jax.sweeps.analysis import Analysis, Finding, Line, analyse
from ica_unet_jax.sweeps.paper_figures import TABLE_1, TABLE_2
from ica_unet_jax.sweeps.results import PLACES
from ica_unet_jax.sweeps.statistics import Contrast

FOLDER = RESULTS / "acdc100"
RIVALS = ("U-Net 2D", "U-Net 3D", "MSU-Net, span 2", "GridNet", "Ensemble U-Net", "Omega-Net")
TERMS = {"S": "sparsity", "I": "independence", "R": "reconstruction"}
PRINTED = {  # {title of a row: what the paper prints of it}
    "ICA-UNet": "ica_unet_n3_independent", "paper, n = 3": "ica_unet_n3_independent", "MSU-Net, span 2": "msu_net_span2",
    "GridNet": "grid_net", "Ensemble U-Net": "ensemble_unet", "Omega-Net": "omega_net",
}  # fmt: skip
STUDIED = ("loss_terms", "main")
RECOMMENDED = "ICA-UNet, recommended, images as for all"
NOT_FINISHED = "Not finished."
WORST = 5


class Source(NamedTuple):
    """Where an older study stands that answers on fewer patients."""

    csv: str  # below ablations/results
    title: str
    page: str


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
    found = analyses(FOLDER).get(name)
    return found if found and not found.reference.state else None


def change(contrast: Contrast) -> str:
    """As in "+0.012 [0.004, 0.020]"; without an interval where there is one block."""
    interval = f" [{number(contrast.low, 3)}, {number(contrast.high, 3)}]" if contrast.low is not None else ""
    return number(contrast.difference, 3, signed=True) + interval


def made() -> str:
    """How all networks were trained, on what, and how long it took."""
    if not analyses(FOLDER):
        return NOT_FINISHED
    studies = [found.study for name in STUDIED if (found := analyses(FOLDER).get(name))]
    runs = [run for of in studies for run in sweep(FOLDER).of(of) if run.status == "done"]
    [shared] = {(c["steps"], c["batch_size"], tuple(c["crop"]), c["spacing"], len(run.split["train"]), len(run.split["val"])) for run in runs for c in [run.config]}
    steps, batch, crop, spacing, learned, judged = shared
    folds = sorted({run.fold for run in runs})
    hours = sum(run.timing.get(part) or 0 for run in runs for part in ("training_seconds", "evaluation_seconds")) / 3600
    threads, devices = (", ".join(sorted({str(run.timing.get(part)) for run in runs})) for part in ("threads", "device"))
    return (
        f"{counted(len(runs), 'training')} of {steps:,} steps of {batch} frames, on a window of {'x'.join(map(str, crop))} voxels of {spacing:g} mm "
        f"round the heart: in training the labelled one, in judging where the network finds it. Each learns from {learned} patients and is judged on {judged} others, in {results.numbered('fold', folds)} "
        f"of five, with {results.numbered('seed', sorted({run.seed for run in runs}))}. Together {hours:.1f} hours of one core of an {sweep(FOLDER).hardware['machine']} "
        f"({devices}, {threads} thread each). {setting.commits(Counter(run.commit for run in runs))}"
    )


def answers() -> str:
    """The questions of the page, each with a sentence."""
    rows = [(question, tell()) for question, tell in QUESTIONS.items()]
    return plain_table(("Question", "Answer"), rows).replace("\\*", "*")


def terms() -> str:
    """What each of the ICA terms does."""
    if not (found := study("loss_terms")) or not found.factors:
        return NOT_FINISHED
    effects = {effect.title: effect for effect in found.effects}
    said = _grouped([(f"{words}, {letter}", effects[letter]) for letter, words in TERMS.items()])
    return f"A term changes mean Dice by: {said} {segmentation.limits(found)}"


def beside(name: str, titles: Sequence[str], **leads: str) -> str:
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
    said = [_grouped([(line.title, line.finding) for line in lines if line.finding])] if any(line.finding for line in lines) else []
    said += [f"{line.title}: {line.state}." for line in lines if line.state]
    return f"{lead}Beside {found.reference.title} ({number(found.reference.dice['mean'].mean, 3)}): {' '.join(said)}"


def kind(decision: str) -> str:
    """A decision as "better", "worse", "as_good" or none of these; what is smaller than delta is as good."""
    if "within" in decision or decision.startswith("no effect"):
        return "as_good"
    return decision if decision in ("better", "worse") else ""


def _grouped(known: Sequence[tuple[str, Finding]]) -> str:
    """Names and changes behind the decision that they share."""
    groups: dict[str, list[str]] = {}
    for title, one in known:
        groups.setdefault(one.decision, []).append(f"{title} ({change(one.contrast)})")
    return "; ".join(f"**{decision}**: {', '.join(names)}" for decision, names in groups.items()) + "."


def fewer(source: Source) -> str:
    """What an older study says, on the 21 patients of ACDC-mini."""
    line = named(source.csv, source.title)
    return f"{source.title}: {committed_change(line)}, {line['decision']}"


def on_mini(*sources: Source, why: str = "Not run on 100 patients.") -> str:
    """The same in a sentence, with why there is no more."""
    pages = ", ".join(f"[{page.removesuffix('.md')}]({page})" for page in dict.fromkeys(source.page for source in sources))
    return f"{why} On ACDC-mini: {'; '.join(map(fewer, sources))} ({pages})."


QUESTIONS: dict[str, Callable[[], str]] = {
    "What does each ICA term of the loss do?": terms,
    "What would a plain U-Net have given?": lambda: beside("main", RIVALS[:2], better="More.", worse="Less.", as_good="As much."),
    "And the rivals of the paper?": lambda: beside("main", RIVALS[2:], better="More.", worse="Less.", as_good="As much."),
    "Is ICA needed at all, once the decoder sees the frame?": lambda: beside("main", ["no ICA"], better="No.", worse="Yes.", as_good="No."),
    "What does the recommended network gain?": lambda: beside("main", [RECOMMENDED], better="Dice.", worse="Nothing.", as_good="Nothing."),
    "And the paper, read literally?": lambda: beside("main", ["paper, n = 3"]),
    "Are independent streams worth their time?": lambda: on_mini(
        Source("acdc_mini/streams", "shared streams", "ablations.md"), Source("acdc_mini/streams", "dense, equal work", "ablations.md")
    ),
    "How many bases are enough?": lambda: on_mini(
        Source("acdc_mini/basis_dimension", "m = 8", "ablations.md"), Source("acdc_mini/basis_dimension", "m = 64", "ablations.md")
    ),
    "Does the neighbouring frame help?": lambda: on_mini(
        Source("causal_acdc_mini/causal", "t-1 alone", "causal.md"),
        why="Not asked of ACDC-100, whose cines are real round the heart alone and mostly end after ES.",
    ),
}


def by_step(name: str) -> str:
    """The effects of a factorial, or the differences to the reference, at each validation; intervals of each alone."""
    if not (found := study(name)):
        return NOT_FINISHED
    lines = [line for line in found.lines if not line.state and bool(found.factors) <= bool(line.levels)]
    curves = [[sweep(FOLDER).curves.get((line.cell.name, *training), {}) for training in found.study.trainings] for line in lines]
    steps = sorted(set.intersection(*(set(curve) for of_cell in curves for curve in of_cell)))
    if len(lines) < 2 or not steps:
        return NOT_FINISHED
    if found.factors:
        effects = statistics.factorial(np.array([line.levels for line in lines]))
        weights = {f"{found.factors[place]}, {TERMS[found.factors[place]]}": effects[place,] for place in range(len(found.factors))}
    else:
        rivals = [line for line in lines if not line.is_reference]
        weights = dict(zip((line.title for line in rivals), statistics.against(len(lines), lines.index(found.reference)), strict=True))
    columns = []
    for step in steps:
        table = np.array([[curve[step] for curve in of_cell] for of_cell in curves])
        columns.append([change(one) for one in statistics.contrasts(table, np.array(list(weights.values())))])
    heads = ["Effect" if found.factors else "Network", *(f"step {step}" for step in steps)]
    return plain_table(heads, [[title, *row] for title, row in zip(weights, zip(*columns, strict=True), strict=True)], [False, *[True] * len(steps)])


def networks() -> str:
    """The paper's Tables 1 and 2 on our patients, with its figures beside ours."""
    if not (found := study("main")):
        return NOT_FINISHED
    heads = ["Network", "Parameters (M)", "ms", *(f"Dice {name}" for name in (*STRUCTURES, "mean")), "Change of mean [95 %]", "Change, each fold", "Decision"]
    heads += [f"Dice {' / '.join(STRUCTURES)} in the paper"]
    rows = []
    for line in found.lines:
        row = [line.title, number(1e-6 * line.cell.parameters, 2)]
        if line.state:
            rows.append([*row, *[NONE] * 7, line.state, printed(line.title)])
            continue
        row += [number(line.frame_ms, 0), *(number(line.dice[name].mean, 3) for name in STRUCTURES)]
        row += [f"{number(line.dice['mean'].mean, 3)} ± {number(line.dice['mean'].sd, 3)}"]
        each = [number(value - found.reference.trainings[training], 3, signed=True) for training, value in line.trainings.items()]
        row += [change(line.finding.contrast), ", ".join(each), line.finding.decision] if line.finding else [NONE, NONE, "reference"]
        rows.append([*row, printed(line.title)])
    picture = "![Mean Dice against the time of a frame](../acdc100_latency.png)\n\n*The time is of computing, a frame, of ours in JAX on one core beside another training. "
    picture += "Lines: the 95 % interval of the difference to ICA-UNet. Hollow: what the paper prints, of its data and machine.*"
    return f"{plain_table(heads, rows, [False, *[True] * 8, False, False])}\n\n{segmentation.limits(found)}\n\n{picture}"


def printed(title: str) -> str:
    """What the paper prints of a network, and in which of its tables."""
    if not (name := PRINTED.get(title)):
        return NONE
    of, table = (TABLE_1[name].dice, 1) if name in TABLE_1 else (TABLE_2[name].dice, 2)
    values = (of[part].mean if table == 1 else of[part] for part in STRUCTURES)
    return f"{' / '.join(number(value, 3) for value in values)} (Table {table})"


def whole() -> list[tuple[Line, list[cases.Row]]]:
    """The finished networks of the main table, each with its cases: every patient by the network that did not learn from him."""
    if not (found := study("main")):
        return []
    runs = [(line, sweep(FOLDER).of(found.study, line.cell.name)) for line in found.lines if not line.state]
    return [(line, [row for run in of_line for row in run.cases.values()]) for line, of_line in runs]


def latency(path: Path) -> None:
    """Draws Dice against time a frame, with the paper's points; nothing where nothing is finished."""
    networks, intervals = {}, {}
    for line, _ in whole():
        if line.frame_ms is None:
            continue
        networks[line.title] = line.frame_ms, line.dice["mean"].mean
        if line.finding and line.finding.contrast.low is not None:
            middle, contrast = study("main").reference.dice["mean"].mean, line.finding.contrast
            intervals[line.title] = middle + contrast.low, middle + contrast.high
    if networks:
        paper = {f"{row.title} (paper)": (1000 / row.fps, row.dice["mean"].mean) for row in TABLE_1.values()}
        figures.accuracy_and_latency(path, networks | paper, round(1000 / 22), intervals, list(paper), "computing (ms a frame)")


def by_place(path: Path) -> None:
    """Draws Dice by place in the stack, of some networks; nothing where nothing is finished."""
    known = {line.title: line.places for line, _ in whole() if line.places and line.title in ("ICA-UNet", RECOMMENDED, "no ICA", "U-Net 2D")}
    if known:
        figures.by_place(
            path,
            {
                name: {title: {place: found.mean if (found := of[f"dice_{place}_{name}"]) else math.nan for place in where_lost.PLACES} for title, of in known.items()}
                for name in STRUCTURES
            },
        )


def phases() -> str:
    """Dice, distances and surface Dice at ED and ES."""
    scores = {"dice": ("Dice", 3), "hd95_mm": ("HD95", 1), "hd_mm": ("HD", 1), "nsd": ("NSD", 3)}
    heads = ["Network", "Phase", *(f"{words} {name}" for words, _ in scores.values() for name in STRUCTURES), "Missed"]
    table = []
    for line, rows in whole():
        for phase in ("ED", "ES"):
            found = cases.summarize([row for row in rows if row["phase"] == phase])
            values = [number(found[score][name], digits) for score, (_, digits) in scores.items() for name in STRUCTURES]
            table.append([line.title, phase, *values, str(sum(found["n_missed"].values()))])
    return plain_table(heads, table, [False, False, *[True] * 13]) if table else NOT_FINISHED


def clinical() -> str:
    """Volumes, ejection fractions and mass against those of the true masks."""
    parts = [("edv_ml", "LV", "LV EDV (mL)", 1), ("esv_ml", "LV", "LV ESV (mL)", 1), ("ef", "LV", "LV EF (%)", 1)]
    parts += [("edv_ml", "RV", "RV EDV (mL)", 1), ("esv_ml", "RV", "RV ESV (mL)", 1), ("ef", "RV", "RV EF (%)", 1), ("mass", "", "mass (g)", 1)]
    table = []
    for line, rows in whole():
        found = cases.summarize(rows)
        values = []
        for name, of, _, digits in parts:
            one, scale = (found[name][of] if of else found[name]), 100 if name == "ef" else 1
            bias, low, high = (None if value is None else scale * value for value in (one["bias"], *one["limits"]))
            values.append(f"{number(bias, digits, signed=True)} [{number(low, digits)}, {number(high, digits)}]")
        table.append([line.title, *values])
    return plain_table(["Network", *(words for *_, words, _ in parts)], table, [False, *[True] * len(parts)]) if table else NOT_FINISHED


def places() -> str:
    """Dice by place in the stack."""
    found = study("main")
    rows = [[line.title, *(number(x and x.mean, 3) for x in line.places.values())] for line in found.lines if line.places] if found else []
    heads = ["Network", *(" ".join(name.split("_")[1:]) for name in PLACES)]
    if not rows:
        return NOT_FINISHED
    picture = "![Dice by place in the stack, four networks](../acdc100_places.png)"
    return f"{plain_table(heads, rows, [False, *[True] * len(PLACES)])}\n\n{picture}"


def worst() -> str:
    """The patients whom the reference of the main table segments worst, and what is lost there."""
    if not (found := study("main")):
        return NOT_FINISHED
    dice = {line.title: patient_dice(rows) for line, rows in whole()}
    runs = list(sweep(FOLDER).of(found.study, found.reference.cell.name))
    own, table = dice[found.reference.title], []
    for patient in sorted(own, key=own.get)[:WORST]:
        frames = [(row, run.places.get(frame, {})) for run in runs for frame, row in run.cases.items() if frame[0] == patient]
        best = max(dice, key=lambda title, patient=patient: dice[title][patient])
        table.append([patient, frames[0][0]["group"], number(own[patient], 3), lost_most(frames), f"{best}: {number(dice[best][patient], 3)}"])
    return plain_table(("Patient", "Group", "Mean Dice", "Lost most", "Best network there"), table, [False, False, True, False, False])


def lost_most(frames: Sequence[tuple[cases.Row, Mapping[str, float]]]) -> str:
    """The structure and frame of a patient with the least Dice, its volumes, and the place in the stack with the lowest."""
    name, row, of_places = min(((name, row, of_places) for row, of_places in frames for name in STRUCTURES), key=lambda part: part[1][f"dice_{part[0]}"])
    words = f"{name} at {row['phase']} ({number(row[f'dice_{name}'], 3)})"
    known = {place.split("_")[1]: value for place, value in of_places.items() if place.endswith(f"_{name}") and math.isfinite(value)}
    if known:
        place = min(known, key=known.get)
        words += f", lowest at the {place} ({number(known[place], 3)})"
    return f"{words}; {number(row[f'volume_ml_{name}'], 0)} mL for {number(row[f'volume_ml_true_{name}'], 0)} mL"


def patient_dice(rows: Sequence[cases.Row]) -> dict[str, float]:
    """Mean Dice of each patient."""
    means = cases.patient_means(((row["patient"], row) for row in rows), [f"dice_{name}" for name in STRUCTURES])
    return {patient: float(values.mean()) for patient, values in means.items()}


def terms_of_folds() -> str:
    """The smallest effect that could have been decided of the terms of the loss, and their effects in each fold."""
    if not (found := study("loss_terms")) or not found.factors:
        return NOT_FINISHED
    lines = [line for line in found.lines if line.levels]
    table = np.array([list(line.trainings.values()) for line in lines])  # (cells, folds)
    effects = statistics.factorial(np.array([line.levels for line in lines]))
    each = [f"{letter} {', '.join(number(value, 3, signed=True) for value in effects[place,] @ table)}" for place, letter in enumerate(found.factors)]
    return f"{segmentation.limits(found)} In each fold: {'; '.join(each)}."


PARTS: dict[str, Callable[[], str]] = {
    "made": made,
    "answers": answers,
    "networks": networks,
    "phases": phases,
    "clinical": clinical,
    "places": places,
    "worst": worst,
    "networks_by_step": functools.partial(by_step, "main"),
    "terms_limits": terms_of_folds,
    "terms_by_step": functools.partial(by_step, "loss_terms"),
}
