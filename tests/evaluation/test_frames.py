"""Frames of a case as a network sees them, and what is said of them."""

import numpy as np

from ica_unet_jax.data import reading
from ica_unet_jax.data.case import Case
from ica_unet_jax.data.geometry import Placement
from ica_unet_jax.evaluation import frames
from ica_unet_jax.inference import segmenters
from ica_unet_jax.inference.options import Options


def test_a_frame_may_be_its_own_neighbour(tiny_run, cohort):
    """Then it is seen as a cine that stands still is seen."""
    segmenter, cine = segmenters.load(tiny_run), reading.read(reading.find_cases(cohort)[0])
    times = sorted(cine.labels)
    alone, _ = frames.segment(segmenter, cine, times, Options(neighbour_frames="itself"))
    between, _ = frames.segment(segmenter, cine, times)
    for time in times:
        np.testing.assert_array_equal(alone[time], segmenter.segment_frame(cine.frame(time), cine.spacing))
    assert any((alone[time] != between[time]).any() for time in times)


def test_phases_without_info_come_from_the_labels(cohort):
    case = reading.find_cases(cohort)[0]
    told = frames.phases(reading.read(case))
    nameless = Case(case.name, cine=case.cine, frames=case.frames, labels=case.labels)
    assert frames.phases(reading.read(nameless)) == told
    only = Case(case.name, cine=case.cine, labels={0: case.labels[0]})
    assert frames.phases(reading.read(only)) == {}


def test_a_truth_on_its_own_grid_comes_back_and_on_a_coarser_one_loses_its_edge():
    y, x = np.indices((64, 64))
    truth = np.repeat(np.select([np.hypot(y - 30, x - 34) < 9, np.hypot(y - 30, x - 34) < 14], [3, 2])[None], 4, axis=0).astype(np.uint8)
    same, coarse = (Placement(truth.shape, (8.0, 1.5, 1.5), (4, size, size), spacing) for size, spacing in ((64, 1.5), (32, 3.0)))
    np.testing.assert_array_equal(frames.through_the_grid(truth, same), truth)
    lost = np.count_nonzero(frames.through_the_grid(truth, coarse) != truth) / np.count_nonzero(truth)
    assert 0.02 < lost < 0.2
    beyond = frames.through_the_grid(truth, Placement(truth.shape, (8.0, 1.5, 1.5), (4, 32, 32), 0.75))
    assert not beyond[:, :20].any() and beyond[:, 30, 30].all()  # what lies outside of the window cannot be had
