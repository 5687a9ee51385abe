
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from places import SHARED_DATA

from ica_unet_jax.data import geometry
from ica_unet_jax.data.geometry import OUTSIDE_LOGIT, fit_depth, place
from ica_unet_jax.data.reading import find_cases, read

REAL = SHARED_DATA

shapes = st.tuples(st.integers(1, 18), st.integers(5, 40), st.integers(5, 40))
sizes = st.floats(0.7, 3.0)
crops = st.tuples(st.integers(1, 6).map(lambda n: 2 * n), st.integers(3, 24).map(lambda n: 2 * n),
                  st.integers(3, 24).map(lambda n: 2 * n))
placements = st.builds(lambda shape, dy, dx, crop, target: place(shape, (8.0, dy, dx), crop, target),
                       shapes, sizes, sizes, crops, sizes)


def test_normalize():
    rng = np.random.default_rng(0)
    frame = rng.gamma(2, 100, (5, 30, 40)).astype(np.float32)
    frame[0, 0, 0] = 1e6
    result = geometry.normalize(frame)
    assert result.dtype == np.float32 and abs(result.mean()) < 1e-6 and abs(result.std() - 1) < 1e-6
    assert result.max() == result[0, 0, 0] == np.sort(result.ravel())[-10] < 10  # 0.5 % of 6000 voxels are 30
    np.testing.assert_allclose(geometry.normalize(frame * 3 + 50), result, atol=1e-5)
    for value in (0, 0.1, 1e4 / 3):
        assert not geometry.normalize(np.full((2, 3, 4), value)).any()


@pytest.mark.parametrize("size, new, step, where", [
    (5, 3, 1.0, [1, 2, 3]),
    (4, 2, 2.0, [0.5, 2.5]),
    (4, 4, 0.5, [0.75, 1.25, 1.75, 2.25]),
    (3, 4, 1.0, [-0.5, 0.5, 1.5, 2.5]),
])
def test_positions_share_the_centre(size, new, step, where):
    np.testing.assert_allclose(geometry.positions(size, new, step), where)


def test_interpolation_matrices():
    np.testing.assert_array_equal(geometry.interpolation(3, 4, 1), [[1, 0, 0], [.5, .5, 0], [0, .5, .5], [0, 0, 1]])
    nearest = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]]
    np.testing.assert_array_equal(geometry.interpolation(3, 4, 1, order=0), nearest)
    np.testing.assert_array_equal(geometry.interpolation(2, 4, 1), [[0, 0], [1, 0], [0, 1], [0, 0]])


def test_resample_is_the_dense_product():
    rng = np.random.default_rng(0)
    volumes, rows, columns = rng.normal(size=(3, 2, 7, 5)), rng.normal(size=(4, 7)), rng.normal(size=(6, 5))
    np.testing.assert_allclose(geometry.resample(volumes, rows, columns), rows @ volumes @ columns.T)


def millimetres(shape, spacing):
    """y and x of a grid's voxel centres in mm from the centre of the image, with a slice number, (3, s, h, w)."""
    axes = [np.arange(shape[0])] + [(np.arange(n) - (n - 1) / 2) * d for n, d in zip(shape[1:], spacing, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"))


@settings(max_examples=60, deadline=None)
@given(placements, st.integers(-40, 40), st.integers(-40, 40))
def test_a_window_that_moves_shows_the_same_voxels_further_on(placement, rows, columns):
    volume = np.random.default_rng(0).random(placement.shape)
    moved = placement.at(rows, columns)
    here, there = (where.forward(volume) for where in (placement, moved))
    for axis, by in zip((2, 3), moved.offset, strict=True):
        here, there = (np.roll(here, -by, axis), there) if by >= 0 else (here, np.roll(there, by, axis))
        kept = placement.crop[axis - 1] - abs(by)
        here, there = (x.take(range(max(0, kept)), axis) for x in (here, there))
    np.testing.assert_allclose(here, there, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(placements)
def test_windows_reach_every_corner_and_no_further_than_they_need(placement):
    rows, columns = placement.reach
    assert placement.at(-1000, 1000).offset == (-rows, columns)
    first, last = placement.at(-rows, -columns), placement.at(rows, columns)
    assert first.inside[0, 0, 0] and last.inside[0, -1, -1]
    for most, lines in zip((rows, columns), placement.lines, strict=True):
        assert lines.all() if most == 0 else not lines.all()


@settings(max_examples=60, deadline=None)
@given(placements, st.sampled_from([(0, 0), (-5, 3), (40, -40)]))
def test_forward_and_backward_keep_every_point_in_place(placement, offset):
    """Coordinates in mm are linear functions, which linear interpolation reproduces away from the borders."""
    placement = placement.at(*offset)
    native = millimetres(placement.shape, placement.spacing[1:])
    target = placement.target_spacing
    depth = placement.crop[0]
    front = geometry.front_padding(placement.shape[0], depth)
    centre = np.array([0, *placement.offset]).reshape(3, 1, 1, 1) * target  # of the windows
    grid = millimetres(placement.crop, (target, target)) + centre
    half = [placement.shape[i] * placement.spacing[i] / 2 for i in (1, 2)]
    # A voxel's outer half at the border takes the border's value, so look at the interior only.
    interior = np.all([np.abs(grid[i]) <= half[i - 1] - placement.spacing[i] / 2 for i in (1, 2)], axis=0)
    for axis in range(3):
        windows = placement.forward(native[axis])
        assert windows.shape == (len(placement.windows), *placement.crop) and windows.dtype == np.float32
        for start, window, valid in zip(placement.windows, windows, placement.valid, strict=True):
            expected = grid[0] + start - front if axis == 0 else grid[axis]
            np.testing.assert_allclose(window[interior & valid], expected[interior & valid], atol=1e-4)
            assert not window[~valid].any()

    stack = np.stack([np.stack([grid[0] + start - front, grid[1], grid[2]], axis=-1) for start in placement.windows])
    back = placement.backward(stack)
    assert back.shape == (*placement.shape, 3) and back.dtype == np.float32
    window = [placement.crop[i] * target / 2 for i in (1, 2)]
    interior = np.all([np.abs(native - centre)[i] <= window[i - 1] - target / 2 for i in (1, 2)], axis=0)
    interior &= placement.inside
    np.testing.assert_allclose(back[interior], np.moveaxis(native, 0, -1)[interior], atol=1e-4)
    assert (back[~placement.inside] == [OUTSIDE_LOGIT, 0, 0]).all()
    covered = np.all([np.abs(native - centre)[i] <= window[i - 1] + 1e-4 for i in (1, 2)], axis=0)
    np.testing.assert_array_equal(placement.inside, covered)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 10).map(lambda n: 2 * n))
def test_windows_cover_the_stack(slices, depth):
    starts = geometry.window_starts(slices, depth)
    assert starts[0] == 0 and starts[-1] + depth == geometry.stack_depth(slices, depth)
    assert 0 <= geometry.stack_depth(slices, depth) - max(slices, depth) <= 1
    assert all(0 < b - a <= depth / 2 + 1 and b % 2 == 0 for a, b in zip(starts, starts[1:], strict=False))
    front = geometry.front_padding(slices, depth)
    assert front % 2 == 0 and abs(max(0, depth - slices) - 2 * front) <= 3


def test_fit_depth():
    stack = np.arange(1, 8).reshape(7, 1, 1) * np.ones((2, 7, 3, 4), int)
    assert fit_depth(stack, 10).shape == (2, 10, 3, 4)
    assert fit_depth(stack, 10)[0, :, 0, 0].tolist() == [1, 2, 3, 4, 5, 6, 7, 0, 0, 0]
    assert fit_depth(stack, 12)[0, :, 0, 0].tolist() == [0, 0, 1, 2, 3, 4, 5, 6, 7, 0, 0, 0]
    assert fit_depth(stack, 4, 3)[1, :, 2, 3].tolist() == [4, 5, 6, 7]
    assert fit_depth(stack, 4, 4)[1, :, 2, 3].tolist() == [5, 6, 7, 0]
    for start in (-1, 5):
        with pytest.raises(ValueError, match="cannot start"):
            fit_depth(stack, 4, start)


def test_overlapping_windows_are_averaged():
    placement = place((11, 8, 8), (10, 1, 1), (10, 8, 8), 1.0)
    logits = np.stack([np.full((10, 8, 8, 2), value, np.float32) for value in (1, 3)])
    assert placement.windows == [0, 2]
    assert placement.backward(logits)[:, 4, 4, 1].tolist() == [1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3]


def test_same_grid_is_the_identity():
    volume = np.random.default_rng(0).normal(size=(6, 12, 16)).astype(np.float32)
    placement = place(volume.shape, (10, 1.5, 1.5), volume.shape, 1.5)
    for order in (0, 1):
        np.testing.assert_array_equal(placement.forward(volume, order)[0], volume)
    np.testing.assert_array_equal(placement.backward(volume[None, ..., None])[..., 0], volume)
    assert placement.inside.all() and placement.valid.all()
    shifted = place(volume.shape, (10, 1.5, 1.5), (6, 8, 8), 1.5)
    np.testing.assert_array_equal(shifted.forward(volume)[0], volume[:, 2:-2, 4:-4])


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the ACDC samples")
@pytest.mark.parametrize("cohort", ["acdc_mini", "acdc_full"])
def test_round_trip_of_real_labels(cohort):
    for case in find_cases(REAL / cohort)[:6]:
        cine = read(case)
        placement = place(cine.frames.shape[1:], cine.spacing, (10, 192, 192), 1.5)
        for truth in cine.labels.values():
            one_hot = np.stack([placement.forward(truth == label) for label in range(4)], axis=-1)
            back = geometry.argmax_labels(placement.backward(one_hot))
            for label in (1, 2, 3):
                a, b = back == label, truth == label
                assert 2 * np.sum(a & b) / (np.sum(a) + np.sum(b)) >= 0.998
