from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ica_unet_jax.errors import UserError
from ica_unet_jax.metrics.overlap import dice, structure_dice

volumes = arrays(bool, (2, 4, 5))


@pytest.mark.parametrize(
    "a, b, expected",
    [
        ([1, 1, 1, 0], [0, 1, 1, 1], Fraction(2 * 2, 3 + 3)),
        ([1, 1, 1, 1], [0, 0, 0, 1], Fraction(2 * 1, 4 + 1)),
        ([1, 1, 0, 0], [0, 0, 1, 1], Fraction(0)),
        ([0, 0, 0, 0], [0, 0, 0, 0], Fraction(1)),
        ([0, 0, 0, 0], [0, 1, 0, 0], Fraction(0)),
    ],
)
def test_known_values(a, b, expected):
    assert dice(np.array(a), np.array(b)) == float(expected)


@given(volumes, volumes)
def test_it_is_the_harmonic_mean_of_precision_and_recall(a, b):
    assume((a & b).any())
    precision, recall = (Fraction(int((a & b).sum()), int(x.sum())) for x in (a, b))
    assert dice(a, b) == dice(b, a) == pytest.approx(float(2 / (1 / precision + 1 / recall)), rel=1e-12)
    assert dice(a, a) == 1


@given(volumes, volumes, st.integers(0, 4))
def test_moving_both_changes_nothing(a, b, step):
    assert dice(np.roll(a, step, axis=2), np.roll(b, step, axis=2)) == dice(a, b)


def test_each_structure_is_judged_alone():
    prediction = np.array([[[1, 1, 2, 2, 0, 0]]], dtype=np.uint8)
    truth = np.array([[[1, 2, 2, 2, 3, 0]]], dtype=np.uint8)
    assert structure_dice(prediction, truth) == {"RV": 2 / 3, "MYO": 4 / 5, "LV": 0}


def test_shapes_must_agree():
    with pytest.raises(UserError, match=r"\(2,\) and \(3,\)"):
        dice(np.ones(2), np.ones(3))
