"""Which runs a sweep consists of, and what `sweep.json` says of them."""

from pathlib import Path

import pytest

from ica_unet_jax.config import Config
from ica_unet_jax.errors import UserError
from ica_unet_jax.sweeps.plan import ROOT, Sweep, joined, portable
from ica_unet_jax.sweeps.study import Study

BASE = Config.make(model="unet2d", crop=(2, 32, 32), unet_width=1)
STUDY = Study("trial", "Does anything matter?", "2", [("more decay", dict(weight_decay=0.1))])
OTHER = Study("other", "Does the rest?", "2", [("less decay", dict(weight_decay=0.0))])


def sweep(folds=5, only=(), seeds=1, studies=(STUDY,), **changes):
    return Sweep(Path("any"), BASE.replace(**changes), studies, folds, only, seeds)


def test_fold_k_has_seed_k_and_no_two_folds_share_one():
    assert sweep().blocks() == [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4)]
    assert sweep(only=(3, 0), seed=10).blocks() == [(10, 0), (13, 3)]
    further = sweep(3, seeds=3).blocks()
    assert further[3:] == [(3, 0), (4, 1), (5, 2), (6, 0), (7, 1), (8, 2)]
    assert len({seed for seed, _ in further}) == 9
    assert sweep(3, (1,), seeds=3).blocks() == [(1, 1), (4, 1), (7, 1)]


def test_one_split_has_seeds_alone():
    assert sweep(1, seeds=3).blocks() == [(0, 0), (1, 0), (2, 0)]
    assert sweep(1, fold=2).blocks() == [(0, 2)]
    assert {run.config.data.folds for run in sweep(1).runs()} == {3}


def test_every_run_has_its_seed_and_fold_and_cells_do_not_depend_on_them():
    runs = list(sweep(only=(0, 2), seeds=2).runs())
    assert [run.name for run in runs[::2]] == ["seed0_fold0", "seed2_fold2", "seed5_fold0", "seed7_fold2"]
    assert all(run.config.data.folds == 5 for run in runs)
    assert {run.cell for run in runs} == set(sweep(only=(3,)).cells())
    assert [*sweep().titles().values()] == ["reference", "more decay"]


@pytest.mark.parametrize("folds, only, told", [(5, (1, 7), "--only_folds=7 with --folds=5: folds are 0 to 4"), (1, (1,), "the one split is 0")])
def test_a_fold_that_there_is_not(folds, only, told):
    with pytest.raises(UserError, match=told):
        sweep(folds, only)


def test_the_description_names_every_run():
    found = sweep(only=(0, 2), seeds=2).description()
    assert found["runs"] == found["studies"][0]["runs"] == [[0, 0], [2, 2], [5, 0], [7, 2]]
    assert (found["seeds"], found["folds"], found["fold_count"]) == ([0, 2, 5, 7], [0, 2], 5)
    assert [cell["title"] for cell in found["studies"][0]["cells"]] == ["reference", "more decay"]
    assert [cell["label"] for cell in found["studies"][0]["cells"]] == ["reference", "weight_decay=0.1"]


def test_a_second_command_adds_to_a_folder():
    old = sweep(only=(0, 1), studies=(STUDY, OTHER)).description()
    both = joined(old, sweep(only=(2,), studies=(OTHER,)).description(), Path("any"))
    assert {study["name"]: study["runs"] for study in both["studies"]} == {"trial": [[0, 0], [1, 1]], "other": [[0, 0], [1, 1], [2, 2]]}
    assert both["runs"] == [[0, 0], [1, 1], [2, 2]] and both["folds"] == [0, 1, 2]
    kept = joined(old | {"configs": {"a": {}}, "splits": {}}, sweep(only=(2,)).description(), Path("any"))
    assert (kept["configs"], kept["splits"]) == ({"a": {}}, {})  # of a compacted sweep
    changed = joined(old, sweep(only=(2,), studies=(OTHER,), steps=7).description(), Path("any"))
    assert changed["studies"][1]["runs"] == [[2, 2]]  # its cells are others


def test_a_folder_of_an_earlier_version():
    study = {"name": "trial", "reference": "a", "cells": []}
    old = {"seeds": [0, 1], "folds": [0, 1, 2], "studies": [study]}
    found = joined(old, sweep(3, (0,), studies=(OTHER,)).description(), Path("any"))
    assert found["studies"][0]["runs"] == [[seed, fold] for seed in (0, 1) for fold in (0, 1, 2)]
    with pytest.raises(UserError, match="holds a sweep of other folds \\(--folds=3\\)"):
        joined(old, sweep(5).description(), Path("any"))


def test_a_command_names_no_folder_of_this_machine():
    told = ("--data_dir=/somewhere/acdc100", f"{ROOT}/ablations/run_all.py", "--workdir=runs/a", "--steps=3", f"--flagfile={ROOT}/launch/acdc.flags", "/elsewhere/b")
    assert [*map(portable, told)] == ["--data_dir=acdc100", "ablations/run_all.py", "--workdir=runs/a", "--steps=3", "--flagfile=launch/acdc.flags", "b"]
