"""The page of a segmented case: its figures, curves and masks in one file, for `predict --report`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import ica_unet_jax
from ica_unet_jax.data.case import Cine
from ica_unet_jax.reporting import case_report, figures
from ica_unet_jax.reporting.markup import NONE, Column, Item, Row, Table, number


def save(
    path: Path,
    cine: Cine,
    labels: np.ndarray,
    curves: Mapping[str, np.ndarray],
    summary: Mapping[str, Any],
    *,
    warnings: Sequence[str] = (),
    network: str = "",
    identity: Mapping[str, str] | None = None,
) -> None:
    """Writes the page.

    Args:
      path: of the HTML file.
      cine: what was segmented.
      labels: (t, s, h, w) uint8.
      curves: volumes (t,) in mL by structure.
      summary: as `volumes.summarize` gives it.
      warnings: what a reader must not miss, a sentence each.
      network: the name of what made the labels.
      identity: who it is, where that is to be told.
    """
    name, frames = cine.case.name, len(labels)
    phases = {summary[f"{key}_frame"] - 1: key.upper() for key in ("es", "ed") if summary.get(f"{key}_frame")}
    shown = {time: labels[time] for time in figures.choose_columns(range(frames), sorted(phases))}
    unit = "mL, by a nominal voxel size" if summary["nominal_spacing"] else "mL"
    height, width = cine.frames.shape[2:]
    facts = [
        f"{frames} frames of {cine.frames.shape[1]} slices, {width}x{height}; voxels of {' x '.join(f'{size:.2f}' for size in cine.spacing[::-1])} mm"
        + (f"; {1000 * seconds:.1f} ms from frame to frame." if (seconds := summary["seconds_per_frame"]) else "; the time between frames is not known."),
        f"Masks: {network}, ica_unet_jax {ica_unet_jax.__version__}. ED and ES are the frames of the largest and the smallest LV.",
        "Volumes are counted voxels; papillary muscles and trabeculae are as the network learnt them. Mass at ED, 1.05 g/mL.",
    ]
    with tempfile.TemporaryDirectory() as folder:
        pictures = {"Masks from base to apex": Path(folder, "masks.png")}
        images = {time: cine.frame(cine.times[time]) for time in shown}
        figures.overlay_grid(pictures["Masks from base to apex"], images, shown, {}, cine.spacing, phases=phases)
        if frames > 1:
            pictures["Volumes over the beat"] = Path(folder, "volumes.png")
            figures.volume_curves(pictures["Volumes over the beat"], curves, seconds=summary["seconds_per_frame"], phases=phases, unit=unit)
        tables = [_measurements(summary), *([_identity(identity)] if identity else [])]
        case_report.write(path, f"Heart segmentation: {name}", tables, pictures, warnings, facts)


def _measurements(summary: Mapping[str, Any]) -> Table:
    columns = [Column("", number=False), *(Column(head) for head in ("LV", "RV", "Myocardium"))]

    def row(head: str, values: Mapping[str, float | None] | None, digits: int = 1, scale: float = 1) -> Row:
        known = {name: None if value is None else scale * value for name, value in (values or {}).items()}
        return Row([Item(head), *(Item(number(known[name], digits) if name in known else NONE) for name in ("LV", "RV", "MYO"))])

    if summary["frames"] == 1:
        return Table("Measurements", columns, [row("Volume (mL)", summary["volume_ml"])])
    frame = {key: summary[f"{key}_frame"] or NONE for key in ("ed", "es")}
    rows = [
        row(f"End-diastolic volume (mL), frame {frame['ed']}", summary["ed_volume_ml"]),
        row(f"End-systolic volume (mL), frame {frame['es']}", summary["es_volume_ml"]),
        row("Stroke volume (mL)", summary["stroke_volume_ml"]),
        row("Ejection fraction (%)", summary["ejection_fraction"], scale=100),
        row("Mass at ED (g)", {"MYO": summary["lv_mass_g"]}),
    ]
    return Table("Measurements", columns, rows, "No mL or g where the voxel size is a nominal one." if summary["nominal_spacing"] else "")


def _identity(identity: Mapping[str, str]) -> Table:
    rows = [Row([Item(name.replace("_", " ").capitalize()), Item(value or NONE)]) for name, value in identity.items()]
    return Table("Patient", [Column("", number=False), Column("", number=False)], rows)
