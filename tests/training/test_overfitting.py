"""Each network can learn: two ACDC-mini patients by heart, by the commands that a user gives. Five to twenty minutes a network."""

import csv
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from places import ROOT, SHARED_DATA

from ica_unet_jax.data import reading
from ica_unet_jax.models.registry import NETWORKS

DATA = SHARED_DATA / "acdc_mini"
AUGMENTATIONS = ("rotation", "scaling", "shift", "elastic", "slice_shift", "gamma", "brightness", "noise", "drop_neighbour")
FLAGS = (
    "--crop=8,96,96 --spacing=1.65 --steps=250 --batch_size=4 --evaluate_every=250 "
    "--optimizer=adam --learning_rate=3e-3 --warmup_steps=10 --ema_decay=0.9 --nofinal_evaluation"
).split()
OWN = {"contracting_blocks": 3, "span": 3, "width_multiplier": 0.25}  # of networks that read them


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="needs ACDC-mini beside the checkout")
@pytest.mark.parametrize("name", NETWORKS)
def test_two_patients_by_heart(name, tmp_path):
    *learned, other = [case.name for case in reading.find_cases(DATA)[:3]]
    for patient in (*learned, other):
        shutil.copytree(DATA / patient, tmp_path / "three" / patient)
    (tmp_path / "split.json").write_text(json.dumps({"train": learned, "val": [other]}))
    still = [f"--{augmentation}=0" for augmentation in AUGMENTATIONS]
    own = [f"--{setting}={value}" for setting, value in OWN.items() if setting in NETWORKS[name].settings]
    split, run = f"--split_file={tmp_path / 'split.json'}", f"--workdir={tmp_path / 'run'}"
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}  # the tests compile for slow code
    for command in (["train", f"--model={name}", f"--data_dir={tmp_path / 'three'}", split, *FLAGS, *own, *still], ["evaluate", "--split=all", "--cines=0"]):
        words = [sys.executable, "-m", f"ica_unet_jax.{command[0]}", run, *command[1:]]
        subprocess.run(words, env=environment, check=True, cwd=ROOT)
    with (tmp_path / "run" / "evaluation_all" / "cases.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["patient"] in learned]
    scores = [[float(row[f"dice_{structure}"]) for structure in ("RV", "MYO", "LV")] for row in rows]
    assert len(scores) == 4 and np.mean(scores) >= 0.95, np.mean(scores, axis=0)
