import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ica_unet_jax.metrics import clinical


def test_volume_of_a_frame_and_of_a_cine():
    frame = np.zeros((2, 3, 4), np.uint8)
    frame[0, :2, :] = 3  # 8 voxels of 10 × 1.5 × 1.5 mm³ = 0.0225 mL
    frame[1, 0, 0] = 1
    volumes = clinical.volumes_ml(frame, (10, 1.5, 1.5))
    assert volumes == pytest.approx({"RV": 0.0225, "MYO": 0, "LV": 0.18})
    curve = clinical.volumes_ml(np.stack([frame, 0 * frame]), (10, 1.5, 1.5))
    np.testing.assert_allclose(curve["LV"], [0.18, 0])


def test_ejection_fraction_and_mass():
    assert clinical.ejection_fraction(120, 48) == 3 / 5
    assert math.isnan(clinical.ejection_fraction(0, 10))
    assert clinical.myocardial_mass(100) == pytest.approx(105)


def test_agreement_by_hand():
    # Differences 1, −1, 3: mean 1, sample SD 2. Deviations (−2, −3, 5) and (−2, −1, 3): r = 22 / √(38 · 14).
    result = clinical.agreement([4, 3, 11], [3, 4, 8])
    assert result.bias == 1
    assert result.limits == pytest.approx((1 - 3.92, 1 + 3.92))
    assert result.r == pytest.approx(22 / math.sqrt(38 * 14))
    assert (result.n, result.n_undefined) == (3, 0)


def test_agreement_leaves_out_what_is_undefined_and_counts_it():
    result = clinical.agreement([1, math.nan, 3, 4], [1, 2, math.inf, 5])
    assert (result.bias, result.n, result.n_undefined) == (-0.5, 2, 2)


def test_agreement_of_few_or_constant_values():
    assert clinical.agreement([2], [1])[0] == 1
    assert all(map(math.isnan, (*clinical.agreement([2], [1]).limits, clinical.agreement([2], [1]).r)))
    assert math.isnan(clinical.agreement([], []).bias)
    constant = clinical.agreement([5, 5, 5], [1, 2, 3])
    assert (constant.bias, math.isnan(constant.r)) == (3, True)


def test_roughness_by_hand():
    assert clinical.roughness([1, 2, 3, 4]) == 0
    assert clinical.roughness([0, 1, 0, 1, 0]) == 2  # second differences −2, 2, −2 over a range of 1
    assert clinical.roughness([0, 0, 1, 1]) == 1  # 1, −1
    assert math.isnan(clinical.roughness([1, 2]))
    assert math.isnan(clinical.roughness([3, 3, 3]))


@given(st.lists(st.integers(0, 200), min_size=3, max_size=12), st.integers(-50, 50), st.sampled_from([0.1, -3.0, 40.0]))
def test_roughness_has_no_unit(curve, offset, factor):
    original = clinical.roughness(curve)
    changed = clinical.roughness(np.array(curve) * factor + offset)
    assert changed == pytest.approx(original, abs=1e-9, nan_ok=True)


def test_neighbouring_frames():
    cine = np.array([[1, 1, 0], [1, 1, 2], [0, 1, 2]], np.uint8).reshape(3, 1, 1, 3)
    steps = clinical.neighbour_dice(cine)
    np.testing.assert_allclose(steps["RV"], [1, 2 / 3])
    np.testing.assert_allclose(steps["MYO"], [0, 1])
    np.testing.assert_allclose(steps["LV"], [1, 1])
    assert clinical.neighbour_dice(cine[:1])["RV"].shape == (0,)
