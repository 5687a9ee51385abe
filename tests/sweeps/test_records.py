"""A sweep's folder says the same in either form: a folder a run, or a few files for all of them."""

import dataclasses
import json

import pytest
from made_up import HALF, fail, fill, finish, fixture_quick, plan  # noqa: F401

from ica_unet_jax.errors import UserError
from ica_unet_jax.sweeps import records, tables


@pytest.fixture
def folder(tmp_path):
    """A sweep with something of everything, a learning curve among it."""
    folder = fill(tmp_path / "sweep")
    lines = [dict(step=1, loss=1 / 3, seconds_per_step=9.0, compiled=True), dict(step=2, dice_RV=0.25, dice_mean=float("nan"))]
    run = folder / "cells" / "ref" / "seed0_fold0"
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "provenance.json").write_text(json.dumps(dict(commit="abc", python="3.11", versions=dict(jax="1.0", numpy="2.0"), cores=2, machine="x86")))
    finish(folder, "ref", {"A": [HALF]}, seed=7, nsd={"A": [HALF]}, places={"A": [{"dice_apex_RV": 0.25}]})  # not planned: kept too, with the columns of a later version
    return folder


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def known(folder):
    """What there is to know of the runs, wherever it lies."""
    return {key: dataclasses.replace(record, place=folder) for key, record in records.read(folder).items()}


def test_a_compacted_folder_says_the_same(folder):
    before, peers = known(folder), records.peers(folder)
    tables.write_all(folder)
    pages = {path: text for path, text in contents(folder).items() if len(path.parts) == 1 and path.name != "sweep.json"}
    records.compact(folder)
    assert known(folder) == before and records.peers(folder) == peers and len(before) == 8 and len(peers) == 2
    assert not (folder / "cells").exists() and not (folder / "peers").exists()
    tables.write_all(folder)
    assert {path: contents(folder)[path] for path in pages} == pages
    assert before["ref", 0, 0].facts["versions"] == "jax=1.0 numpy=2.0" and before["c3", 1, 1].facts["message"] == "the loss is nan"
    assert {frozenset(line) & {"nsd_LV"} for line in before["ref", 0, 0].figures["cases"]} == {frozenset()}


def test_the_files_of_a_compacted_folder(folder):
    records.compact(folder)
    assert {path.name for path in folder.iterdir()} == {"sweep.json", *(f"{name}.csv" for name in records.FILES)}
    curve = (folder / "curves.csv").read_text().splitlines()
    assert curve == ["cell,seed,fold,step,loss,dice_RV,dice_mean", "ref,0,0,1,0.333333,,", "ref,0,0,2,,0.25,nan"]
    plan = json.loads((folder / "sweep.json").read_text())
    assert len(plan["configs"]) == 3 and {config["bases"] for config in plan["configs"].values()} == {4, 8, 16}
    assert not any({"seed", "fold"} & set(config) for config in plan["configs"].values())


def test_twice_is_once(folder):
    records.compact(folder)
    before = contents(folder)
    records.compact(folder)
    assert contents(folder) == before


def test_a_kill_before_the_folders_are_gone_costs_nothing(folder, monkeypatch):
    before = known(folder)
    with monkeypatch.context() as patch:
        patch.setattr(records.shutil, "rmtree", lambda *_, **__: None)
        records.compact(folder)
    assert (folder / "cells").is_dir() and known(folder) == before
    records.compact(folder)
    assert known(folder) == before


def test_a_compacted_sweep_goes_on(folder):
    """A crash that was made good and a run that was missing lie in cells/, and are the later."""
    fail(folder, "c3", "crashed", "no memory", 3, seed=0, fold=0)
    records.compact(folder)
    finish(folder, "c3", {"A": [HALF]}, seed=0)
    finish(folder, "ref", {"A": [HALF]}, seed=8)
    assert records.find(folder, ("c3", 0, 0)).facts["status"] == "done"
    assert records.find(folder, ("c3", 1, 1)).facts["status"] == "diverged" and records.find(folder, ("c3", 2, 2)) is None
    before = known(folder)
    assert len(before) == 10 and before["c3", 0, 0].facts["status"] == "done"
    records.compact(folder)
    assert known(folder) == before


@pytest.mark.parametrize("file, old, new, told", [
    ("runs.csv", "done", "won", "has a run with the status won: bring it back"),
    ("sweep.json", "configs", "settings", r"runs\.csv and the files beside it do not go together"),
    ("cases.csv", "A_0,", "", r"cases\.csv is damaged"),
    ("curves.csv", "0.75", "none", r"curves\.csv, or metrics\.jsonl of a cell, is damaged"),
    ("cases.csv", "ref,0,0,", "ref,0,9,", r"cases\.csv has no line of ref, seed 0, fold 0"),
])  # fmt: skip
def test_damage_is_named(tmp_path, file, old, new, told):
    plan(tmp_path, labels=())
    finish(tmp_path, "ref", {"A_0": [HALF]})
    (tmp_path / "cells" / "ref" / "seed0_fold0" / "metrics.jsonl").write_text('{"step": 400, "dice_mean": 0.75}\n')
    records.compact(tmp_path)
    path = tmp_path / file
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match=told):
        tables.write_all(tmp_path)
