"""A corruption moves image and truth together, leaves nothing behind, and its cost is counted."""

import dataclasses

import numpy as np
import pytest

from ica_unet_jax.config import Config
from ica_unet_jax.data import reading
from ica_unet_jax.errors import UserError
from ica_unet_jax.evaluation import robustness
from ica_unet_jax.evaluation.corruptions import CORRUPTIONS, ORIENTATIONS
from ica_unet_jax.inference import segmenters
from ica_unet_jax.labels import STRUCTURES
from ica_unet_jax.metrics import doubts

MOVED = [*ORIENTATIONS, "each third slice missing", "one slice", "three slices", "twice as many slices"]
COLOURED = [name for name in CORRUPTIONS if name not in MOVED and "voxels" not in name and "breathing" not in name]


@pytest.fixture(scope="module")
def cine(cohort):
    return reading.read(next(case for case in reading.find_cases(cohort) if case.labels and case.cine))


def corrupted(cine, name, seed=0):
    return CORRUPTIONS[name](cine, np.random.default_rng(seed))


def pairs(cine):
    """(grey value, label) of the voxels of the labelled frames, in no order."""
    frames = dict(zip(cine.times, cine.frames, strict=True))
    return {time: set(zip(frames[time].ravel().tolist(), truth.ravel().tolist(), strict=True)) for time, truth in cine.labels.items()}


@pytest.mark.parametrize("name", MOVED)
def test_image_and_truth_move_together(cine, name):
    seen = corrupted(cine, name)
    before, after = pairs(cine), pairs(seen)
    for time, truth in seen.labels.items():
        assert truth.shape == seen.frames.shape[1:] and after[time] <= before[time]
    if name in ORIENTATIONS:
        assert after == before and not np.array_equal(seen.frames, cine.frames)


PLACES = {  # of the voxel (1, 2, 3) of a frame of 4 slices, 8 rows and 10 columns, and the sizes (dz, dy, dx) of 9, 1 and 2 mm
    "mirrored left to right": ((1, 2, 6), (9, 1, 2)),
    "mirrored top to bottom": ((1, 5, 3), (9, 1, 2)),
    "turned by 90 degrees": ((1, 6, 2), (9, 2, 1)),  # against the clock
    "turned by 180 degrees": ((1, 5, 6), (9, 1, 2)),
    "turned by 270 degrees": ((1, 3, 5), (9, 2, 1)),
    "slices in reverse order": ((2, 2, 3), (9, 1, 2)),
    "each third slice missing": ((1, 2, 3), (9, 1, 2)),
    "one slice": ((0, 2, 3), (9, 1, 2)),
    "three slices": ((1, 2, 3), (9, 1, 2)),
    "twice as many slices": ((2, 2, 3), (4.5, 1, 2)),
}


@pytest.mark.parametrize("name", MOVED)
def test_a_voxel_goes_where_the_name_says(cine, name):
    """Where "each third slice" is missing it is the second of four, so there the third is marked."""
    marked = np.zeros((1, 4, 8, 10), np.float32)
    marked[0, 1, 2, 3] = 1
    if name == "each third slice missing":
        marked = np.roll(marked, 1, axis=1)
    seen = corrupted(dataclasses.replace(cine, frames=marked, times=(0,), labels={0: marked[0].astype(np.uint8)}, spacing=(9, 1, 2)), name)
    place, spacing = PLACES[name]
    assert seen.frames[0][place] == seen.labels[0][place] == 1 and seen.spacing == spacing
    assert seen.frames.sum() == seen.labels[0].sum() == (2 if name == "twice as many slices" else 1)


@pytest.mark.parametrize("name", COLOURED)
def test_a_colour_leaves_places_as_they_are(cine, name):
    seen, again = corrupted(cine, name), corrupted(cine, name)
    assert seen.frames.dtype == np.float32 and np.isfinite(seen.frames).all() and seen.spacing == cine.spacing
    assert not np.allclose(seen.frames, cine.frames)
    np.testing.assert_array_equal(seen.frames, again.frames)  # a seed fixes it
    assert all(np.array_equal(seen.labels[time], truth) for time, truth in cine.labels.items())


@pytest.mark.parametrize("mm", (0.7, 2.0))
def test_voxels_of_another_size_show_the_same_volumes(cine, mm):
    seen = corrupted(cine, f"voxels of {mm:g} mm")
    assert seen.spacing == (cine.spacing[0], mm, mm)
    for time, truth in cine.labels.items():
        for label in STRUCTURES.values():
            before, after = (np.count_nonzero(x == label) * np.prod(size) for x, size in ((truth, cine.spacing), (seen.labels[time], seen.spacing)))
            assert after == pytest.approx(before, rel=0.15)


def test_breathing_shifts_slices_alone(cine):
    seen = corrupted(cine, "slices shifted by breathing, 3 mm")
    for time, truth in cine.labels.items():
        np.testing.assert_array_equal(np.sort(seen.labels[time], axis=None), np.sort(truth, axis=None))
        np.testing.assert_array_equal(seen.labels[time].any((1, 2)), truth.any((1, 2)))
    assert not np.array_equal(seen.frames, cine.frames)


def test_only_frames_that_are_looked_at_are_corrupted(cine):
    network = segmenters.segmenter_of(Config.make(neighbours="past"))
    long = dataclasses.replace(cine, frames=np.arange(90.0, dtype=np.float32).reshape(90, 1, 1, 1), times=tuple(range(90)), labels={0: cine.frames[0], 40: cine.frames[0]})
    few = robustness._seen(network, long)
    assert len(few.times) < 8
    for time in long.labels:
        assert few.window(time) == long.window(time) and all(few.frame(t) == long.frame(t) == t for t in few.window(time))


def test_area_under_the_curve():
    failed = np.array([True, True, False, False])
    assert robustness.auc(np.array([2, 3, 0, 1]), failed) == 1
    assert robustness.auc(np.array([0, 1, 2, 3]), failed) == 0
    assert robustness.auc(np.ones(4), failed) == 0.5
    assert robustness.auc(np.array([1, 0, 0, 0]), failed) == 0.75
    assert np.isnan(robustness.auc(np.ones(4), np.ones(4, bool)))


def rows(dices):
    """A row of two patients for each corruption, with this Dice of all structures, 0.7 in the same slices before, and a gap where it is low."""
    signs = dict.fromkeys(robustness.SIGNS, 0.0)
    return [
        dict(corruption=name, patient=patient, frame=1) | {f"{kind}_{name}": x for kind, x in (("dice", dice), ("whole", 0.7)) for name in STRUCTURES} | signs | {"gap": float(dice < 0.8)}
        for name, dice in dices.items() for patient in ("a", "b")
    ]  # fmt: skip


def test_the_page_tells_the_loss_and_what_doubts_find():
    page = robustness.page(rows(dict.fromkeys((robustness.UPRIGHT, *CORRUPTIONS), 0.9) | {"one slice": 0.6}), doubts.LIMITS)
    [line] = [line for line in page.splitlines() if "one slice" in line]
    assert "| 0.600 |" in line and "−0.100" in line.replace("-", "−")
    assert "area under the ROC curve of 1.000, how unsure the network is with 0.500, both together" in page and f"Of {2 * (1 + len(CORRUPTIONS))} frames" in page


def test_a_limit_of_ones_own_is_a_further_sign():
    """Half of the frames fail, and the network is unsure of these alone: with a limit it is a sign, without one it orders frames all the same."""
    table = [row | {"unsure": 0.9 if row["dice_LV"] < 0.8 else 0.1, "gap": 0.0} for row in rows({robustness.UPRIGHT: 0.9, "one slice": 0.6})]
    without, own = (robustness.failures(table, limits) for limits in (doubts.LIMITS, doubts.LIMITS | {"unsure": 0.5}))
    assert "curve of 0.500, how unsure the network is with 1.000" in without and "with 1.000.\n" in without + "\n" and "curve of 1.000," in own
    assert "less sure" not in robustness.doubts_table(table, doubts.LIMITS)
    [line] = [line for line in robustness.doubts_table(table, doubts.LIMITS | {"unsure": 0.5}).splitlines() if "less sure" in line]
    assert "100 %" in line and "| 0 % |" in line


def test_a_table_is_read_as_it_was_written(tmp_path):
    table = rows({robustness.UPRIGHT: 0.9, "one slice": 0.6})
    robustness.write_csv(tmp_path / "t.csv", table)
    assert robustness.read_csv(tmp_path / "t.csv") == table
    (tmp_path / "t.csv").write_text("patient,frame\n1,x\n")
    with pytest.raises(UserError, match="make it again"):
        robustness.read_csv(tmp_path / "t.csv")


@pytest.mark.slow
def test_a_network_is_judged(tiny_run, tmp_path):
    """Slow for the many native grids, each of which is compiled."""
    folder = robustness.robustness(tiny_run, tmp_path)
    table = robustness.read_csv(folder / "robustness.csv")
    assert {row["corruption"] for row in table} == {robustness.UPRIGHT, *CORRUPTIONS}
    for row in table:
        if row["corruption"] in (robustness.UPRIGHT, *ORIENTATIONS):  # nothing is lost of what was found before
            [same] = [other for other in table if (other["corruption"], other["patient"], other["frame"]) == (robustness.UPRIGHT, row["patient"], row["frame"])]
            assert all(row[f"whole_{name}"] == same[f"dice_{name}"] for name in STRUCTURES)
    assert (folder / "robustness.md").read_text() == robustness.page(table, doubts.LIMITS)
