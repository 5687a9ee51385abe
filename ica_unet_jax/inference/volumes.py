"""Volumes over a cine, from its labels: curves, phases and ejection fractions, as files and as one line."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ica_unet_jax.data.case import Cine
from ica_unet_jax.metrics.clinical import ejection_fraction, myocardial_mass, volumes_ml
from ica_unet_jax.runtime.files import replacing

NO_HEART = "no heart was found: look at the image, and at how it lies (--reorient)."
NO_LV = "no LV cavity was found, so there is neither ED nor ES nor an ejection fraction."
_SECONDS = {"sec": 1, "msec": 1e-3, "usec": 1e-6}


def curves(labels: np.ndarray, cine: Cine) -> dict[str, np.ndarray]:
    """Volume curves (t,) in mL of the labels (t, s, h, w) of a cine; NaN where its frames show nothing."""
    return {name: np.where(cine.empty, np.nan, curve) for name, curve in volumes_ml(labels, cine.spacing).items()}


def find_phases(lv: np.ndarray) -> tuple[int, int] | None:
    """(ED, ES): frames of the largest and the smallest volume of the LV cavity (t,), None where none has any; NaN is passed over."""
    if not np.nanmax(lv) > 0:
        return None
    return int(np.nanargmax(lv)), int(np.nanargmin(lv))


def summarize(volumes: dict[str, np.ndarray], seconds: float | None, nominal_spacing: bool) -> dict[str, Any]:
    """JSON-safe summary of volume curves in mL: with several frames the phases (frames from 1), ejection fractions, stroke volumes, LV mass.

    What a nominal voxel size gives in mL or g is None; an ejection fraction is None where the ventricle was not found, and so are the
    phases, and what is measured at them, where the LV was not.
    """
    frames, found = len(volumes["LV"]), any(np.nanmax(curve) > 0 for curve in volumes.values())
    summary = {"frames": frames, "seconds_per_frame": seconds, "nominal_spacing": nominal_spacing, "heart_found": bool(found)}

    def at(time: int) -> dict[str, float | None]:
        return {name: None if nominal_spacing else round(float(curve[time]), 3) for name, curve in volumes.items()}

    if frames == 1:
        return summary | {"volume_ml": at(0)}
    phases = find_phases(volumes["LV"])
    if phases is None:
        nothing = dict.fromkeys(("ed_frame", "es_frame", "ed_volume_ml", "es_volume_ml", "stroke_volume_ml", "lv_mass_g"))
        return summary | nothing | {"ejection_fraction": {"LV": None, "RV": None}}
    ed, es = phases
    fractions = {name: ejection_fraction(volumes[name][ed], volumes[name][es]) for name in ("LV", "RV")}
    return summary | {
        "ed_frame": ed + 1,
        "es_frame": es + 1,
        "ed_volume_ml": at(ed),
        "es_volume_ml": at(es),
        "stroke_volume_ml": {name: None if nominal_spacing else round(float(volumes[name][ed] - volumes[name][es]), 3) for name in ("LV", "RV")},
        "lv_mass_g": None if nominal_spacing else round(float(myocardial_mass(volumes["MYO"][ed])), 3),
        "ejection_fraction": {
            name: round(float(value), 4) if np.isfinite(value) else None for name, value in fractions.items()
        },
    }


def describe(summary: dict[str, Any]) -> str:
    """The summary in a line."""

    def ml(volumes: dict[str, float | None]) -> str:
        return ", ".join(f"{name} " + ("–" if value is None else f"{value:.1f}") for name, value in volumes.items())

    if not summary["heart_found"]:
        return NO_HEART
    if summary["frames"] > 1 and summary["ed_frame"] is None:
        return NO_LV
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
    """One line a frame: its number from 1, its time in s, the volumes, named by their unit, and the LV's mass; empty what is not known."""
    columns = {f"{name}_{unit}": curve for name, curve in volumes.items()}
    columns |= {"LV_mass_g": myocardial_mass(volumes["MYO"])} if unit == "ml" else {}
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["frame", "time_s", *columns])
        for time, values in enumerate(zip(*columns.values(), strict=True)):
            moment = "" if seconds is None else f"{time * seconds:.4f}"
            writer.writerow([time + 1, moment, *("" if np.isnan(value) else f"{value:.3f}" for value in values)])


def rounded(volumes: dict[str, np.ndarray]) -> dict[str, list[float | None]]:
    """Volume curves (t,) for JSON; None where a frame shows nothing."""
    return {name: [None if np.isnan(value) else round(float(value), 3) for value in curve] for name, curve in volumes.items()}


def frame_seconds(header: nib.Nifti1Header) -> float | None:
    """Seconds from frame to frame, None where the header has no time or no unit for it."""
    unit, step = header.get_xyzt_units()[1], header["pixdim"][4]
    return float(step) * _SECONDS[unit] if len(header.get_data_shape()) == 4 and unit in _SECONDS and step > 0 else None
