import csv
import json
import shutil

import numpy as np
import pytest
from turned import turned_cohort

from ica_unet_jax.config import DataConfig
from ica_unet_jax.data import heart, reading
from ica_unet_jax.data.case import Case
from ica_unet_jax.data.phantom.beating_heart import write_cohort
from ica_unet_jax.errors import UserError
from ica_unet_jax.evaluation import judging, where_lost
from ica_unet_jax.evaluation.frames import segment
from ica_unet_jax.inference import segmenters
from ica_unet_jax.inference.options import Options
from ica_unet_jax.labels import STRUCTURES
from ica_unet_jax.metrics.faults import dice_of
from ica_unet_jax.metrics.over_time import behaviour, mean_behaviour


@pytest.fixture(scope="module")
def result(tiny_run, tmp_path_factory):
    """The folder of an evaluation of all four patients, one of them over time."""
    return judging.evaluate(tiny_run, tmp_path_factory.mktemp("evaluation") / "all", split="all", cines=1)


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


def cases_of(folder):
    with (folder / "cases.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("codes", [pytest.param("RPS", marks=pytest.mark.slow), "SLP"])
def test_turned_patients_are_judged_as_the_upright_ones(tiny_run, cohort, tmp_path, capsys, codes):
    """To the last digit with --reorient, by the letters that the run keeps of its training patients; a note without."""
    run = shutil.copytree(tiny_run, tmp_path / "run")
    (run / "orientation.json").write_text('{"codes": {"LPS": 2}, "scaled": true}')
    upright, turned = (turned_cohort(cohort, tmp_path / name, [letters] * 4) for name, letters in (("upright", "LPS"), ("turned", codes)))
    options = dict(split="all", cines=0, pictures=False)
    expected = judging.evaluate(run, tmp_path / "a", data_dir=upright, **options)
    assert "note" not in capsys.readouterr().err
    found = judging.evaluate(run, tmp_path / "b", data_dir=turned, reorient=True, **options)
    assert (found / "cases.csv").read_bytes() == (expected / "cases.csv").read_bytes()
    assert (found / "faults.csv").read_bytes() == (expected / "faults.csv").read_bytes()
    assert f"4 of 4 cases: turned to LPS, as the training patients lay (4 {codes})" in " ".join(summary_of(found)["notes"])
    if codes == "SLP":
        with pytest.raises(UserError, match="its slices do not lie along the third axis"):
            judging.evaluate(run, tmp_path / "c", data_dir=turned, **options)
    else:
        other = judging.evaluate(run, tmp_path / "c", data_dir=turned, **options)
        assert (other / "cases.csv").read_bytes() != (expected / "cases.csv").read_bytes()
        assert "they lie otherwise in the patient" in " ".join(summary_of(other)["notes"]) and "--reorient turns them" in capsys.readouterr().err


def test_a_relative_folder_of_a_run_is_told_with_the_place_that_was_meant(tiny_run, tmp_path, monkeypatch):
    place = tmp_path / "project"
    run = shutil.copytree(tiny_run, place / "runs" / "a")
    config = json.loads((run / "config.json").read_text()) | dict(workdir="runs/a", data_dir="data/hearts")
    (run / "config.json").write_text(json.dumps(config))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(UserError) as error:
        judging.evaluate(run, split="all")
    assert str(error.value).startswith(
        f"--data_dir=data/hearts ({tmp_path}/elsewhere/data/hearts), by which {place}/data/hearts was meant in the training, is not a folder"
    )


def test_a_patient_whose_only_ground_truth_is_bad_counts_as_bad(tiny_run, cohort, tmp_path):
    data = shutil.copytree(cohort, tmp_path / "data")
    for path in (data / "patient002").glob("*_gt.nii.gz"):
        path.unlink()
    (data / "patient002" / "patient002_gt.nii.gz").write_bytes(b"")
    for path in (data / "patient003").glob("*_frame*"):  # a cine alone: nothing to judge, nothing bad
        path.unlink()
    with pytest.raises(UserError, match="patient002_gt.nii.gz: a ground truth needs its frame number(.|\\n)*1 of 4 cases are bad"):
        judging.evaluate(tiny_run, tmp_path / "out", data_dir=data, split="all")


def test_every_labelled_frame_is_a_line_and_every_patient_a_picture(result):
    assert [(row["patient"], row["phase"]) for row in cases_of(result)] == [
        (f"patient00{i}", phase) for i in range(1, 5) for phase in ("ED", "ES")
    ]
    names = {path.name for path in (result / "pictures").iterdir()}
    assert names == {f"patient00{i}.png" for i in range(1, 5)} | {"patient001_volumes.png"}


def test_summary_holds_what_a_reader_needs(result, tiny_run):
    summary = summary_of(result)
    for score in ("dice", "hd95_mm", "nsd"):
        assert set(summary[score]) == {*STRUCTURES, "mean"}
    assert summary["n_cases"] == 8 and set(summary["n_missed"]) == set(STRUCTURES)
    assert summary["checkpoint_step"] == 2 and summary["split"] == "all"
    assert summary["nsd_mm"] == 2 and summary["neighbour_frames"] == "cine"
    assert summary["notes"] == ["contains training patients (2 by name)"]
    assert summary["provenance"]["training"] == json.loads((tiny_run / "provenance.json").read_text())
    over_time = summary["over_time"]["patient001"]
    assert over_time["n_frames"] == 4 and set(over_time["prediction"]) == {"roughness", "neighbour_dice"}
    table = (result / "table.md").read_text()
    assert "contains training patients" in table and "| all | both | 4 |" in table and "| patient001 | 4 |" in table
    assert "NSD RV (2 mm)" in table


def test_faults_slice_by_slice_make_the_dice_of_each_frame(result):
    faults = where_lost.read_csv(result / "faults.csv")
    for row in cases_of(result):
        own = [fault for fault in faults if (fault["patient"], fault["frame"]) == (row["patient"], int(row["frame"]))]
        for name in STRUCTURES:
            assert dice_of([fault for fault in own if fault["structure"] == name]) == pytest.approx(float(row[f"dice_{name}"]), abs=1e-5)
    limit = json.loads((result / "summary.json").read_text())["grid_dice"]
    assert limit == dict.fromkeys(STRUCTURES, 1.0)  # the cohort has the voxels of the grid
    assert where_lost.page(faults, limit) in (result / "table.md").read_text()


def test_bases_are_judged_by_what_is_read_and_compiled_already(result, tiny_run, tmp_path, monkeypatch):
    """A row for each frame, their means on the page; the network is traced once, each patient read once after the check."""
    with (result / "ica.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["patient"], row["frame"]) for row in rows] == [(row["patient"], row["frame"]) for row in cases_of(result)]
    means, names = summary_of(result)["ica"], ("cross_entropy", "weighted_sparsity", "frame_share", "hoyer", "explained_variance")
    for name in names:  # each patient has two frames
        assert means[name] == pytest.approx(np.mean([float(row[name]) for row in rows]), rel=1e-5)
    head, _, line = next(part for part in (result / "table.md").read_text().split("\n\n") if "Weighted sparsity" in part).splitlines()
    shown = dict(zip(head.split(" | "), line.split(" | "), strict=True))
    assert shown["Hoyer ↑"] == f"{means['hoyer']:.3f}" and shown["Weighted sparsity"] == f"{means['weighted_sparsity']:.4f}"

    loaded, load, reads, read = [], segmenters.load_as, [], reading.read
    monkeypatch.setattr(segmenters, "load_as", lambda *a, **k: loaded.append(load(*a, **k)) or loaded[-1])
    monkeypatch.setattr(reading, "read", lambda *a, **k: reads.append(a[0].name) or read(*a, **k))
    judging.evaluate(tiny_run, tmp_path, cines=0, pictures=False)
    assert [segmenter.traces for segmenter in loaded] == [2] and reads == ["patient003", "patient004"] * 2


def test_another_runtime_has_the_same_figures_and_the_bases_are_judged_too(result, tiny_run, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    found = judging.evaluate(tiny_run, tmp_path / "onnxruntime", split="all", cines=0, pictures=False, runtime="onnxruntime")
    assert summary_of(found)["runtime"] == "onnxruntime" and summary_of(found)["dice"] == pytest.approx(summary_of(result)["dice"], abs=1e-3)
    assert (found / "ica.csv").read_bytes() == (result / "ica.csv").read_bytes()


def test_validation_patients_are_those_of_the_run(tiny_run):
    folder = judging.evaluate(tiny_run, cines=0, largest_component=True)
    assert folder == tiny_run / "evaluation_val_largest_component"
    summary = summary_of(folder)
    assert summary["patients"] == ["patient003", "patient004"]
    assert summary["notes"] == [] and summary["over_time"] == summary["over_time_mean"] == {} and summary["largest_component"]


def test_as_many_whole_cines_as_asked_and_their_mean(tiny_run, tmp_path):
    folder = judging.evaluate(tiny_run, tmp_path / "out", split="all", cines=3, pictures=False)
    summary = summary_of(folder)
    patients, mean = summary["over_time"], summary["over_time_mean"]["prediction"]
    assert list(patients) == ["patient001", "patient002", "patient003"] and mean["n_patients"] == 3
    for measure in ("roughness", "neighbour_dice"):
        for name in STRUCTURES:
            values = [known["prediction"][measure][name] for known in patients.values()]
            defined = [value for value in values if value is not None]
            assert mean[measure][name] == (pytest.approx(np.mean(defined)) if defined else None)
            assert mean[f"{measure}_n"][name] == len(defined)
    assert mean["neighbour_dice_n"]["MYO"] == 3
    assert "| mean |" in (folder / "table.md").read_text()


def test_a_mean_over_time_leaves_out_what_is_undefined():
    flat, beating = np.full((3, 1, 1, 4), 3), np.zeros((3, 1, 1, 4), int)
    for frame, size in enumerate((4, 1, 2)):
        beating[frame, ..., :size] = 3
    one, other = behaviour(flat, None, (1, 1, 1)), behaviour(beating, flat, (1, 1, 1))
    mean = mean_behaviour([one, other])
    assert one["prediction"]["roughness"]["LV"] is None and "truth" not in one
    assert mean["prediction"]["roughness"]["LV"] == pytest.approx(4 / 3) and mean["prediction"]["roughness_n"]["LV"] == 1
    assert mean["prediction"]["neighbour_dice"]["LV"] == pytest.approx((1 + (2 / 5 + 2 / 3) / 2) / 2)
    assert mean["truth"]["n_patients"] == 1 and mean["truth"]["roughness"]["LV"] is None
    assert mean_behaviour([]) == {}


def test_what_was_asked_for_is_in_the_folders_name_and_in_the_notes(tiny_run):
    folder = judging.evaluate(tiny_run, cines=0, pictures=False, neighbour_frames="itself", nsd_mm=1)
    assert folder == tiny_run / "evaluation_val_itself_nsd_1mm"
    summary = summary_of(folder)
    assert summary["neighbour_frames"] == "itself" and summary["nsd_mm"] == 1 and "own neighbour" in summary["notes"][0]
    with pytest.raises(UserError, match="--neighbour_frames=past is not known: choose one of cine, itself"):
        judging.evaluate(tiny_run, neighbour_frames="past")


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Frames larger than the network's window of 96 mm."""
    folder = tmp_path_factory.mktemp("large") / "phantom"
    write_cohort(folder, patients=2, shape=(2, 96, 104), frames=3)
    return folder


@pytest.mark.parametrize("window", ["centre", "follow", "oracle"])
def test_voxels_that_the_window_missed_are_counted(tiny_run, large, tmp_path, window):
    folder = judging.evaluate(tiny_run, tmp_path / "out", data_dir=large, split="all", window=window, cines=1, pictures=False)
    summary, segmenter = summary_of(folder), segmenters.load(tiny_run)
    assert summary["window"] == window and f"window ({window})" in (folder / "table.md").read_text()
    assert any("ground truth" in note for note in summary["notes"]) == (window == "oracle")
    missed = 0
    for number, case in enumerate(reading.find_cases(large)):
        cine = reading.read(case)
        labels, placements = segment(segmenter, cine, cine.times if number == 0 else sorted(cine.labels), Options(window=window))
        for time, placement in placements.items():
            assert not labels[time][~placement.inside].any()
            assert placement.offset == (0, 0) or window != "centre"
            missed += np.count_nonzero(cine.labels[time][~placement.inside]) if time in cine.labels else 0
        if window == "oracle":
            centre = heart.middle(np.stack(list(cine.labels.values())), placement)
            assert set(placements.values()) == {placement.at(*centre)}
    assert summary["labelled_voxels_outside"] == missed


def test_the_best_checkpoint_is_marked():
    split = {"train": ["a"], "val": ["b"]}
    assert "chosen on the validation" in judging.notes(split, [Case("b")], "val", Options(checkpoint="best"))[0]
    assert judging.notes(split, [Case("b")], "val") == []


def test_another_cohort_needs_split_all(cohort, tmp_path):
    shutil.copytree(cohort / "patient001", tmp_path / "somebody")
    split, data = {"train": ["patient001"], "val": ["patient002"]}, DataConfig(data_dir=str(tmp_path))
    with pytest.raises(UserError, match="--split=val of this run names 1 of 1 patients .* or --split=all"):
        judging.choose_cases(split, data, "val")
    with pytest.raises(UserError, match="--split=test: the data hold no such patients"):
        judging.choose_cases(split, data, "test")
    assert [case.name for case in judging.choose_cases(split, data, "all")] == ["somebody"]
    for path in (tmp_path / "somebody").glob("*_gt.nii.gz"):
        path.unlink()
    with pytest.raises(UserError, match="no ground truth of the chosen patients"):
        judging.choose_cases(split, data, "all")


def test_a_table_by_domain(tiny_run, cohort, tmp_path):
    """As the patients' table names them; an unnamed one is unknown, and the parts add up to the whole."""
    table = tmp_path / "patients.csv"
    table.write_text("Name;Vendor;Centre\npatient001;GE;1\npatient002;Philips;\npatient003;GE;2\n")
    chosen = dict(split="all", cines=0, pictures=False, data_dir=cohort, cohort_csv=str(table))
    folder = judging.evaluate(tiny_run, tmp_path / "out", by="vendor", **chosen)
    summary = summary_of(folder)
    assert {name: found["patients"] for name, found in summary["domains"]["vendor"].items()} == {
        "unknown": ["patient004"], "GE": ["patient001", "patient003"], "Philips": ["patient002"]}  # fmt: skip
    mean = sum(found["n_patients"] * found["dice"]["mean"] for found in summary["domains"]["vendor"].values()) / summary["n_patients"]
    assert mean == pytest.approx(summary["dice"]["mean"])
    page = (folder / "table.md").read_text()
    assert "## By vendor" in page and "| Vendor | Phase | n |" in page and "| GE | both | 2 |" in page
