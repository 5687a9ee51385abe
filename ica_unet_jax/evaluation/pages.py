"""The Markdown page of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ica_unet_jax.labels import STRUCTURES
from ica_unet_jax.metrics import cases
from ica_unet_jax.reporting.markup import number, plain_table

OVER_TIME = {"Roughness": "roughness", "Dice t, t+1": "neighbour_dice"}


def page(run: str, summary: dict[str, Any], rows: Sequence[cases.Row]) -> str:
    """What `evaluation.evaluate` found of the run of that name: its summary, and the rows it is of."""
    lines = [
        f"# {run}, {summary['split']}: {summary['n_patients']} patients, {summary['n_cases']} frames",
        "",
        f"Checkpoint of step {summary['checkpoint_step']} ({summary['checkpoint']}). Labelled voxels outside the "
        f"window ({summary['window']}), counted as missed: {summary['labelled_voxels_outside']} of {summary['labelled_voxels']}.",
        *(f"\n**Note:** {note}." for note in summary["notes"]),
        "",
        cases.markdown_table(rows, summary["nsd_mm"]),
    ]
    if summary["over_time"]:
        header = ["Whole cine", "Frames", *(f"{measure} {s}" for measure in OVER_TIME for s in STRUCTURES)]
        curves = [_line(name, known["n_frames"], known["prediction"]) for name, known in summary["over_time"].items()]
        curves.append(_line("mean", "", summary["over_time_mean"]["prediction"]))
        lines.append(plain_table(header, curves))
    return "\n".join(lines) + "\n"


def _line(name: str, frames: int | str, known: dict[str, Any]) -> list[object]:
    return [name, frames, *(number(known[measure][s], 3) for measure in OVER_TIME.values() for s in STRUCTURES)]
