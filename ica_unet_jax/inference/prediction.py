"""Segments NIfTI files: labels with the header of the image, volumes and ejection fractions beside them."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ica_unet_jax.data import cohort, reading
from ica_unet_jax.data.case import Case
from ica_unet_jax.data.nifti import read_volume, spacing_of
from ica_unet_jax.errors import UserError
from ica_unet_jax.inference import segmenters
from ica_unet_jax.inference.postprocessing import largest_components
from ica_unet_jax.inference.segmenters import Segmenter
from ica_unet_jax.metrics.clinical import ejection_fraction, volumes_ml
from ica_unet_jax.reporting import figures
from ica_unet_jax.runtime.files import replacing, write_json
from ica_unet_jax.runtime.progress import Progress

_SUFFIXES = (".nii.gz", ".nii")
_SECONDS = {"sec": 1, "msec": 1e-3, "usec": 1e-6}


@dataclasses.dataclass(frozen=True)
class Job:
    """A file to segment and the label file to write; `case` is what is known of its patient."""

    source: Path
    target: Path
    case: Case


def predict(
    run_dir: str | Path,
    source: str | Path,
    target: str | Path,
    *,
    which: str = "latest",
    window: str | None = None,
    largest_component: bool = False,
    mirror: bool = False,
    acdc_names: bool = False,
    skip_bad_cases: bool = False,
) -> None:
    """Segments a NIfTI file, or all of a folder or cohort, and prints the ejection fractions.

    Labels are uint8 with the affine, voxel sizes, shape and units of the image. A cine LABELS.nii.gz gets
    LABELS_volumes.csv, LABELS_volumes.png and LABELS_summary.json beside it; a 3D image, its own neighbour, no picture.
    In a folder the labels are NAME_seg.nii.gz.

    Args:
      run_dir: of the training.
      source: .nii or .nii.gz file, 3D or 4D, or a folder as `reading.find_cases` reads it.
      target: label file, or folder where `source` is one.
      which: "latest" or "best" checkpoint.
      window: where the model looks in frames larger than its grid, one of `roi.WINDOWS`; by default as it was trained.
      largest_component: keep the largest component of each structure in each frame alone.
      mirror: average with the three mirror images.
      acdc_names: write NAME_ED.nii.gz and NAME_ES.nii.gz alone; the phases are those of Info.cfg, or else found.
      skip_bad_cases: in a folder, leave bad cases out.

    Raises:
      UserError: bad input, no such run.
      BadData: all that is wrong with the images of a folder, before any is segmented; ground truths are not looked at.
    """
    jobs = find_jobs(Path(source), Path(target), acdc_names, skip_bad_cases)
    segmenter = segmenters.load(run_dir, which, mirror=mirror)
    for job in jobs:
        frames, image = read_volume(job.source)
        labels = segment(segmenter, frames, image, largest_component, job.source.name, window or segmenter.config.data.window)
        if acdc_names:
            save_phases(job, image, labels)
        else:
            save_cine(job, image, labels)


def find_jobs(source: Path, target: Path, acdc_names: bool = False, skip_bad_cases: bool = False) -> list[Job]:
    """What is to be segmented and where to; the images of a folder are checked.

    Raises:
      UserError: names that are no NIfTI, a folder without cines, or a target that is the source.
      BadData: bad images in a folder, unless they are to be left out.
    """
    if source.resolve() == target.resolve():
        raise UserError(f"--output={target} is the input: choose another place.")
    if not source.is_dir():
        if acdc_names:
            raise UserError(f"--acdc_names needs a cohort: --input={source} is no folder.")
        if target.is_dir() or not target.name.endswith(_SUFFIXES):
            raise UserError(f"--output={target} must be a file .nii.gz or .nii, as --input={source} is no folder.")
        return [Job(source, target, Case(stem(source), cine=source))]
    if target.is_file() or target.name.endswith(_SUFFIXES):
        raise UserError(f"--output={target} must be a folder, as --input={source} is one.")
    cases, jobs = reading.find_cases(source), []
    sound, _ = cohort.screen(cases, lambda case: bool(reading.read(case, with_labels=False)), skip_bad_cases)
    for case in cases:
        if case.name not in sound:
            continue
        if case.cine:
            jobs.append(Job(case.cine, target / f"{case.name}_seg.nii.gz", case))
        elif acdc_names:
            raise UserError(
                f"--acdc_names needs cines, which {case.name} in {source} lacks: add {case.name}_4d.nii.gz."
            )
        else:
            jobs += [
                Job(path, target / f"{case.name}_frame{time + 1:02d}_seg.nii.gz", case)
                for time, path in sorted(case.frames.items())
            ]
    if not jobs:
        raise UserError(f"--input={source} holds no images: expected .nii.gz files.")
    return jobs


def segment(
    segmenter: Segmenter,
    frames: np.ndarray,
    image: nib.Nifti1Image,
    largest_component: bool,
    name: str,
    window: str = "centre",
) -> np.ndarray:
    """Labels (t, s, h, w) uint8 of frames (t, s, h, w), with a progress bar called `name`."""
    with Progress(len(frames), unit=f"{name} frame") as progress:
        options = dict(window=window, cyclic=segmenter.config.data.cyclic)
        labels = segmenter.segment_cine(frames, spacing_of(image), done=lambda t: progress.update(t + 1), **options)
    return np.stack([largest_components(frame) for frame in labels]) if largest_component else labels


def save_cine(job: Job, image: nib.Nifti1Image, labels: np.ndarray) -> None:
    """Writes the labels and what follows from them, and prints the summary."""
    save_labels(job.target, labels, image)
    beside = job.target.with_name(stem(job.target))
    volumes, seconds = volumes_ml(labels, spacing_of(image)), frame_seconds(image)
    unit = "nominal_ml" if job.case.nominal_spacing else "ml"
    save_volumes_csv(beside.with_name(beside.name + "_volumes.csv"), volumes, seconds, unit)
    summary = summarize(volumes, seconds, job.case.nominal_spacing)
    write_json(beside.with_name(beside.name + "_summary.json"), summary)
    if len(labels) > 1:
        phases = {summary["es_frame"] - 1: "ES", summary["ed_frame"] - 1: "ED"}
        figures.volume_curves(
            beside.with_name(beside.name + "_volumes.png"),
            volumes,
            seconds=seconds,
            phases=phases,
            title=job.case.name,
            unit="mL, by a nominal voxel size" if job.case.nominal_spacing else "mL",
        )
    print(f"{job.target}: {describe(summary)}")


def save_phases(job: Job, image: nib.Nifti1Image, labels: np.ndarray) -> None:
    """Writes the labels of ED and ES under ACDC's names, with the header of the frame's own file where there is one."""
    found = find_phases(volumes_ml(labels, spacing_of(image))["LV"])
    single = image.slicer[..., 0] if image.ndim == 4 else image
    for phase, told, seen in zip(("ED", "ES"), (job.case.ed, job.case.es), found, strict=True):
        time = seen if told is None else told
        if not 0 <= time < len(labels):
            raise UserError(
                f"{job.case.info}: {phase} is {time + 1}, but {job.source.name} has {len(labels)} frames; correct it."
            )
        like = read_volume(job.case.frames[time])[1] if time in job.case.frames else single
        if like.shape[:3] != single.shape:
            raise UserError(
                f"{job.case.frames[time]} has another shape than {job.source.name}; export both on one grid."
            )
        path = job.target.with_name(f"{job.case.name}_{phase}.nii.gz")
        save_labels(path, labels[time : time + 1], like)
        print(path)


def save_labels(path: Path, labels: np.ndarray, like: nib.Nifti1Image) -> None:
    """Writes labels (t, s, h, w) as NIfTI uint8 with the geometry, units and shape of `like`, 3D or 4D."""
    header = like.header.copy()
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0
    array = labels.T.reshape(like.shape)
    with replacing(path) as temporary:
        nib.save(type(like)(array, like.affine, header), temporary)


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


def save_volumes_csv(path: Path, volumes: dict[str, np.ndarray], seconds: float | None, unit: str = "ml") -> None:
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


def stem(path: Path) -> str:
    """A NIfTI file's name without .nii or .nii.gz."""
    return next((path.name.removesuffix(suffix) for suffix in _SUFFIXES if path.name.endswith(suffix)), path.name)
