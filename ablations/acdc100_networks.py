"""What 100 patients say of whole networks: the main table of docs/results/acdc100.md, its details and its pictures."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ablations import acdc100
from ica_unet_jax.evaluation import where_lost
from ica_unet_jax.labels import STRUCTURES
from ica_unet_jax.metrics import cases
from ica_unet_jax.reporting import figures
from ica_unet_jax.reporting.markup import NONE, number, plain_table
from ica_unet_jax.sweeps import segmentation
from ica_unet_jax.sweeps.analysis import Line
from ica_unet_jax.sweeps.paper_figures import TABLE_1, TABLE_2
from ica_unet_jax.sweeps.results import PLACES

PRINTED = {  # {title of a row: what the paper prints of it}
    "ICA-UNet": "ica_unet_n3_independent", "paper, n = 3": "ica_unet_n3_independent", "MSU-Net, span 2": "msu_net_span2",
    "GridNet": "grid_net", "Ensemble U-Net": "ensemble_unet", "Omega-Net": "omega_net",
}  # fmt: skip
WORST = 5


def networks() -> str:
    """The paper's Tables 1 and 2 on our patients, with its figures beside ours."""
    if not (found := acdc100.study("main")):
        return acdc100.NOT_FINISHED
    heads = ["Network", "Parameters (M)", "ms", *(f"Dice {name}" for name in STRUCTURES), *acdc100.COMPARED, f"Dice {' / '.join(STRUCTURES)} in the paper"]
    rows = []
    for line in found.lines:
        known = [NONE] * 4 if line.state else [number(line.frame_ms, 0), *(number(line.dice[name].mean, 3) for name in STRUCTURES)]
        rows.append([line.title, number(1e-6 * line.cell.parameters, 2), *known, *acdc100.compared(found, line), printed(line.title)])
    picture = "![Mean Dice against the time of a frame](../acdc100_latency.png)\n\n*Time to compute a frame; of ours in JAX on one core, roughly. "
    picture += "Lines: the 95 % interval of the difference to ICA-UNet. Hollow: what the paper prints, of its data and machine.*"
    return f"{plain_table(heads, rows, [False, *[True] * 8, False, False])}\n\n{segmentation.limits(found)} {acdc100.if_all_shared('main')} {steps()}\n\n{picture}"


def steps() -> str:
    """How long a rival's step of training took beside the reference's."""
    found = acdc100.study("main")

    def of(line: Line) -> float:
        return statistics.mean(run.timing["seconds_per_step"] for run in acdc100.sweep_of("main").of(found.study, line.cell.name))

    ratios = {line.title: of(line) / of(found.reference) for line in found.lines if not line.state and line.title in acdc100.RIVALS}
    if not ratios:
        return ""
    longest = max(ratios, key=ratios.get)
    return f"A step of training took the rivals {min(ratios.values()):.1f} to {ratios[longest]:.1f} times as long as {found.reference.title} ({longest} longest)."


def printed(title: str) -> str:
    """What the paper prints of a network, and in which of its tables."""
    if not (name := PRINTED.get(title)):
        return NONE
    of, table = (TABLE_1[name].dice, 1) if name in TABLE_1 else (TABLE_2[name].dice, 2)
    values = (of[part].mean if table == 1 else of[part] for part in STRUCTURES)
    return f"{' / '.join(number(value, 3) for value in values)} (Table {table})"


def whole() -> list[tuple[Line, list[cases.Row]]]:
    """The finished networks of the main table, each with its cases: every patient by the network that did not learn from him."""
    if not (found := acdc100.study("main")):
        return []
    runs = [(line, acdc100.sweep_of("main").of(found.study, line.cell.name)) for line in found.lines if not line.state]
    return [(line, [row for run in of_line for row in run.cases.values()]) for line, of_line in runs]


def latency(path: Path) -> None:
    """Draws Dice against time a frame, with the paper's points; nothing where nothing is finished."""
    networks, intervals = {}, {}
    for line, _ in whole():
        if line.frame_ms is None:
            continue
        networks[line.title] = line.frame_ms, line.dice["mean"].mean
        if line.finding and line.finding.contrast.low is not None:
            middle, contrast = acdc100.study("main").reference.dice["mean"].mean, line.finding.contrast
            intervals[line.title] = middle + contrast.low, middle + contrast.high
    if networks:
        paper = {f"{row.title} (paper)": (1000 / row.fps, row.dice["mean"].mean) for row in TABLE_1.values()}
        figures.accuracy_and_latency(path, networks | paper, round(1000 / 22), intervals, list(paper), "computing (ms a frame)")


def by_place(path: Path) -> None:
    """Draws Dice by place in the stack, of some networks; nothing where nothing is finished."""
    known = {line.title: line.places for line, _ in whole() if line.places and line.title in ("ICA-UNet", acdc100.RECOMMENDED, "no ICA", "U-Net 2D")}
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
    return plain_table(heads, table, [False, False, *[True] * 13]) if table else acdc100.NOT_FINISHED


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
    return plain_table(["Network", *(words for *_, words, _ in parts)], table, [False, *[True] * len(parts)]) if table else acdc100.NOT_FINISHED


def places() -> str:
    """Dice by place in the stack."""
    found = acdc100.study("main")
    rows = [[line.title, *(number(x and x.mean, 3) for x in line.places.values())] for line in found.lines if line.places] if found else []
    heads = ["Network", *(" ".join(name.split("_")[1:]) for name in PLACES)]
    if not rows:
        return acdc100.NOT_FINISHED
    picture = "![Dice by place in the stack, four networks](../acdc100_places.png)"
    return f"{plain_table(heads, rows, [False, *[True] * len(PLACES)])}\n\n{picture}"


def worst() -> str:
    """The patients whom the reference of the main table segments worst, and what is lost there."""
    if not (found := acdc100.study("main")):
        return acdc100.NOT_FINISHED
    dice = {line.title: patient_dice(rows) for line, rows in whole()}
    runs = list(acdc100.sweep_of("main").of(found.study, found.reference.cell.name))
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
    return f"{words}; {number(row[f'volume_ml_{name}'], 0)} mL of {number(row[f'volume_ml_true_{name}'], 0)} true"


def patient_dice(rows: Sequence[cases.Row]) -> dict[str, float]:
    """Mean Dice of each patient."""
    means = cases.patient_means(((row["patient"], row) for row in rows), [f"dice_{name}" for name in STRUCTURES])
    return {patient: float(values.mean()) for patient, values in means.items()}


PARTS: dict[str, Callable[[], str]] = {
    "networks": networks,
    "phases": phases,
    "clinical": clinical,
    "places": places,
    "worst": worst,
}
