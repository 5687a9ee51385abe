import csv
import json
import shutil

import numpy as np
import pytest

from ica_unet_jax.config import DataConfig
from ica_unet_jax.data import heart, reading
from ica_unet_jax.data.case import Case
from ica_unet_jax.data.phantom.beating_heart import write_cohort
from ica_unet_jax.errors import UserError
from ica_unet_jax.evaluation import judging
from ica_unet_jax.inference import segmenters
from ica_unet_jax.inference.postprocessing import largest_components
from ica_unet_jax.labels import STRUCTURES
from ica_unet_jax.metrics.over_time import behaviour, mean_behaviour


@pytest.fixture(scope="module")
def result(tiny_run, tmp_path_factory):
    """The folder of an evaluation of all four patients, one of them over time."""
    return judging.evaluate(tiny_run, tmp_path_factory.mktemp("evaluation") / "all", split="all", cines=1)


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


def test_every_labelled_frame_is_a_line_and_every_patient_a_picture(result):
    with (result / "cases.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["patient"], row["phase"]) for row in rows] == [
        (f"patient00{i}", phase) for i in range(1, 5) for phase in ("ED", "ES")
    ]
    names = {path.name for path in (result / "pictures").iterdir()}
    assert names == {f"patient00{i}.png" for i in range(1, 5)} | {"patient001_volumes.png"}


def test_summary_holds_what_a_reader_needs(result, tiny_run):
    summary = summary_of(result)
    for score in ("dice", "hd95_mm", "nsd"):
        assert set(summary[score]) == {*STRUCTURES, "mean"}
    assert summary["n_cases"] == 8 and set(summary["n_missed"]) == set(STRUCTURES)
    assert 0 <= summary["labelled_voxels_outside"] <= summary["labelled_voxels"]
    assert summary["checkpoint_step"] == 2 and summary["split"] == "all"
    assert summary["nsd_mm"] == 2 and summary["neighbour_frames"] == "cine"
    assert summary["notes"] == ["contains training patients (2 by name)"]
    assert summary["provenance"]["training"] == json.loads((tiny_run / "provenance.json").read_text())
    over_time = summary["over_time"]["patient001"]
    assert over_time["n_frames"] == 4 and set(over_time["prediction"]) == {"roughness", "neighbour_dice"}
    table = (result / "table.md").read_text()
    assert "contains training patients" in table and "| all | both | 4 |" in table and "| patient001 | 4 |" in table
    assert "NSD RV (2 mm)" in table


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


def test_a_frame_may_be_its_own_neighbour(tiny_run, cohort):
    """Then it is seen as a cine that stands still is seen."""
    folder = judging.evaluate(tiny_run, cines=0, pictures=False, neighbour_frames="itself", nsd_mm=1)
    assert folder == tiny_run / "evaluation_val_itself_nsd_1mm"
    summary = summary_of(folder)
    assert summary["neighbour_frames"] == "itself" and summary["nsd_mm"] == 1 and "own neighbour" in summary["notes"][0]
    segmenter, cine = segmenters.load(tiny_run), reading.read(reading.find_cases(cohort)[0])
    times = sorted(cine.labels)
    alone, _ = judging.segment(segmenter, cine, times, neighbour_frames="itself")
    between, _ = judging.segment(segmenter, cine, times)
    for time in times:
        np.testing.assert_array_equal(alone[time], segmenter.segment_frame(cine.frame(time), cine.spacing))
    assert any((alone[time] != between[time]).any() for time in times)
    with pytest.raises(UserError, match="--neighbour_frames=past is unknown: give one of cine, itself"):
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
        labels, placements = judging.segment(segmenter, cine, cine.times if number == 0 else sorted(cine.labels), window=window)
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
    assert "chosen on the validation" in judging.notes(split, [Case("b")], "val", "best")[0]
    assert judging.notes(split, [Case("b")], "val", "latest") == []


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


def test_phases_without_info_come_from_the_labels(cohort):
    case = reading.find_cases(cohort)[0]
    told = judging.phases(reading.read(case))
    nameless = Case(case.name, cine=case.cine, frames=case.frames, labels=case.labels)
    assert judging.phases(reading.read(nameless)) == told
    only = Case(case.name, cine=case.cine, labels={0: case.labels[0]})
    assert judging.phases(reading.read(only)) == {}


def test_training_ends_with_pictures(tiny_run, tmp_path):
    shutil.copy(tiny_run / "metrics.jsonl", tmp_path)
    segmenter = segmenters.load(tiny_run)
    cines = [reading.read(case) for case in reading.find_cases(segmenter.config.data.data_dir)[:2]]
    judging.training_report(tmp_path, cines, segmenter, count=1)
    assert (tmp_path / "curves.png").is_file()
    assert [path.name for path in (tmp_path / "validation").iterdir()] == ["patient001.png"]


def test_largest_component():
    labels = np.zeros((2, 6, 6), np.uint8)
    labels[:, :3, :3] = 1
    labels[0, 1, 1] = 3
    labels[1, 5, 5] = 1
    labels[0, 4, 4:] = 3
    kept = labels.copy()
    kept[1, 5, 5] = kept[0, 1, 1] = 0
    np.testing.assert_array_equal(largest_components(labels), kept)
