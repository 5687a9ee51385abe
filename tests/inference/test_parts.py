"""A cohort in parts is the cohort."""

import csv
import os

import pytest

from ica_unet_jax.errors import UserError
from ica_unet_jax.inference import jobs, parts, prediction


@pytest.mark.parametrize("count", [1, 3, 7])
def test_each_case_is_in_one_part(count):
    cases = list("abcdef")
    found = [parts.of(cases, f"{number}/{count}") for number in range(1, count + 1)]
    assert sorted(case for part in found for case in part) == cases and parts.of(cases, "") == cases
    assert max(map(len, found)) - min(map(len, found)) <= 1


@pytest.mark.parametrize("part", ["0/3", "4/3", "3", "a/b", "1/0", "-1/3"])
def test_what_is_no_part(part):
    with pytest.raises(UserError, match=f"--part={part} is no part: write --part=3/20"):
        parts.of([], part)


@pytest.fixture
def loaded_once(monkeypatch):
    """The network is compiled at the first prediction."""
    load, found = prediction.segmenters.load_as, []
    monkeypatch.setattr(prediction.segmenters, "load_as", lambda *given: found[0] if found else found.append(load(*given)) or found[0])


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_parts_and_one_command_for_the_rest_are_the_whole(tiny_run, cohort, tmp_path, capsys, loaded_once):
    """One of three parts was never run, one was killed in its only case, and a fourth patient's cine came anew."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    prediction.predict(tiny_run, cohort, whole)
    for part in ("1/3", "2/3"):
        prediction.predict(tiny_run, cohort, out, part=part)
    assert {name[:10] for name in files(out)} == {"patient001", "patient002", "patient004"}
    (out / "patient002_seg_summary.json").unlink()  # the last that is written
    os.utime(out / "patient004_seg.nii.gz", (0, 0))
    capsys.readouterr()
    prediction.predict(tiny_run, cohort, out, resume=True)
    lines = capsys.readouterr().out.splitlines()
    assert [name in line for name, line in zip(("patient002", "patient003", "patient004"), lines, strict=True)] == [True] * 3
    assert files(out) == files(whole)
    before = {path: path.stat().st_mtime_ns for path in out.glob("*_seg*")}
    prediction.predict(tiny_run, cohort, out, resume=True)
    assert "nothing is left to segment" in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in out.glob("*_seg*")}


def test_a_bad_case_ends_the_part_that_it_is_in(tiny_run, cohort, tmp_path):
    dirty = tmp_path / "dirty"
    for patient in cohort.iterdir():
        (dirty / patient.name).mkdir(parents=True)
        for file in patient.iterdir():
            (dirty / patient.name / file.name).write_bytes(file.read_bytes()[: 50 if patient.name == "patient002" else None])
    assert [job.case.name for job in jobs.find_jobs(dirty, tmp_path / "out", part="1/2")] == ["patient001", "patient003"]
    with pytest.raises(UserError, match="patient002"):
        jobs.find_jobs(dirty, tmp_path / "out", part="2/2")


def test_the_table_has_what_the_summaries_tell(tiny_run, cohort, tmp_path):
    prediction.predict(tiny_run, cohort, tmp_path)
    with (tmp_path / parts.TABLE).open() as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == [f"patient00{number}" for number in range(1, 5)]
    for row in rows:
        with (tmp_path / f"{row['case']}_seg_volumes.csv").open() as file:
            frames = list(csv.DictReader(file))
        if row["ed_frame"]:
            ed, es = (float(frames[int(row[f"{phase}_frame"]) - 1]["LV_ml"]) for phase in ("ed", "es"))
            assert float(row["LV_ed_ml"]) == pytest.approx(ed) and float(row["LV_ef"]) == pytest.approx((ed - es) / ed, abs=1e-4)
    (tmp_path / "patient001_seg_summary.json").write_text("{}")
    with pytest.raises(UserError, match="patient001_seg_summary.json cannot be read .* remove it"):
        parts.write_table(tmp_path, "_seg_summary.json")


def test_a_part_needs_a_folder(tiny_run, cohort, tmp_path):
    with pytest.raises(UserError, match="--part=1/2 needs a folder"):
        prediction.predict(tiny_run, cohort / "patient001" / "patient001_4d.nii.gz", tmp_path / "a.nii.gz", part="1/2")
