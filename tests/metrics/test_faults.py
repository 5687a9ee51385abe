import math

import numpy as np
import pytest

from ica_unet_jax.errors import UserError
from ica_unet_jax.labels import STRUCTURES
from ica_unet_jax.metrics.faults import COUNTS, dice_of, positions, slice_faults
from ica_unet_jax.metrics.overlap import dice

SPACING = (10.0, 1.0, 1.5)


def stack():
    """Six slices; of the four in the middle each holds a square of the LV that shrinks towards the end."""
    truth = np.zeros((6, 24, 24), np.uint8)
    for z, side in ((1, 10), (2, 9), (3, 8), (4, 4)):
        truth[z, 4 : 4 + side, 4 : 4 + side] = STRUCTURES["LV"]
    return truth


def only(rows, z):
    [row] = [row for row in rows if row["slice"] == z]
    return {name: row[name] for name in COUNTS if row[name]}


def test_every_fault_has_its_kind():
    truth = stack()
    found = truth.copy()
    found[4] = 0  # a slice is missed,
    found[5, 4:6, 4:6] = 3  # one is invented,
    found[1, 20:22, 20:22] = 3  # an island stands beside,
    found[2, 4] = 0  # a row at the edge is missing,
    found[3, 4:12, 12:20] = 3  # and a slab of 8 columns of 1.5 mm is added: two of them within 3 mm
    rows = slice_faults(found, truth, SPACING)
    assert {row["structure"] for row in rows} == {"LV"}
    assert only(rows, 4) == {"missing_slice": 16} and only(rows, 5) == {"added_slice": 4}
    assert only(rows, 1) == {"right": 100, "added_island": 4} and only(rows, 2) == {"right": 72, "missing_edge": 9}
    assert only(rows, 3) == {"right": 64, "added_edge": 16, "added_far": 48}


def test_what_is_far_inside_is_not_at_the_edge():
    truth = stack()
    found = truth.copy()
    found[1, 8:10, 8:10] = 0  # at least 4 rows of 1 mm from the contour
    assert only(slice_faults(found, truth, SPACING), 1) == {"right": 96, "missing_far": 4}


@pytest.mark.parametrize("seed", range(5))
def test_the_counts_make_the_dice(seed):
    rng = np.random.default_rng(seed)
    found, truth = rng.integers(0, 4, (2, 3, 8, 8)).astype(np.uint8)
    rows = slice_faults(found, truth, SPACING)
    for name, label in STRUCTURES.items():
        own = [row for row in rows if row["structure"] == name]
        assert dice_of(own) == pytest.approx(dice(found == label, truth == label))
        assert all(dice_of(own, kind) >= dice_of(own) for kind in ("slice", "island", "edge", "far"))


def test_mending_all_kinds_in_turn_leaves_none():
    truth = stack()
    rows = slice_faults(np.roll(truth, 1, axis=1), truth, SPACING)
    assert dice_of(rows, "edge") == 1  # a shift by 1 mm is an edge alone
    assert math.isnan(dice_of([]))


@pytest.mark.parametrize("turned", [False, True])
def test_the_base_is_the_larger_end(turned):
    truth = stack()[::-1] if turned else stack()
    expected = ["beyond", "base", "base", "middle", "apex", "beyond"]
    assert positions(truth) == (expected[::-1] if turned else expected)
    assert positions(np.zeros((2, 4, 4), np.uint8)) == ["beyond", "beyond"]


def test_other_shapes_are_refused():
    with pytest.raises(UserError, match=r"Prediction \(2, 4, 4\) and truth \(2, 4, 5\) cannot be compared"):
        slice_faults(np.zeros((2, 4, 4), np.uint8), np.zeros((2, 4, 5), np.uint8), SPACING)
