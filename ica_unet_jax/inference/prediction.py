"""Segments NIfTI files: labels with the header of the image, volumes and ejection fractions beside them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ica_unet_jax.data import cohort, reading
from ica_unet_jax.data.case import Case
from ica_unet_jax.data.nifti import read_volume, spacing_of
from ica_unet_jax.errors import UserError
from ica_unet_jax.inference import options, segmenters, volumes
from ica_unet_jax.inference.postprocessing import largest_components
from ica_unet_jax.inference.segmenters import Segmenter
from ica_unet_jax.metrics.clinical import volumes_ml
from ica_unet_jax.reporting import figures
from ica_unet_jax.runtime.files import replacing, write_json
from ica_unet_jax.runtime.progress import Progress

_SUFFIXES = (".nii.gz", ".nii")


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
    acdc_names: bool = False,
    skip_bad_cases: bool = False,
    **given: Any,
) -> None:
    """Segments a NIfTI file, or all of a folder or cohort, and prints the ejection fractions.

    Labels are uint8 with the affine, voxel sizes, shape and units of the image. A cine LABELS.nii.gz gets
    LABELS_volumes.csv, LABELS_volumes.png and LABELS_summary.json beside it; a 3D image, its own neighbour, no picture.
    In a folder the labels are NAME_seg.nii.gz.

    Args:
      run_dir: of the training.
      source: .nii or .nii.gz file, 3D or 4D, or a folder as `reading.find_cases` reads it.
      target: label file, or folder where `source` is one.
      acdc_names: write NAME_ED.nii.gz and NAME_ES.nii.gz alone; the phases are those of Info.cfg, or else found.
      skip_bad_cases: in a folder, leave bad cases out.
      given: options of `options.PREDICT`.

    Raises:
      UserError: bad input, no such run.
      BadData: all that is wrong with the images of a folder, before any is segmented; ground truths are not looked at.
    """
    chosen = options.choose(options.PREDICT, given)
    jobs = find_jobs(Path(source), Path(target), acdc_names, skip_bad_cases)
    segmenter = segmenters.load(run_dir, checkpoint=chosen.checkpoint, mirror=chosen.mirror)
    for job in jobs:
        frames, image = read_volume(job.source)
        labels = segment(segmenter, frames, image, chosen, job.source.name)
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


def segment(segmenter: Segmenter, frames: np.ndarray, image: nib.Nifti1Image, chosen: options.Options, name: str) -> np.ndarray:
    """Labels (t, s, h, w) uint8 of frames (t, s, h, w), with a progress bar called `name`."""
    data = segmenter.config.data
    seen = dict(window=chosen.seen_through(data), cyclic=data.cyclic)
    with Progress(len(frames), unit=f"{name} frame") as progress:
        labels = segmenter.segment_cine(frames, spacing_of(image), done=lambda t: progress.update(t + 1), **seen)
    return np.stack([largest_components(frame) for frame in labels]) if chosen.largest_component else labels


def save_cine(job: Job, image: nib.Nifti1Image, labels: np.ndarray) -> None:
    """Writes the labels and what follows from them, and prints the summary."""
    save_labels(job.target, labels, image)
    beside, nominal = job.target.with_name(stem(job.target)), job.case.nominal_spacing
    curves, seconds = volumes_ml(labels, spacing_of(image)), volumes.frame_seconds(image)
    volumes.save_csv(beside.with_name(beside.name + "_volumes.csv"), curves, seconds, "nominal_ml" if nominal else "ml")
    summary = volumes.summarize(curves, seconds, nominal)
    write_json(beside.with_name(beside.name + "_summary.json"), summary)
    if len(labels) > 1:
        figures.volume_curves(
            beside.with_name(beside.name + "_volumes.png"),
            curves,
            seconds=seconds,
            phases={summary["es_frame"] - 1: "ES", summary["ed_frame"] - 1: "ED"},
            title=job.case.name,
            unit="mL, by a nominal voxel size" if nominal else "mL",
        )
    print(f"{job.target}: {volumes.describe(summary)}")


def save_phases(job: Job, image: nib.Nifti1Image, labels: np.ndarray) -> None:
    """Writes the labels of ED and ES under ACDC's names, with the header of the frame's own file where there is one."""
    found = volumes.find_phases(volumes_ml(labels, spacing_of(image))["LV"])
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


def stem(path: Path) -> str:
    """A NIfTI file's name without .nii or .nii.gz."""
    return next((path.name.removesuffix(suffix) for suffix in _SUFFIXES if path.name.endswith(suffix)), path.name)
