"""Segments cines with a trained network.

  python -m ica_unet_jax.predict --workdir=RUN --input=cine.nii.gz --output=labels.nii.gz
  python -m ica_unet_jax.predict --workdir=RUN --input=FOLDER --output=FOLDER

Beside the labels: volumes (CSV, PNG) and, for a cine, the ejection fractions (JSON).
"""

from __future__ import annotations

from absl import flags

from ica_unet_jax import launcher

_WORKDIR = flags.DEFINE_string("workdir", None, "Run folder of a training.", required=True)
_INPUT = flags.DEFINE_string(
    "input", None, "3D or 4D NIfTI file, a folder of them, or a cohort in the ACDC layout.", required=True
)
_OUTPUT = flags.DEFINE_string("output", None, "NIfTI file to write, or a folder where --input is one.", required=True)
_CHECKPOINT = flags.DEFINE_enum("checkpoint", "latest", ("latest", "best"), "Latest or best on validation.")
_WINDOW = flags.DEFINE_enum(
    "window", None, ("centre", "follow"), "Where the model looks in a larger frame: at its centre, or on the heart; by default as it was trained."
)
_LARGEST = flags.DEFINE_bool(
    "largest_component", False, "Keep the largest connected component of each structure alone."
)
_MIRROR = flags.DEFINE_bool(
    "mirror", False, "Average with the three mirror images (four times the work); for runs with --flip."
)
_ACDC_NAMES = flags.DEFINE_bool(
    "acdc_names", False, "Write patientXXX_ED.nii.gz and _ES.nii.gz alone, as ACDC wants a submission."
)
_SKIP = flags.DEFINE_bool("skip_bad_cases", False, "Leave out the cases that cannot be segmented, list them, and go on.")


def main() -> None:
    from ica_unet_jax.inference import prediction

    prediction.predict(
        _WORKDIR.value,
        _INPUT.value,
        _OUTPUT.value,
        which=_CHECKPOINT.value,
        window=_WINDOW.value,
        largest_component=_LARGEST.value,
        mirror=_MIRROR.value,
        acdc_names=_ACDC_NAMES.value,
        skip_bad_cases=_SKIP.value,
    )


if __name__ == "__main__":
    launcher.run(main)
