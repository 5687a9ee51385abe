"""A sweep's folder with made-up figures, and readers of what the tables make of it."""

import csv
import json
import re

import pytest

from ica_unet_jax.labels import STRUCTURES
from ica_unet_jax.metrics import cases
from ica_unet_jax.sweeps import results, tables

CONFIG = dict(crop=[4, 64, 64], contracting_blocks=3, spacing=1.5, bases=4, sparsity_weight=1.0)
TEN = [f"patient{i:03d}" for i in range(10)]
HALF = (0.5, 0.5, 0.5)


@pytest.fixture(name="pictures")
def fixture_pictures():
    """Asked for by the tests that need them."""


@pytest.fixture(name="quick", autouse=True)
def fixture_quick(request, monkeypatch):
    """Without the pictures, which take most of the time."""
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr(tables.plots, "differences", lambda path, analysis: path.write_bytes(b""))


def plan(folder, labels=("a=1",), seeds=(0,), folds=(0,), runs=None, name="trial", **studies):
    """sweep.json with the reference and a cell for each label, named c1, c2, …; further studies by name.

    With runs, (seed, fold) each, as it is written now; without, every seed with every fold, as in earlier versions.
    """
    cells = [dict(cell="ref", label="reference", parameters=1_500_000, gflop=2.0)]
    cells += [dict(cell=f"c{i}", label=text, parameters=3_000_000, gflop=4.0) for i, text in enumerate(labels, start=1)]
    study = dict(name=name, question="Does it help?", section="3", reference="ref", cells=cells)
    more = [study | dict(name=other, cells=[cells[i] for i in chosen]) for other, chosen in studies.items()]
    sweep = dict(command="python ablations/run_all.py --data_dir=a/hearts", commit="abc1234", hardware={"cores": 2})
    which = dict(seeds=seeds, folds=folds) if runs is None else dict(runs=runs)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sweep.json").write_text(json.dumps(sweep | which | dict(studies=[study, *more])))
    return folder


def planned(folder, name, titles, runs=((0, 0), (1, 1))):
    """As `plan`: a study of cells so titled, the reference first, by default in two folds."""
    plan(folder, [f"bases={i}" for i in range(2, 1 + len(titles))], runs=runs, name=name)
    described = json.loads((folder / "sweep.json").read_text())
    for cell, title in zip(described["studies"][0]["cells"], titles, strict=True):
        cell["title"] = title
    (folder / "sweep.json").write_text(json.dumps(described))


def finish(folder, cell, dice, seed=0, fold=0, *, hd95=None, nsd=None, ica=None, split=None, version=1, nominal=(), commit="", frame_ms=None, places=None, **config):  # fmt: skip
    """A run that is done.

    places: {patient: [{column: Dice} of each frame]}.
    dice, hd95, nsd: {patient: [(RV, MYO, LV) of each frame]}; ica: {patient: [a figure a frame]}, or with names a figure each.
    """
    run = folder / "cells" / cell / f"seed{seed}_fold{fold}"
    run.mkdir(parents=True)
    rows = []
    for patient, frames in dice.items():
        for i, values in enumerate(frames):
            distances = hd95[patient][i] if hd95 else (2.0, 2.0, 2.0)
            row = dict(patient=patient, frame=i + 1, nominal_spacing=int(patient in nominal))
            for name, overlap, distance in zip(STRUCTURES, values, distances, strict=True):
                row |= {f"dice_{name}": overlap, f"hd95_mm_{name}": distance}
            if nsd:
                row |= {f"nsd_{name}": value for name, value in zip(STRUCTURES, nsd[patient][i], strict=True)}
            rows.append(row)
    write_csv(run / "cases.csv", [name for name in cases.COLUMNS if nsd or name not in cases.LATER], rows)
    if places:
        lines = [dict(patient=patient, frame=i + 1) | values for patient, frames in places.items() for i, values in enumerate(frames)]
        write_csv(run / "places.csv", list(dict.fromkeys(name for line in lines for name in line)), lines)
    if ica:
        write_ica(run / "ica.csv", ica)
    (run / "config.json").write_text(json.dumps(CONFIG | dict(seed=seed, fold=fold) | config))
    (run / "split.json").write_text(json.dumps(split or {"train": ["x", "y"], "val": list(dice)}))
    times = dict(seconds_per_step=0.5, compile_seconds=20.0, training_seconds=1000.0 * (seed + 1))
    times |= dict(evaluation_seconds=80.0, steps=400, device="cpu", threads=1)
    times |= dict(frame_ms=frame_ms) if frame_ms else {}
    if commit:
        (run / "provenance.json").write_text(json.dumps(dict(commit=commit)))
    (run / "timing.json").write_text(json.dumps(times))
    end(run, "done", "", 400, version)


def fail(folder, cell, status, message, step, seed=0, fold=0):
    run = folder / "cells" / cell / f"seed{seed}_fold{fold}"
    run.mkdir(parents=True)
    end(run, status, message, step, 1)


def end(run, status, message, step, version):
    done = dict(status=status, message=message, step=step, metrics_version=version)
    (run / "done.json").write_text(json.dumps(done))


def write_ica(path, figures, more=()):
    """The same figure in every column, in those of earlier versions and in `more`."""
    columns = (*results.ICA, *more)
    rows = [
        dict.fromkeys(columns, value) | dict(patient=patient, frame=i + 1)
        for patient, values in figures.items()
        for i, value in enumerate(values)
    ]
    path.parent.mkdir(exist_ok=True)
    write_csv(path, ("patient", "frame", *columns), rows)


def write_csv(path, columns, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="0")
        writer.writeheader()
        writer.writerows(rows)


def markdown(folder, study="trial", table=0):
    """{title: {head: text}} of a table of a page."""
    text = (folder / f"{study}.md").read_text()
    block = re.findall(r"(?:^\|.*\n)+", text, re.M)[table].splitlines()
    heads, _, *rows = [[c.strip().replace("\\", "") for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in block]
    assert all(len(row) == len(heads) for row in rows)
    names = ["reference" if row[0].endswith("(reference)") else row[0] for row in rows]
    return {name: dict(zip(heads, row, strict=True)) for name, row in zip(names, rows, strict=True)}


def lines_of_csv(folder, study="trial"):
    with (folder / f"{study}.csv").open() as file:
        return {row["title"]: row for row in csv.DictReader(file)}


def ten(value, change=0.0, fold=0):
    """A frame of each of ten patients of a fold, whose Dice rises by 0.01 from one to the next."""
    return {f"{patient}_{fold}": [(value + change + 0.01 * i,) * 3] for i, patient in enumerate(TEN)}


def blocks(folder, cell, changes, value=0.8, **options):
    """A done run in each fold, fold k with seed k, whose Dice is changed by that much from the reference's."""
    for fold, change in enumerate(changes):
        finish(folder, cell, ten(value + 0.02 * fold, change, fold), seed=fold, fold=fold, **options)


def fill(folder, reverse=False):
    """A sweep with something of everything."""
    plan(folder, ["bases=8", "bases=16", "whiten_bases=True"], runs=[(0, 0), (1, 1)], second=[0, 1])
    runs = [(cell, fold) for cell in ("ref", "c1", "c2") for fold in (0, 1)]
    for cell, fold in reversed(runs) if reverse else runs:
        dice = ten(0.8, 0.003 * fold - 0.05 * (cell == "c1") + 0.01 / 3 * (cell == "c2"), fold)
        patients = reversed(dice) if reverse else dice
        dice = {patient: dice[patient] for patient in patients}
        ica = {patient: [values[0][0], 0.1] for patient, values in dice.items()}
        frames = {patient: values * 2 for patient, values in dice.items()}
        finish(folder, cell, frames, fold, fold, ica=ica, bases={"ref": 4, "c1": 8, "c2": 16}[cell], frame_ms=20.0)
    fail(folder, "c3", "diverged", "the loss is nan", 120, seed=1, fold=1)
    for fold in (0, 1):
        write_ica(folder / "peers" / f"fastica_m4_fold{fold}.csv", {patient: [0.9, 0.7] for patient in ten(0.8, 0.0, fold)})
    return folder


def rows(table):
    """The cells of a table in Markdown by the first of their row."""
    return {cells[0]: cells[1:] for cells in ([cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines())}
