"""A cohort as nnU-Net's raw data, for training a rival on the same split: its labelled frames, one case each, and its folds."""

from __future__ import annotations

import dataclasses
import json
import secrets
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from ica_unet_jax.config import DataConfig
from ica_unet_jax.data import cohort, reading, saving, splits
from ica_unet_jax.data.case import Case
from ica_unet_jax.errors import UserError
from ica_unet_jax.labels import STRUCTURES
from ica_unet_jax.runtime.files import write_text, writing


def to_nnunet(config: DataConfig, out: str | Path) -> dict[str, int]:
    """Writes imagesTr, labelsTr, imagesTs, labelsTs, dataset.json and splits_final.json into the new folder `out`.

    Each labelled frame is NAME_frameNN, as float32, labels 1 RV, 2 myocardium, 3 LV, with the geometry of its file. The folds are those
    by which `config` splits; into imagesTs goes the split's "test", or else the published test set. Patients without a ground truth, or in no part,
    are left out; the latter are told on stderr. Returns how many frames are in each part.

    Raises:
      UserError: the folder exists or cannot be written, or the data are none, or have no ground truth.
      BadData: all that is wrong with the cases, unless they are to be left out.
    """
    out = Path(out)
    if out.exists():
        raise UserError(f"--out={out} exists already: name a new folder, as Dataset027_ACDC.")
    cases = cohort.open_cohort(config)
    if not any(case.perhaps_labelled for case in cases):
        raise UserError(f"--data_dir={config.data_dir} holds no ground truth, so that there is nothing to write; name labelled data.")
    folds = folds_of(config, cases)
    ending = {case.name: "Ts" for case in cases if case.name in folds[0].get("test", ()) or "test" not in folds[0] and splits.is_test(case)}
    ending |= {name: "Tr" for split in folds for part in ("train", "val") for name in split[part]}
    if rest := [case.name for case in cases if case.labelled and case.name not in ending]:
        print(f"note: in no part of the split, and not written: {', '.join(rest)}", file=sys.stderr)
    temporary = out.resolve().with_name(f".writing-{secrets.token_hex(8)}")
    try:
        names, _ = cohort.screen([case for case in cases if case.perhaps_labelled and case.name in ending], lambda case: _write(case, config, temporary, ending[case.name]), config.skip_bad_cases)
        counts = {part: sum(len(frames) for name, frames in names.items() if ending[name] == part) for part in ("Tr", "Ts")}
        listed = [{part: [frame for name in split[part] for frame in names.get(name, ())] for part in ("train", "val")} for split in folds]
        about = {
            "channel_names": {"0": "cineMRI"},
            "labels": {"background": 0, **STRUCTURES},
            "numTraining": counts["Tr"],
            "file_ending": ".nii.gz",
        }
        write_text(temporary / "splits_final.json", json.dumps(listed, indent=1) + "\n")
        write_text(temporary / "dataset.json", json.dumps(about, indent=1) + "\n")
        with writing(out):
            temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return counts


def folds_of(config: DataConfig, cases: list[Case]) -> Sequence[splits.Split]:
    """All folds by which `config` splits, one where it names a split without folds."""
    if config.split_by == splits.NONE and not config.split_file:
        raise UserError(f"--split_by={splits.NONE}: nnU-Net wants somebody to validate on; leave it out.")
    if config.split_file or config.split_by != splits.FOLDS:
        return [cohort.choose_split(config, cases)]
    count = min((len(case.folds) for case in cases if case.folds), default=config.folds)
    return [cohort.choose_split(dataclasses.replace(config, fold=fold), cases) for fold in range(count)]


def _write(case: Case, config: DataConfig, folder: Path, ending: str) -> list[str]:
    """Writes the labelled frames of a case; their names. Raises BadData."""
    cine = reading.read(case, config.label_map)
    names, frame = [], cine.header.copy()
    frame.set_data_shape(frame.get_data_shape()[:3])
    for time, labels in sorted(cine.labels.items()):
        names.append(f"{case.name}_frame{time + 1:02d}")
        saving.save_frame(folder / f"images{ending}" / f"{names[-1]}_0000.nii.gz", cine.frame(time), frame)
        saving.save_labels(folder / f"labels{ending}" / f"{names[-1]}.nii.gz", labels[None], frame)
    return names
