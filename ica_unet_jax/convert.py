"""Writes a cohort as nnU-Net's raw data, with the same folds, so that it can be trained on exactly the same split.

  python -m ica_unet_jax.convert --data_dir=ACDC --to=nnunet --out=nnUNet_raw/Dataset027_ACDC
"""

from __future__ import annotations

from absl import flags

from ica_unet_jax import launcher

_TO = flags.DEFINE_enum("to", "nnunet", ("nnunet",), "Layout to write.")
_OUT = flags.DEFINE_string("out", None, "New folder to write into.", required=True)
launcher.define([
    "data_dir", "phantom_patients", "phantom_dir", "phantom_shape", "reader", "cohort_csv", "label_map", "labelled_frames", "skip_bad_cases",
    "folds", "split_seed", "split_by", "split_file",
])  # fmt: skip


def main() -> None:
    from ica_unet_jax.data import conversion

    counts = conversion.to_nnunet(launcher.config().data, _OUT.value)
    print(f"{counts['Tr']} frames for training and validation, {counts['Ts']} for the test in {_OUT.value}")
    print("After nnUNetv2_plan_and_preprocess, copy splits_final.json into the folder of this dataset in nnUNet_preprocessed.")


if __name__ == "__main__":
    launcher.run(main)
