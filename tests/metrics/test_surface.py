import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ica_unet_jax.errors import UserError
from ica_unet_jax.metrics.surface import surface_figures

volumes = arrays(bool, (3, 4, 5), fill=st.just(False))
spacings = st.tuples(*[st.sampled_from([0.5, 1.0, 1.5, 8.0])] * 3)


def mask(shape, *boxes):
    """A mask that is True in the given boxes of slices."""
    result = np.zeros(shape, bool)
    for box in boxes:
        result[box] = True
    return result


def blobs(seed):
    """Two overlapping masks with holes and islands, one of them at the array's border."""
    rng = np.random.default_rng(seed)
    z, y, x = np.ogrid[:7, :24, :20]
    distance = np.sqrt((2 * (z - 3)) ** 2 + (y - 11) ** 2 + (x - 9) ** 2)
    a = distance < 7 + 2 * rng.random(distance.shape)
    b = (distance < 6 + 2 * rng.random(distance.shape)) | (rng.random(distance.shape) < 0.002)
    return np.roll(a, -4, axis=1), b


def test_single_voxels_are_apart_by_the_spacing():
    a, b = mask((3, 5, 6), (0, 1, 2)), mask((3, 5, 6), (0, 4, 2))
    assert surface_figures(a, b, (10, 2, 1)) == (6, 6, 6, 0)
    c = mask((3, 5, 6), (2, 4, 2))  # 2 slices of 6 mm and 3 rows of 3 mm: 12² + 9² = 15²
    assert surface_figures(a, c, (6, 3, 1), tolerance=15) == (15, 15, 15, 1)


def test_line_against_its_first_half():
    line, half = mask((1, 1, 20), np.s_[:, :, :]), mask((1, 1, 20), np.s_[:, :, :10])
    # From the line: ten times 0, then 1 … 10; percentile 95 at position 0.95 × 19 = 18.05. From its half: all 0.
    # One percentile over both directions together would be 8.55 instead.
    hd, hd95, assd, nsd = surface_figures(line, half, (1, 1, 1))
    assert hd == 10
    assert hd95 == pytest.approx(float(Fraction(181, 20)), rel=1e-12)
    assert assd == pytest.approx(float(Fraction(55, 20) / 2), rel=1e-12)
    assert nsd == (12 + 10) / (20 + 10)  # of the line its first half and two voxels more, of the half all


def test_the_border_counts_as_outside():
    full, centre = np.ones((3, 3, 3), bool), mask((3, 3, 3), (1, 1, 1))
    # The surface of the full cube is all but its centre: 6 faces, 12 edges, 8 corners.
    hd, _, assd, nsd = surface_figures(full, centre, (1, 1, 1), tolerance=1.5)
    assert hd == pytest.approx(math.sqrt(3))
    assert assd == pytest.approx(((6 + 12 * math.sqrt(2) + 8 * math.sqrt(3)) / 26 + 1) / 2)
    assert nsd == (18 + 1) / (26 + 1)  # not the corners


def test_the_inside_does_not_count():
    solid = mask((7, 7, 7), np.s_[1:6, 1:6, 1:6])
    hollow = solid & ~mask((7, 7, 7), (3, 3, 3))  # the rim of its hole: six surface voxels, 1 below the solid's
    assert surface_figures(solid, hollow, (1, 1, 1)).hd == 1
    assert surface_figures(solid, solid, (1, 1, 1)) == (0, 0, 0, 1)


def test_empty_masks():
    empty, full = np.zeros((2, 3, 4), bool), np.ones((2, 3, 4), bool)
    assert all(math.isnan(value) for value in surface_figures(empty, empty, (1, 1, 1)))
    assert surface_figures(empty, full, (1, 1, 1)) == (math.inf, math.inf, math.inf, 0)
    assert surface_figures(full, empty, (1, 1, 1)) == (math.inf, math.inf, math.inf, 0)


def test_a_tolerance_includes_its_own_distance():
    a, b = mask((1, 6, 5), np.s_[:, 1:4, 1:4]), mask((1, 6, 5), np.s_[:, 2:5, 1:4])
    # Two squares a row apart. No voxel of one slice has any above and below: all 9 of each are surface, 3 outside the other.
    assert surface_figures(a, b, (10, 2, 1), tolerance=0).nsd == 12 / 18
    assert surface_figures(a, b, (10, 2, 1), tolerance=1.99).nsd == 12 / 18
    assert surface_figures(a, b, (10, 2, 1), tolerance=2).nsd == 1
    far = mask((1, 9, 9), (0, 0, 0)), mask((1, 9, 9), (0, 3, 0))
    step = float(np.float32(2 / 3))  # as a header stores it: three are 2.00000006
    assert surface_figures(*far, (10, step, 1)).nsd == 1 and surface_figures(*far, (10, step + 1e-5, 1)).nsd == 0


@given(volumes, volumes, spacings)
def test_surface_dice_grows_with_its_tolerance_to_one(a, b, spacing):
    assume(a.any() and b.any())
    farthest = surface_figures(a, b, spacing).hd
    shares = [surface_figures(a, b, spacing, tolerance).nsd for tolerance in (0, 1, 2, farthest)]
    assert shares == sorted(shares) and shares[-1] == 1


@given(volumes, volumes, spacings)
def test_symmetric_and_ordered(a, b, spacing):
    assume(a.any() and b.any())
    distances = surface_figures(a, b, spacing)
    assert surface_figures(b, a, spacing) == distances
    assert max(distances.hd95, distances.assd) <= distances.hd
    assert surface_figures(a, a, spacing) == (0, 0, 0, 1)


@given(volumes, volumes, spacings, st.sampled_from([0.3, 2.0, 7.0]))
def test_scales_with_the_spacing(a, b, spacing, factor):
    assume(a.any() and b.any())
    scaled = surface_figures(a, b, [factor * step for step in spacing], 2 * factor)
    figures = surface_figures(a, b, spacing, 2)
    np.testing.assert_allclose(scaled[:3], np.multiply(factor, figures[:3]), rtol=1e-12)
    assert scaled.nsd == figures.nsd


@given(volumes, volumes, st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * 3))
def test_a_margin_or_its_place_changes_nothing(a, b, margin):
    assume(a.any() and b.any())
    moved = surface_figures(np.pad(a, margin), np.pad(b, margin), (8, 1.5, 1))
    assert moved == surface_figures(a, b, (8, 1.5, 1))


def test_bad_arguments_fail_early():
    with pytest.raises(UserError, match="one grid"):
        surface_figures(np.ones((1, 2, 3)), np.ones((1, 3, 2)), (1, 1, 1))
    for spacing in [(1, 1), (1, 0, 1), (1, math.nan, 1)]:
        with pytest.raises(UserError, match="one positive number per axis"):
            surface_figures(np.ones((1, 2, 3)), np.ones((1, 2, 3)), spacing)
    for tolerance in (-1, math.nan, math.inf):
        with pytest.raises(UserError, match="0 or more"):
            surface_figures(np.ones((1, 2, 3)), np.ones((1, 2, 3)), (1, 1, 1), tolerance)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (10.0, 1.56, 1.25)])
def test_hd_and_assd_agree_with_medpy(seed, spacing):
    medpy = pytest.importorskip("medpy.metric.binary")
    a, b = blobs(seed)
    distances = surface_figures(a, b, spacing)
    assert distances.hd == pytest.approx(medpy.hd(a, b, voxelspacing=spacing), rel=1e-12)
    # Not medpy.assd: since MedPy 0.5 it is one mean over both directions together, until 0.4 it was this one.
    directed = medpy.asd(a, b, voxelspacing=spacing), medpy.asd(b, a, voxelspacing=spacing)
    assert distances.assd == pytest.approx(np.mean(directed), rel=1e-12)


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # MONAI 1.6 warns of its own call
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (10.0, 1.56, 1.25)])
def test_hd_and_hd95_agree_with_monai(seed, spacing):
    monai = pytest.importorskip("monai.metrics")
    a, b = blobs(seed)
    distances = surface_figures(a, b, spacing)
    batch = [volume[None, None].astype(np.float32) for volume in (a, b)]
    for percentile, ours in [(95, distances.hd95), (None, distances.hd)]:
        options = dict(include_background=True, percentile=percentile, spacing=spacing)
        theirs = monai.compute_hausdorff_distance(*batch, **options)
        assert ours == pytest.approx(theirs.item(), rel=1e-5)  # MONAI's distances are float32


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
@pytest.mark.filterwarnings("ignore:the (prediction|ground truth) of class 0 is all 0:UserWarning")
@pytest.mark.parametrize("tolerance", [0.0, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (10.0, 1.56, 1.25), (5.0, 1.2, 1.6)])
def test_surface_dice_agrees_with_monai(spacing, tolerance):
    monai, torch = pytest.importorskip("monai.metrics"), pytest.importorskip("torch")
    empty = np.zeros((7, 24, 20), bool)
    for a, b in [*(blobs(seed) for seed in range(4)), (empty, blobs(0)[1]), (blobs(0)[0], empty), (empty, empty)]:
        batch = [torch.from_numpy(volume[None, None].astype(np.float32)) for volume in (a, b)]
        theirs = monai.compute_surface_dice(*batch, [tolerance], include_background=True, spacing=spacing)
        ours = surface_figures(a, b, spacing, tolerance).nsd
        assert ours == pytest.approx(theirs.item(), rel=1e-6, nan_ok=True)  # MONAI's share is a float32
