"""Volumes over a cine, from its labels: curves, phases and ejection fractions, as files and as one line."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ica_unet_jax.metrics.clinical import ejection_fraction
from ica_unet_jax.runtime.files import replacing

_SECONDS = {"sec": 1, "msec": 1e-3, "usec": 1e-6}


def find_phases(lv: np.ndarray) -> tuple[int, int]:
    """(ED, ES): frames of the largest and the smallest volume of the LV cavity (t,)."""
    return int(np.argmax(lv)), int(np.argmin(lv))


def summarize(volumes: dict[str, np.ndarray], seconds: float | None, nominal_spacing: bool) -> dict[str, Any]:
    """JSON-safe summary of volume curves in mL: with several frames the phases (frames from 1) and ejection fractions.

    Volumes by a nominal voxel size are None; an ejection fraction is None where the ventricle was not found.
    """
    frames = len(volumes["LV"])
    summary = {"frames": frames, "seconds_per_frame": seconds, "nominal_spacing": nominal_spacing}

    def at(time: int) -> dict[str, float | None]:
        return {name: None if nominal_spacing else round(float(curve[time]), 3) for name, curve in volumes.items()}

    if frames == 1:
        return summary | {"volume_ml": at(0)}
    ed, es = find_phases(volumes["LV"])
    fractions = {name: ejection_fraction(volumes[name][ed], volumes[name][es]) for name in ("LV", "RV")}
    return summary | {
        "ed_frame": ed + 1,
        "es_frame": es + 1,
        "ed_volume_ml": at(ed),
        "es_volume_ml": at(es),
        "ejection_fraction": {
            name: round(float(value), 4) if np.isfinite(value) else None for name, value in fractions.items()
        },
    }


def describe(summary: dict[str, Any]) -> str:
    """The summary in a line."""

    def ml(volumes: dict[str, float | None]) -> str:
        return ", ".join(f"{name} " + ("–" if value is None else f"{value:.1f}") for name, value in volumes.items())

    if summary["frames"] == 1:
        return f"mL: {ml(summary['volume_ml'])}"
    fractions = ", ".join(
        f"EF of {name} " + ("–" if value is None else f"{100 * value:.1f} %")
        for name, value in summary["ejection_fraction"].items()
    )
    return (
        f"{fractions}; mL at ED (frame {summary['ed_frame']}): {ml(summary['ed_volume_ml'])}; "
        f"at ES (frame {summary['es_frame']}): {ml(summary['es_volume_ml'])}"
    )


def save_csv(path: Path, volumes: dict[str, np.ndarray], seconds: float | None, unit: str = "ml") -> None:
    """One line a frame: its number from 1, its time in s (empty where unknown) and the volumes, named by their unit."""
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["frame", "time_s", *(f"{name}_{unit}" for name in volumes)])
        for time, values in enumerate(zip(*volumes.values(), strict=True)):
            moment = "" if seconds is None else f"{time * seconds:.4f}"
            writer.writerow([time + 1, moment, *(f"{value:.3f}" for value in values)])


def frame_seconds(image: nib.Nifti1Image) -> float | None:
    """Seconds from frame to frame, None where the header has no time or no unit for it."""
    unit, step = image.header.get_xyzt_units()[1], image.header["pixdim"][4]
    return float(step) * _SECONDS[unit] if image.ndim == 4 and unit in _SECONDS and step > 0 else None
