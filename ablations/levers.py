"""The generated parts of docs/results/levers.md: every training that was tried for a more accurate network, of its cells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from ica_unet_jax.labels import STRUCTURES
from ica_unet_jax.metrics import cases
from ica_unet_jax.reporting.markup import NONE, number, plain_table

REFERENCE = "`launch/acdc_causal.flags`"
LAUNCHED = {  # rows that became one
    "D: B with some images damaged, 4,000 steps": "`launch/recommended.flags`",
    "E: D with all images turned and mirrored, 10,000 steps": "`launch/any_orientation.flags`",
}


class Tried(NamedTuple):
    """A row of the study."""

    title: str
    steps: int  # 0: not yet trained
    seeds: list[float]  # mean Dice of each training
    devices: list[str]  # on which each was trained
    dice: dict[str, float]  # of each structure and "mean", over the trainings
    parameters: int
    gflop: float


def tried(folder: Path) -> list[Tried]:
    """All cells of the study in a folder with sweep.json and cells/, the reference first."""
    [study] = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))["studies"]
    return [_of_cell(folder, cell) for cell in study["cells"]]


def _of_cell(folder: Path, cell: dict[str, Any]) -> Tried:
    title = REFERENCE if cell["title"] == "reference" else cell["title"]
    runs = sorted((folder / "cells" / cell["cell"]).glob("seed*/cases.csv"))
    found = [cases.summarize(cases.read_cases_csv(run))["dice"] for run in runs]
    mean = {name: sum(dice[name] for dice in found) / len(found) for name in (*STRUCTURES, "mean") if found}
    steps = json.loads(runs[0].with_name("timing.json").read_text(encoding="utf-8"))["steps"] if runs else 0
    devices = [json.loads(run.with_name("provenance.json").read_text(encoding="utf-8"))["device"] for run in runs]
    return Tried(title, steps, [dice["mean"] for dice in found], devices, mean, cell["parameters"], cell["gflop"])


def table(folder: Path) -> str:
    """Dice, gain over the reference, length and size of each."""
    rows, known = [], tried(folder)
    for one in known:
        size = f"{one.parameters / 1e6:.2f}", f"{one.gflop:.2f}"
        title = f"{one.title}: {LAUNCHED[one.title]}" if one.title in LAUNCHED else one.title
        if not one.steps:
            rows.append((title, NONE, "not yet trained", *[NONE] * 5, *size))
            continue
        gain = NONE if one is known[0] else number(one.dice["mean"] - known[0].dice["mean"], 3, signed=True)
        each = ", ".join(number(dice, 3) for dice in one.seeds)
        where = ", ".join("CPU" if device == "cpu" else device.removeprefix("NVIDIA ") for device in one.devices)
        rows.append((title, f"{one.steps:,}", each, where, *(number(one.dice[name], 3) for name in STRUCTURES), gain, *size))
    heads = ("Training", "Steps", "Mean Dice, each seed", "Trained on", *(f"Dice {name}" for name in STRUCTURES), "Gain", "Parameters (M)", "GFLOP a frame")
    return plain_table(heads, rows, [False, True, True, False, *[True] * 6])


def answer(folder: Path, by_window: float) -> str:
    """The sentence of the best; `by_window` is what the reference's networks gain by a window that follows, without any training."""
    reference, *others = tried(folder)
    best = max((one for one in others if one.steps), key=lambda one: one.dice["mean"])
    length = "as many steps" if best.steps == reference.steps else f"{best.steps / reference.steps:.1f} times the steps"
    times = {1: "one training", 2: "two trainings"}.get(len(best.seeds), f"{len(best.seeds)} trainings")
    return (
        f"**The best, by {times}: {LAUNCHED.get(best.title, best.title)}. Mean Dice {number(best.dice['mean'], 3)}, {number(best.dice['mean'] - reference.dice['mean'], 3, signed=True)} over {reference.title}, with "
        f"{best.gflop / reference.gflop:.2f} times the work a frame and {length}. Of this {number(by_window, 3, signed=True)} is the window's.**"
    )
