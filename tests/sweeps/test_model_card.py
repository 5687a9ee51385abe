"""The sentences of the model card and of the table of levers say what their rows hold."""

import json

import pytest

from ablations import levers, model_card, search
from ica_unet_jax.evaluation import robustness
from ica_unet_jax.evaluation.corruptions import CORRUPTIONS
from ica_unet_jax.labels import STRUCTURES
from ica_unet_jax.metrics import cases
from ica_unet_jax.metrics.doubts import SIGNS


def seen(**lost):
    """One frame of Dice .9 as it is, which loses so much by each of the corruptions (0 if not named)."""
    rows = []
    for name in (robustness.UPRIGHT, *CORRUPTIONS):
        dice = {f"dice_{s}": 0.9 - lost.get(name, 0.0) for s in STRUCTURES} | {f"whole_{s}": 0.9 for s in STRUCTURES}
        rows.append(dict(corruption=name, patient="p", frame=1) | dice | dict.fromkeys(SIGNS, 0.0))
    return rows


def judged(dice):
    """A row of an evaluation."""
    about = dict(patient="p", group="", frame=1, phase="ED", nominal_spacing=False, labelled_voxels=9, labelled_outside=0)
    return dict.fromkeys(cases.COLUMNS, 1.0) | {f"dice_{s}": dice for s in STRUCTURES} | about


def test_losses_beyond_the_limits_are_named():
    within = model_card.corruptions(seen(**{"one slice": 0.029, "turned by 90 degrees": 0.019}))
    assert within.count("None loses more than") == 2 and "the worst, one slice, changes the mean Dice by -0.029" in within
    beyond = model_card.corruptions(seen(**{"one slice": 0.031, "turned by 90 degrees": 0.021}))
    assert "More than 0.02 is lost by: turned by 90 degrees (-0.021)." in beyond and "More than 0.03 is lost by: one slice (-0.031)." in beyond


def test_the_first_screen_says_the_worst_orientation():
    found = model_card.short([judged(0.9)], seen(**{"turned by 90 degrees": 0.021, "one slice": 0.3}), [judged(0.7)])
    assert "mean Dice of 0.900 on the other 1;" in found and "at most 0.021 less" in found and "never saw, 0.700" in found


@pytest.mark.parametrize("device, told", [("cpu", "CPU"), ("NVIDIA H200", "H200")])
def test_levers_tell_where_each_was_trained(tmp_path, device, told):
    cell = dict(cell="reference-0", title="reference", parameters=1_000_000, gflop=2.0)
    (tmp_path / "sweep.json").write_text(json.dumps({"studies": [{"cells": [cell]}]}))
    run = tmp_path / "cells" / "reference-0" / "seed0_fold4"
    run.mkdir(parents=True)
    cases.write_cases_csv(run / "cases.csv", [judged(0.5)])
    (run / "timing.json").write_text('{"steps": 7}')
    (run / "provenance.json").write_text(json.dumps({"device": device}))
    assert f"| {levers.REFERENCE} | 7 | 0.500 | {told} | 0.500 |" in levers.table(tmp_path)


def test_the_search_is_judged_by_where_the_best_window_lies():
    """Another organ, larger than a heart and less sure, wins where voxels are counted, and loses where sureness weighs."""
    window = dict(network="1", patient="p")
    rows = [
        window | dict(apart=0.1, RV=2622.0, MYO=2284.0, LV=2987.0, unsure=0.228),
        window | dict(apart=0.9, RV=4801.0, MYO=13480.0, LV=25383.0, unsure=0.461),
    ]
    told = [line.split(" | ")[2] for line in search.table(rows).splitlines()[2:]]
    assert told[0] == "1 of 1" and told[-2:] == ["0 of 1", "0 of 1"]
