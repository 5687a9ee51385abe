"""Segments NIfTI files and DICOM studies: labels with the geometry of the images, volumes and ejection fractions beside them."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ica_unet_jax.data import checks, cohort, reading
from ica_unet_jax.data.case import Case, Cine, Examination
from ica_unet_jax.data.dicom import grid, identity
from ica_unet_jax.data.nifti import SUFFIX, stem
from ica_unet_jax.data.readers import dicom
from ica_unet_jax.data.saving import holds_our_labels, save_labels
from ica_unet_jax.errors import BadData, UserError
from ica_unet_jax.inference import case_page, dicom_seg, options, parts, segmenters, turning, volumes
from ica_unet_jax.inference.postprocessing import largest_components
from ica_unet_jax.inference.segmenters import Segmenter
from ica_unet_jax.metrics import doubts
from ica_unet_jax.reporting import case_report, figures
from ica_unet_jax.runs.trained import Trained, find
from ica_unet_jax.runtime.files import check_place, write_json
from ica_unet_jax.runtime.progress import Progress

_SUFFIXES = (".nii.gz", ".nii")
_SUMMARY = "_summary.json"


@dataclasses.dataclass(frozen=True)
class Job:
    """A file or a study to segment and the label file to write; `case` is what is known of its patient, `patient` who it is if that is kept."""

    source: Path
    target: Path
    case: Case
    patient: dict[str, str] | None = None

    def read(self, codes: str) -> Examination:
        """What its images hold, turned to the axis letters `codes` if these are given."""
        if self.case.reader == "dicom":
            return reading.examine(self.case, with_labels=False, codes=codes)
        return reading.examine_file(self.source, codes)

    def anonymous(self, remark: str) -> str:
        """A remark about its images without the folder that they lie in."""
        source = str(self.source)
        return self.case.name + remark[len(source) :] if remark.startswith(source) else remark

    def beside(self, ending: str) -> Path:
        """A file beside the labels, as LABELS_summary.json."""
        return self.target.with_name(stem(self.target) + ending)


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
    In a folder the labels are NAME_seg.nii.gz, and cohort.csv has a row for each that lies there, unless a part alone is segmented. DICOM gets its labels in LABELS_dicom_seg/ too. Nothing but these tells who the patient is,
    unless that is to be kept.

    Args:
      network: as `trained.find` finds it.
      source: NIfTI file, 3D or 4D, a folder as `reading.find_cases` reads it, or a file, series or studies in DICOM.
      target: label file, or folder where `source` is one; empty: INPUT_seg beside `source`, of DICOM as `find_studies` says.
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
    codes = turning.codes_for(trained, trained.config.data, chosen)
    source, reader = Path(source), chosen.reader or reading.AUTO
    place = Path(target) if target else _beside(source)
    done = functools.partial(_is_finished, acdc_names=acdc_names, report=report) if resume else None
    if is_dicom := _is_dicom(source, reader):
        if part or resume:
            raise UserError(f"--{'part' if part else 'resume'} is for NIfTI files: --input={source} holds DICOM; leave it out.")
        jobs = find_studies(source, Path(target) if target else None, acdc_names, skip_bad_cases, codes, series, keep_identifiers)
    elif series or keep_identifiers:
        raise UserError(f"--{'series' if series else 'keep_identifiers'} is for DICOM, of which --input={source} holds none: leave it out.")
    else:
        jobs = find_jobs(source, place, acdc_names, skip_bad_cases, codes, reader, part, done)
    for job in jobs:
        for path in ([job.target] if acdc_names else [job.target, job.beside(_SUMMARY)]):  # its name is the longest
            check_place(path)
        if not target and job.target.exists() and not holds_our_labels(job.target):
            raise UserError(f"{job.target} is there, and was not written by this command: name another place by --output.")
    segmenter = segmenters.load_as(trained, chosen)
    if told := turning.remark(trained, {job.case.name: job.case for job in jobs}.values(), codes):
        print(f"note: {told}", file=sys.stderr)
    if not jobs:
        print(f"note: nothing is left to segment of --input={source}.", file=sys.stderr)
    without: list[str] = []
    for job in jobs:
        seen = job.read(codes)
        cine = turning.sound(seen)
        labels = segment(segmenter, cine, chosen, job.source.name if job.case.reader != "dicom" else job.case.name)
        if acdc_names:
            save_phases(job, cine, labels)
        else:
            remarks = [job.anonymous(remark) for remark in seen.remarks]
            curves, summary = save_cine(job, cine, labels, remarks)
            if report:
                about = dict(warnings=[*remarks, *_doubtful(summary)], network=segmenter.config.model.model, identity=job.patient)
                case_page.save(job.beside("_report.html"), cine, labels, curves, summary, **about)
            if job.case.reader == "dicom":
                checks.attempt(without, save_dicom, job, cine.turn.back(labels), segmenter.config.model.model)
    if source.is_dir() and not (is_dicom or part or acdc_names):
        parts.write_table(place, f"_seg{_SUMMARY}")
    if without:
        raise BadData(without)


def _is_finished(job: Job, acdc_names: bool, report: bool) -> bool:
    """Whether all that is written of a job is there and newer than its image; the summary, which is written late, speaks for what has no picture."""
    outputs = [job.target, job.beside(_SUMMARY), *([job.beside("_report.html")] if report else [])]
    if acdc_names:
        outputs = [_phase_file(job, phase) for phase in ("ED", "ES")]
    return parts.are_newer(outputs, [job.source])


def _beside(source: Path) -> Path:
    """Where the labels of an image, or of a folder of them, go unless another place is named."""
    place = source.resolve()  # `.` and `..` have a name only so
    return place.with_name(f"{place.name}_seg" if place.is_dir() else f"{stem(place)}_seg.nii.gz")


def find_jobs(source: Path, target: Path, acdc_names: bool = False, skip_bad_cases: bool = False, codes: str = "",
              reader: str = reading.AUTO, part: str = "", done: Callable[[Job], bool] | None = None) -> list[Job]:
    """What is to be segmented and where to; the images of a folder, which that `reader` knows, are checked, turned to the axis letters
    `codes` if these are given. Of the cases of a folder those of a `part` alone, as `parts.of` has it; nothing that is `done`.

    Raises:
      UserError: names that are no NIfTI, a folder without cines, or a target that is the source or inside it.
      BadData: bad images in a folder, unless they are to be left out.
    """
    if source.resolve() == target.resolve():
        raise UserError(f"--output={target} is the input: choose another place.")
    if not source.is_dir():
        if acdc_names:
            raise UserError(f"--acdc_names needs a cohort: --input={source} is no folder.")
        if source.exists() and not SUFFIX.search(source.name):
            raise UserError(f"--input={source} is no NIfTI file by its name: name a .nii.gz, .nii or .img file, or a folder of them.")
        if target.is_dir() or not target.name.endswith(_SUFFIXES):
            raise UserError(f"--output={target} must be a file .nii.gz or .nii, as --input={source} is no folder.")
        if part:
            raise UserError(f"--part={part} needs a folder: --input={source} is none.")
        jobs = [Job(source, target, Case(stem(source), cine=source))]
        return [job for job in jobs if not (done and done(job))]
    if target.is_file() or target.name.endswith(_SUFFIXES):
        raise UserError(f"--output={target} must be a folder, as --input={source} is one.")
    if target.resolve().is_relative_to(source.resolve()):
        raise UserError(f"--output={target} lies in --input={source}, where its masks would be taken for patients: choose another place.")
    cases = [case for case in reading.find_cases(source, reader=reader) if case.image or case.problems]
    jobs = [job for case in parts.of(cases, part) for job in _jobs(case, source, target, acdc_names)]
    if not jobs and not part:
        raise UserError(f"--input={source} holds no images: expected .nii.gz files.")
    jobs = [job for job in jobs if not (done and done(job))]
    left = {job.case.name for job in jobs} | {case.name for case in parts.of(cases, part) if case.problems}
    sound, _ = cohort.screen(
        [case for case in cases if case.name in left], lambda case: bool(reading.read(case, with_labels=False, codes=codes)), skip_bad_cases
    )
    return [job for job in jobs if job.case.name in sound]


def _jobs(case: Case, source: Path, target: Path, acdc_names: bool) -> list[Job]:
    """The cine of a case in a folder, or each of its frames where it has none."""
    if case.cine:
        return [Job(case.cine, target / f"{case.name}_seg.nii.gz", case)]
    if acdc_names:
        raise UserError(f"--acdc_names needs cines, which {case.name} in {source} lacks: add {case.name}_4d.nii.gz.")
    return [Job(path, target / f"{case.name}_frame{time + 1:02d}_seg.nii.gz", case) for time, path in sorted(case.frames.items())]


def _doubtful(summary: dict[str, Any]) -> list[str]:
    """Why the masks of a summary should be looked at, a sentence each."""
    if not summary["heart_found"]:
        return [f"{volumes.NO_HEART[:1].upper()}{volumes.NO_HEART[1:]}"]
    return [f"Look at {doubts.describe(summary['doubts'])}."] if summary["doubts"] else []


def _is_dicom(source: Path, reader: str) -> bool:
    if reader == reading.AUTO and source.is_dir():
        reader = reading.reader_of(source)
    return reader == "dicom" or reader == reading.AUTO and dicom.recognises(source)


def find_studies(source: Path, target: Path | None, acdc_names: bool, skip_bad_cases: bool, codes: str, series: str,
                 keep_identifiers: bool) -> list[Job]:  # fmt: skip
    """As `find_jobs`, of DICOM: the short-axis cine of each study, or the one to which `series` belongs.

    Of a single study all that is wrong is told, and nothing of how many cases there are. Without a target the labels of one study lie
    beside `source`, those of several in studies_seg there: the names of folders and files are often those of patients.
    """
    if acdc_names:
        raise UserError(f"--acdc_names needs a cohort in ACDC's layout: --input={source} holds DICOM.")
    if target and target.resolve().is_relative_to(source.resolve()):
        raise UserError(f"--output={target} lies in --input={source}: choose another place.")
    cases = [case for _, case in dicom.find_cases(source, series)]
    if not cases:
        raise UserError(f"--input={source} holds no MR images in DICOM: name the folder of a study or of a series.")
    studies = sum(case.name.startswith(dicom.STUDY) for case in cases)
    target = target or source.resolve().parent / ("" if studies == 1 else "studies_seg")
    is_file = target.name.endswith(_SUFFIXES)
    if is_file and studies > 1:
        raise UserError(f"--output={target} must be a folder, as --input={source} holds {studies} studies.")
    if studies == 1 and not skip_bad_cases:
        if problems := [problem for case in cases for problem in reading.examine(case, with_labels=False, codes=codes).problems]:
            raise BadData(problems)
        sound = {case.name for case in cases}
    else:
        sound, _ = cohort.screen(cases, lambda case: bool(reading.read(case, with_labels=False, codes=codes)), skip_bad_cases)
    jobs = []
    for case in cases:
        if case.name in sound:
            patient = identity.read(case.stack.paths[0]) if keep_identifiers else None
            name = f"{identity.file_name(patient)}_{case.name}" if patient else case.name
            jobs.append(Job(case.cine, target if is_file else target / f"{name}_seg.nii.gz", dataclasses.replace(case, name=name), patient))
    return jobs


def segment(segmenter: Segmenter, cine: Cine, chosen: options.Options, name: str) -> np.ndarray:
    """Labels (t, s, h, w) uint8 of a cine's frames, with a progress bar called `name`; none of a frame that shows nothing."""
    data, frames = segmenter.config.data, cine.frames
    seen = dict(window=chosen.seen_through(data), cyclic=data.cyclic)
    with Progress(len(frames), unit=f"{name} frame") as progress:
        labels = segmenter.segment_cine(frames, cine.spacing, done=lambda t: progress.update(t + 1), **seen)
    labels[cine.empty] = 0
    return np.stack([largest_components(frame) for frame in labels]) if chosen.largest_component else labels


def save_cine(job: Job, cine: Cine, labels: np.ndarray, remarks: list[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Writes the labels and what follows from them, prints the summary, and returns the volume curves and the summary."""
    save_labels(job.target, cine.turn.back(labels), cine.header)
    nominal = job.case.nominal_spacing
    curves, seconds = volumes.curves(labels, cine), volumes.frame_seconds(cine.header)
    volumes.save_csv(job.beside("_volumes.csv"), curves, seconds, "nominal_ml" if nominal else "ml")
    signs = doubts.of_cine(labels, cine.spacing)
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
    write_json(job.beside(_SUMMARY), summary | known | ({"patient": job.patient} if job.patient else {}))
    print(f"{job.target}: {volumes.describe(summary)}")
    if signs and summary["heart_found"]:
        print(f"note: {job.source}: look at {doubts.describe(signs)}.", file=sys.stderr)

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
        path = _phase_file(job, phase)
        save_labels(path, cine.turn.back(labels[time : time + 1]), header)
        print(path)


def _phase_file(job: Job, phase: str) -> Path:
    return job.target.with_name(f"{job.case.name}_{phase}.nii.gz")
