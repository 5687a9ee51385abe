"""A right heart raises no doubt; each fault raises its own."""

import numpy as np
import pytest
from places import SHARED_DATA

from ica_unet_jax.data.nifti import read_volume
from ica_unet_jax.metrics import doubts

SPACING = (8.0, 1.5, 1.5)


def heart(slices=9, radius=8, at=(20, 20), shape=(40, 48)):
    """LV in a ring of myocardium, RV beside it, in all but the outermost slices."""
    y, x = np.indices(shape)
    r = np.hypot(y - at[0], x - at[1])
    plane = np.where(r <= radius, 3, np.where(r <= radius + 4, 2, 0))
    plane[(plane == 0) & (np.hypot(y - at[0], x - at[1] - 15) <= 7)] = 1
    labels = np.repeat(plane[None].astype(np.uint8), slices, axis=0)
    labels[[0, -1]] = 0
    return labels


def signs(labels):
    return doubts.beyond(doubts.of_frame(labels))


def test_a_right_heart_raises_no_doubt():
    assert signs(heart()) == []
    beat = [8 + 2 * np.cos(2 * np.pi * t / 20) for t in range(20)]
    assert doubts.of_cine(np.stack([heart(radius=r) for r in beat]), SPACING, [0.0] * 20) == {}


def test_an_open_base_and_a_heart_without_apex_are_no_fault():
    """The LV's outflow is open, so only the middle of the stack is asked for a ring."""
    labels = heart()
    labels[1][:20][labels[1][:20] == 2] = 0
    assert signs(labels) == []


def fault_no_heart():
    return np.zeros_like(heart())


def fault_no_structure():
    labels = heart()
    labels[labels == 1] = 0
    return labels


def fault_second_heart():
    labels = heart(shape=(40, 90))
    return np.maximum(labels, heart(at=(20, 70), radius=4, shape=(40, 90)))


def fault_open_ring():
    labels = heart()
    labels[4, 20:, :][labels[4, 20:, :] == 2] = 0
    return labels


def fault_gap():
    labels = heart()
    labels[3] = 0
    return labels


@pytest.mark.parametrize("sign", [sign for sign in doubts.SIGNS if sign not in ("jump", "unsure")])
def test_each_fault_has_its_sign(sign):
    found = signs(globals()[f"fault_{sign}"]())
    assert sign in found
    # A stack in two halves is, in 3D, a heart and a second one.
    assert set(found) <= {sign, "second_heart"} if sign == "gap" else found == [sign]


def test_a_volume_that_leaves_its_neighbours_jumps():
    radii = [9, 8, 7, 12, 7, 8, 9]
    assert doubts.of_cine(np.stack([heart(radius=r) for r in radii]), SPACING, [0.0] * 7) == {"jump": [4]}
    assert doubts.of_cine(np.stack([heart(radius=r) for r in radii[:2]]), SPACING, [0.0] * 2) == {}  # two frames have no middle


def test_a_network_has_its_own_limit_of_how_unsure_it_may_be():
    cine, unsure = np.stack([heart()] * 3), [0.1, 0.5, 0.3]
    assert doubts.of_cine(cine, SPACING, unsure) == {}
    assert doubts.of_cine(cine, SPACING, unsure, doubts.LIMITS | {"unsure": 0.3}) == {"unsure": [2]}


def test_what_was_found_is_told():
    told = doubts.describe({"gap": [2], "jump": [1, 2, 3, 4, 5, 6]})
    assert told == "frame 2 (a slice without labels between labelled ones); frames 1, 2, 3, 4, 5, ... (a volume jumps against both neighbouring frames)"


@pytest.mark.skipif(not (SHARED_DATA / "acdc_mini").is_dir(), reason="needs ACDC-mini beside the checkout")
def test_true_masks_of_patients_raise_no_doubt():
    masks = sorted((SHARED_DATA / "acdc_mini").rglob("*_gt.nii.gz"))
    assert len(masks) == 42
    for path in masks:
        frames, _ = read_volume(path)
        assert signs(frames[0].astype(np.uint8)) == [], path.name
