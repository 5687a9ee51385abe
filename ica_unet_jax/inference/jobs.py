"""What is to be segmented, and where its labels go: NIfTI files, folders of them, and studies in DICOM."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from ica_unet_jax.data import cohort, reading
from ica_unet_jax.data.case import Case, Examination
from ica_unet_jax.data.dicom import identity
from ica_unet_jax.data.nifti import SUFFIX, stem
from ica_unet_jax.data.readers import dicom
from ica_unet_jax.errors import BadData, UserError
from ica_unet_jax.inference import parts

SUMMARY = "_summary.json"
_SUFFIXES = (".nii.gz", ".nii")


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

    def phase_file(self, phase: str) -> Path:
        """That of the labels of ED or ES alone, by ACDC's name."""
        return self.target.with_name(f"{self.case.name}_{phase}.nii.gz")


def is_finished(job: Job, acdc_names: bool, report: bool) -> bool:
    """Whether all that is written of a job is there and newer than its image; the summary, which is written late, speaks for what has no picture."""
    outputs = [job.target, job.beside(SUMMARY), *([job.beside("_report.html")] if report else [])]
    if acdc_names:
        outputs = [job.phase_file(phase) for phase in ("ED", "ES")]
    return parts.are_newer(outputs, [job.source])


def beside(source: Path) -> Path:
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


def is_dicom(source: Path, reader: str) -> bool:
    """Whether `source` is or holds DICOM, or is to be read as that."""
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
