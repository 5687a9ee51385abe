"""The phantom beats as a heart does, and is no gift to a classifier that sees single voxels."""

import functools

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ica_unet_jax.data.phantom.beating_heart import GROUPS, LV, MYO, RV, simulate, write_cohort
from ica_unet_jax.errors import UserError

THIN = dict(shape=(44, 96, 96), frames=6, spacing=(2.5, 1.5, 1.5))  # the whole heart, in slices thin enough to measure


@functools.cache
def thin(index):
    return simulate(3, index, **THIN)


def volumes(phantom, label):
    """mL per frame."""
    return np.count_nonzero(phantom.labels == label, axis=(1, 2, 3)) * np.prod(phantom.spacing) / 1000


def ejection_fraction(phantom, label):
    volume = volumes(phantom, label)
    return 1 - volume[phantom.es] / volume[phantom.ed]


def test_a_seed_and_an_index_fix_the_patient():
    one, same = simulate(1, 2), simulate(1, 2)
    assert one.frames.tobytes() == same.frames.tobytes() and one.labels.tobytes() == same.labels.tobytes()
    for other in (simulate(2, 2), simulate(1, 7)):
        assert not np.array_equal(one.labels, other.labels)
        assert one.group == other.group


def test_shapes_and_types():
    phantom = simulate(0, 0, shape=(3, 64, 80), frames=4)
    assert phantom.frames.shape == phantom.labels.shape == (4, 3, 64, 80)
    assert phantom.frames.dtype == np.float32 and phantom.labels.dtype == np.uint8
    assert np.isfinite(phantom.frames).all() and phantom.frames.min() >= 0


@pytest.mark.parametrize("index", range(10))
def test_ed_is_the_largest_and_es_the_smallest_cavity(index):
    phantom = simulate(0, index)
    lv = volumes(phantom, LV)
    assert lv[phantom.ed] == lv.max() and lv[phantom.es] == lv.min()
    assert phantom.ed == 0 and 3 <= phantom.es <= 6
    assert set(np.unique(phantom.labels)) == {0, RV, MYO, LV}


@pytest.mark.parametrize("index", range(10))
def test_volumes_over_the_beat(index):
    phantom = thin(index)
    myo, group = volumes(phantom, MYO), GROUPS[phantom.group]
    assert np.ptp(myo) < 0.05 * myo.mean()  # half a slice at the base is 2 %
    low, high = group.ejection
    assert low - 0.03 < ejection_fraction(phantom, LV) < high + 0.03
    low, high = group.volume
    assert 0.95 * low < volumes(phantom, LV)[phantom.ed] < 1.05 * high


def test_groups_are_told_by_their_right_ventricles_and_walls():
    phantoms = [thin(index) for index in range(5)]
    group = {phantom.group: phantom for phantom in phantoms}
    assert list(group) == ["NOR", "MINF", "DCM", "HCM", "RV"]
    assert volumes(group["RV"], RV)[0] > 1.2 * volumes(group["NOR"], RV)[0]
    assert ejection_fraction(group["RV"], RV) < 0.4 < ejection_fraction(group["NOR"], RV)
    assert volumes(group["HCM"], MYO)[0] > 1.3 * volumes(group["NOR"], MYO)[0]


@pytest.mark.parametrize("index", range(10))
def test_myocardium_separates_the_ventricles(index):
    labels = simulate(5, index).labels
    for axis in (2, 3):
        here, next_to = np.moveaxis(labels, axis, 0)[:-1], np.moveaxis(labels, axis, 0)[1:]
        assert not np.any((here == RV) & (next_to == LV)) and not np.any((here == LV) & (next_to == RV))


@pytest.mark.parametrize("index", range(5))
def test_the_base_descends_towards_a_resting_apex(index):
    phantom = thin(index)
    ed, es = (np.flatnonzero((phantom.labels[t] == MYO).any((1, 2))) for t in (phantom.ed, phantom.es))
    assert es[0] > ed[0]
    assert abs(es[-1] - ed[-1]) <= 1


@pytest.mark.parametrize("index", range(5))
def test_blood_is_brighter_than_muscle(index):
    phantom = simulate(4, index)
    middle, labels = phantom.frames[0, 4], phantom.labels[0, 4]
    assert middle[labels == LV].mean() > 1.7 * middle[labels == MYO].mean()


@pytest.mark.parametrize("label_every", [False, True])
def test_acdc_layout(tmp_path, label_every):
    write_cohort(tmp_path / "out", patients=2, seed=7, shape=(4, 64, 72), frames=5, label_every=label_every)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    folder = tmp_path / "out" / "patient002"
    info = dict(line.split(": ") for line in (folder / "Info.cfg").read_text().splitlines())
    assert list(info) == ["ED", "ES", "Group", "Height", "NbFrame", "Weight"]
    assert info["Group"] == "MINF" and info["NbFrame"] == "5"

    cine = nib.load(folder / "patient002_4d.nii.gz")
    assert cine.shape == (72, 64, 4, 5) and cine.get_data_dtype() == np.int16
    assert cine.header.get_zooms() == pytest.approx((1.5, 1.5, 10, 0.18))
    phantom = simulate(7, 1, (4, 64, 72), 5)
    np.testing.assert_array_equal(np.asarray(cine.dataobj).T, np.rint(phantom.frames))
    labelled = range(5) if label_every else (phantom.ed, phantom.es)
    assert (int(info["ED"]), int(info["ES"])) == (phantom.ed + 1, phantom.es + 1)
    assert len(list(folder.glob("*_gt.nii.gz"))) == len(labelled)
    for t in labelled:
        frame = nib.load(folder / f"patient002_frame{t + 1:02d}.nii.gz")
        truth = nib.load(folder / f"patient002_frame{t + 1:02d}_gt.nii.gz")
        np.testing.assert_array_equal(frame.dataobj, cine.dataobj[..., t])
        np.testing.assert_array_equal(np.asarray(truth.dataobj).T, phantom.labels[t])
        np.testing.assert_array_equal(frame.affine, truth.affine)
    assert len(list(folder.iterdir())) == 2 + 2 * len(labelled)


def test_a_cohort_is_written_whole_or_not_at_all(tmp_path):
    with pytest.raises(UserError, match="2 frames"):
        write_cohort(tmp_path / "out", patients=1, frames=1)
    assert not list(tmp_path.iterdir())
    (tmp_path / "out").mkdir()
    write_cohort(tmp_path / "out", patients=1, shape=(2, 32, 32), frames=2)
    with pytest.raises(UserError, match="exists already"):
        write_cohort(tmp_path / "out", patients=1)


BINS = (24, 8, 32, 32)  # of intensity, z, y, x
LIMITS = ((-1.5, 3.5), (-40, 40), (-72, 72), (-72, 72))


def voxels(seed, indices):
    """Bin numbers (4, n) of every voxel of the ED and ES frames, and their labels, per patient."""
    for index in indices:
        phantom = simulate(seed, index)
        times = [phantom.ed, phantom.es]
        image, labels = phantom.frames[times], phantom.labels[times]
        low, high = np.percentile(image, (0.5, 99.5), axis=(1, 2, 3), keepdims=True)
        image = np.clip(image, low, high)
        image = (image - image.mean((1, 2, 3), keepdims=True)) / image.std((1, 2, 3), keepdims=True)
        grid = [(np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(image.shape[1:], phantom.spacing, strict=True)]
        features = np.broadcast_arrays(image, *np.meshgrid(*grid, indexing="ij"))
        numbers = [
            np.clip((feature - low) / (high - low) * bins, 0, bins - 1).astype(int).ravel()
            for feature, bins, (low, high) in zip(features, BINS, LIMITS, strict=True)
        ]
        yield numbers, labels.ravel()


@pytest.mark.parametrize("seed", [10, 20])
def test_intensity_and_position_of_a_voxel_do_not_tell_its_structure(seed):
    """Bayes' rule on the smoothed joint histogram; boosted trees on the same features score the same."""
    counts = np.zeros((4, *BINS))
    for numbers, labels in voxels(seed, range(10)):
        np.add.at(counts, (labels, *numbers), 1)
    counts = np.stack([gaussian_filter(count, (1, 0.7, 1.5, 1.5)) for count in counts])
    rarity = counts.sum((1, 2, 3, 4), keepdims=True) ** -0.3  # favours structures as Dice does
    decision = np.argmax(counts * rarity, axis=0)
    dice = [
        [2 * np.sum((found == c) & (labels == c)) / (np.sum(found == c) + np.sum(labels == c)) for c in (RV, MYO, LV)]
        for numbers, labels in voxels(seed + 1, range(10))
        for found in [decision[tuple(numbers)]]
    ]
    assert 0.4 < np.mean(dice) < 0.65  # above a blind guess: the classifier itself works
