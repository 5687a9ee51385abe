"""Frames of a case as a network sees them, and what is said of them."""

import numpy as np

from ica_unet_jax.data import reading
from ica_unet_jax.data.case import Case
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
