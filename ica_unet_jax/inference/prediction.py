"""Segments NIfTI files and DICOM studies: labels with the geometry of the images, volumes and ejection fractions beside them."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ica_unet_jax.data import checks, reading
from ica_unet_jax.data.case import Cine
from ica_unet_jax.data.dicom import grid
from ica_unet_jax.data.saving import holds_our_labels, save_labels
from ica_unet_jax.errors import BadData, UserError
from ica_unet_jax.inference import case_page, dicom_seg, jobs, options, parts, segmenters, turning, volumes
from ica_unet_jax.inference.jobs import Job
from ica_unet_jax.inference.postprocessing import largest_components
from ica_unet_jax.inference.segmenters import Segmenter
from ica_unet_jax.metrics import doubts
from ica_unet_jax.reporting import case_report, figures
from ica_unet_jax.runs.trained import Trained, find
from ica_unet_jax.runtime.files import check_place, write_json
from ica_unet_jax.runtime.progress import Progress


def predict(
    network: str | Path | Trained,
    source: str | Path,
    target: str | Path = "",
    *,
    acdc_names: bool = False,
    skip_bad_cases: bool = False,
    report: bool = False,
    series: str = "",
    keep_identifiers: bool = False,
    part: str = "",
    resume: bool = False,
    **given: Any,
) -> None:
    """Segments a NIfTI file, or all of a folder or cohort, or DICOM studies, and prints the ejection fractions.

    Labels are uint8 with the affine, voxel sizes, shape and units of the image, and nothing else of its header. A cine LABELS.nii.gz gets
    LABELS_volumes.csv, LABELS_volumes.png and LABELS_summary.json beside it; a 3D image, its own neighbour, no picture.
    In a folder the labels are NAME_seg.nii.gz, and cohort.csv has a row for each that lies there, unless a part alone is segmented. DICOM
    gets its labels in LABELS_dicom_seg/ too. Nothing but these tells who the patient is, unless that is to be kept.

    Args:
      network: as `trained.find` finds it.
      source: NIfTI file, 3D or 4D, a folder as `reading.find_cases` reads it, or a file, series or studies in DICOM.
      target: label file, or folder where `source` is one; empty: INPUT_seg beside `source`, of DICOM as `jobs.find_studies` says.
      acdc_names: write NAME_ED.nii.gz and NAME_ES.nii.gz alone; the phases are those of Info.cfg, or else found.
      skip_bad_cases: in a folder, leave bad cases out.
      report: write LABELS_report.html too.
      series: number or UID of one of the series in DICOM that are to be segmented.
      keep_identifiers: tell name, number and birth date that DICOM holds in names of files, summary and report.
      part: of a folder, one of several parts alone, as "3/20", the third of twenty.
      resume: leave out what is finished: its files are there, and none is older than its image.
      given: options of `options.PREDICT`.

    Raises:
      UserError: bad input, no such network.
      BadData: all that is wrong with the images of a folder, before any is segmented; ground truths are not looked at. After all are
        segmented: which studies have no DICOM SEG, and why.
    """
    chosen = options.choose(options.PREDICT, given)
    trained = find(network)
    limits = trained.doubt_limits
    codes = turning.codes_for(trained, trained.config.data, chosen)
    source, reader = Path(source), chosen.reader or reading.AUTO
    place = Path(target) if target else jobs.beside(source)
    done = functools.partial(jobs.is_finished, acdc_names=acdc_names, report=report) if resume else None
    if is_dicom := jobs.is_dicom(source, reader):
        if part or resume:
            raise UserError(f"--{'part' if part else 'resume'} is for NIfTI files: --input={source} holds DICOM; leave it out.")
        todo = jobs.find_studies(source, Path(target) if target else None, acdc_names, skip_bad_cases, codes, series, keep_identifiers)
    elif series or keep_identifiers:
        raise UserError(f"--{'series' if series else 'keep_identifiers'} is for DICOM, of which --input={source} holds none: leave it out.")
    else:
        todo = jobs.find_jobs(source, place, acdc_names, skip_bad_cases, codes, reader, part, done)
    for job in todo:
        for path in ([job.target] if acdc_names else [job.target, job.beside(jobs.SUMMARY)]):  # its name is the longest
            check_place(path)
        if not target and job.target.exists() and not holds_our_labels(job.target):
            raise UserError(f"{job.target} is there, and was not written by this command: name another place by --output.")
    segmenter = segmenters.load_as(trained, chosen)
    if told := turning.remark(trained, {job.case.name: job.case for job in todo}.values(), codes):
        print(f"note: {told}", file=sys.stderr)
    if not todo:
        print(f"note: nothing is left to segment of --input={source}.", file=sys.stderr)
    without: list[str] = []
    for job in todo:
        seen = job.read(codes)
        cine = turning.sound(seen)
        labels, unsure = segment(segmenter, cine, chosen, job.source.name if job.case.reader != "dicom" else job.case.name)
        if acdc_names:
            save_phases(job, cine, labels)
        else:
            remarks = [job.anonymous(remark) for remark in seen.remarks]
            curves, summary = save_cine(job, cine, labels, remarks, doubts.of_cine(labels, cine.spacing, unsure, limits))
            if report:
                about = dict(warnings=[*remarks, *_doubtful(summary)], network=segmenter.config.model.model, identity=job.patient)
                case_page.save(job.beside("_report.html"), cine, labels, curves, summary, **about)
            if job.case.reader == "dicom":
                checks.attempt(without, save_dicom, job, cine.turn.back(labels), segmenter.config.model.model)
    if source.is_dir() and not (is_dicom or part or acdc_names):
        parts.write_table(place, f"_seg{jobs.SUMMARY}")
    if without:
        raise BadData(without)


def _doubtful(summary: dict[str, Any]) -> list[str]:
    """Why the masks of a summary should be looked at, a sentence each."""
    if not summary["heart_found"]:
        return [f"{volumes.NO_HEART[:1].upper()}{volumes.NO_HEART[1:]}"]
    return [f"Look at {doubts.describe(summary['doubts'])}."] if summary["doubts"] else []


def segment(segmenter: Segmenter, cine: Cine, chosen: options.Options, name: str) -> tuple[np.ndarray, list[float]]:
    """Labels (t, s, h, w) uint8 of a cine's frames, none of a frame that shows nothing, and how unsure the network is of each; with a progress bar called `name`."""
    data, frames = segmenter.config.data, cine.frames
    seen = dict(window=chosen.seen_through(data), cyclic=data.cyclic)
    unsure: list[float] = []
    with Progress(len(frames), unit=f"{name} frame") as progress:
        labels = segmenter.segment_cine(frames, cine.spacing, done=lambda t: progress.update(t + 1), watch=segmenter.noting(unsure), **seen)
    labels[cine.empty], unsure = 0, np.where(cine.empty, 0, unsure).tolist()
    return np.stack([largest_components(frame) for frame in labels]) if chosen.largest_component else labels, unsure


def save_cine(
    job: Job, cine: Cine, labels: np.ndarray, remarks: list[str], signs: dict[str, list[int]]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Writes the labels and what follows from them, prints the summary, and returns the volume curves and the summary; `signs` as `doubts.of_cine` finds them."""
    save_labels(job.target, cine.turn.back(labels), cine.header)
    nominal = job.case.nominal_spacing
    curves, seconds = volumes.curves(labels, cine), volumes.frame_seconds(cine.header)
    volumes.save_csv(job.beside("_volumes.csv"), curves, seconds, "nominal_ml" if nominal else "ml")
    summary = volumes.summarize(curves, seconds, nominal) | {"doubts": signs}
    known = {f"volumes_{'nominal_ml' if nominal else 'ml'}": volumes.rounded(curves), "remarks": remarks, "note": case_report.RESEARCH}
    if len(labels) > 1:
        figures.volume_curves(
            job.beside("_volumes.png"),
            curves,
            seconds=seconds,
            phases={} if summary["ed_frame"] is None else {summary["es_frame"] - 1: "ES", summary["ed_frame"] - 1: "ED"},
            title=job.case.name,
            unit="mL, by a nominal voxel size" if nominal else "mL",
        )
    write_json(job.beside(jobs.SUMMARY), summary | known | ({"patient": job.patient} if job.patient else {}))
    print(f"{job.target}: {volumes.describe(summary)}")
    if signs and summary["heart_found"]:
        print(f"note: {job.target}: look at {doubts.describe(signs)}.", file=sys.stderr)
    return curves, summary


def save_dicom(job: Job, labels: np.ndarray, network: str) -> None:
    """Writes labels (t, s, h, w), as the images are stored, as DICOM SEG, and says whose name is in it."""
    folder = job.beside("_dicom_seg")
    paths = dicom_seg.save(folder, grid.arrange(job.case.stack), labels, network)
    print(f"{folder}: {len(paths)} DICOM SEG objects, one for each frame with labels; name, number, birth date and what else the images tell of "
          "patient, study and hospital is in them, as DICOM demands")


def save_phases(job: Job, cine: Cine, labels: np.ndarray) -> None:
    """Writes the labels of ED and ES under ACDC's names, with the header of the frame's own file where there is one."""
    found = volumes.find_phases(volumes.curves(labels, cine)["LV"])
    if not found:
        print(f"note: {job.source}: {volumes.NO_LV if labels.any() else volumes.NO_HEART}", file=sys.stderr)
    for phase, told, seen in zip(("ED", "ES"), (job.case.ed, job.case.es), found or (0, 0), strict=True):
        time = seen if told is None else told
        if not 0 <= time < len(labels):
            raise UserError(
                f"{job.case.info}: {phase} is frame {time + 1}, counted from 1, but {job.source.name} has {len(labels)} frames; correct it."
            )
        header = cine.header.copy()
        header.set_data_shape(header.get_data_shape()[:3])
        if time in job.case.frames:
            header = reading.examine_file(job.case.frames[time]).cine.header
            if header.get_data_shape()[:3] != cine.header.get_data_shape()[:3]:
                raise UserError(
                    f"{job.case.frames[time]} has another shape than {job.source.name}; export both on one grid."
                )
        path = job.phase_file(phase)
        save_labels(path, cine.turn.back(labels[time : time + 1]), header)
        print(path)
