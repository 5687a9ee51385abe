"""The cohort that fine-tuning is tried on, and what is said of it."""

import dataclasses

import numpy as np
import pytest

from ablations import fine_tuning
from ica_unet_jax.data import reading
from ica_unet_jax.data.phantom import beating_heart


@pytest.fixture(scope="module")
def cine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    beating_heart.write_cohort(folder, 1, shape=(3, 48, 40), frames=8)
    return reading.read(reading.find_cases(str(folder), "")[0])


def test_the_other_cohort_shows_the_same_hearts_turned_larger_and_dark(cine):
    other = fine_tuning.another(cine)
    for time, labels in cine.labels.items():
        np.testing.assert_array_equal(np.rot90(other.labels[time], -1, (-2, -1)), labels)
    assert other.spacing == pytest.approx((cine.spacing[0], 1.3 * cine.spacing[2], 1.3 * cine.spacing[1]))
    back = np.rot90(other.frames, -1, (-2, -1))
    assert np.corrcoef(back.ravel(), cine.frames.ravel())[0, 1] < -0.95


def test_what_is_written_is_read_as_it_was(cine, tmp_path):
    later = dataclasses.replace(cine, labels={4: next(iter(cine.labels.values()))})
    fine_tuning.write(tmp_path, later)
    back = reading.read(reading.find_cases(str(tmp_path), "")[0])
    np.testing.assert_allclose(back.frames, cine.frames[3:5], rtol=1e-6)
    assert list(back.labels) == [1] and back.spacing == pytest.approx(cine.spacing)
    np.testing.assert_array_equal(back.labels[1], later.labels[4])


def test_what_is_said():
    dice = {name: {"other": {"RV": d, "MYO": d, "LV": d, "mean": d}, "own": {"mean": 0.9}} for name, d in zip((fine_tuning.BEFORE, fine_tuning.AFTER, fine_tuning.FRESH), (0.25, 0.75, 0.5), strict=True)}
    result = dict(dice=dice, minutes=3.14, steps=300, frames=10, patients=5, judged=15)
    assert fine_tuning.sentence(result).startswith("From a mean Dice of 0.250 to 0.750 on 15 patients, by 10 frames of 5 others, in 300 steps and 3.1 minutes")
    assert "| fine-tuned | 0.750 | 0.750 | 0.750 | 0.750 | 0.900 |" in fine_tuning.table(result)
