"""Segments cines with a trained network.

  python -m ica_unet_jax.predict --workdir=RUN --input=cine.nii.gz --output=labels.nii.gz
  python -m ica_unet_jax.predict --workdir=RUN --input=FOLDER --output=FOLDER
  python -m ica_unet_jax.predict --workdir=RUN --input=STUDY --output=labels.nii.gz --report
  python -m ica_unet_jax.predict --workdir=RUN --input=FOLDER --output=FOLDER --part=3/20 --resume

Beside the labels: volumes (CSV, PNG) and, for a cine, the ejection fractions (JSON); for a study in DICOM the labels as DICOM SEG; for
a folder a table of all cases, cohort.csv.
"""

from __future__ import annotations

from absl import flags

from ica_unet_jax import launcher
from ica_unet_jax.inference import options

options.define_network()
_INPUT = flags.DEFINE_string(
    "input", None, "3D or 4D NIfTI file, a folder of them, a cohort in one of the layouts of docs/data.md, or a study in DICOM.", required=True
)
_OUTPUT = flags.DEFINE_string("output", "", "NIfTI file to write, or a folder where --input is one; empty: INPUT_seg beside the input, of DICOM study_..._seg.")
options.define(options.PREDICT)
_ACDC_NAMES = flags.DEFINE_bool(
    "acdc_names", False, "Write patientXXX_ED.nii.gz and _ES.nii.gz alone, as ACDC wants a submission."
)
_REPORT = flags.DEFINE_bool("report", False, "Write a page for each case too, a HTML file with masks, curves and figures.")
_SERIES = flags.DEFINE_string("series", "", "Of DICOM: number or UID of a series of the cine to take, where there are several or none is found.")
_KEEP = flags.DEFINE_bool("keep_identifiers", False, "Of DICOM: keep number, name and birth date of the patient in names of files, JSON and report.")
_PART = flags.DEFINE_string("part", "", "Of a folder: segment one of several parts alone, as 3/20, the third of twenty; for the jobs of a cluster.")
_RESUME = flags.DEFINE_bool("resume", False, "Leave out cases that are finished: their files are there, and newer than their images. For the same network and flags.")
launcher.define(["skip_bad_cases"])


def main() -> None:
    from ica_unet_jax.inference import prediction

    prediction.predict(
        options.network(),
        _INPUT.value,
        _OUTPUT.value,
        acdc_names=_ACDC_NAMES.value,
        skip_bad_cases=launcher.FLAGS.skip_bad_cases,
        report=_REPORT.value,
        series=_SERIES.value,
        keep_identifiers=_KEEP.value,
        part=_PART.value,
        resume=_RESUME.value,
        **options.given(options.PREDICT),
    )


if __name__ == "__main__":
    launcher.run(main)
