"""The compiled geometry is NumPy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ica_unet_jax.data import geometry
from ica_unet_jax.data.geometry import OUTSIDE_LOGIT, place
from ica_unet_jax.inference import normalization
from ica_unet_jax.inference.native_grid import NativeGrid
from ica_unet_jax.runtime import compilation
from ica_unet_jax.runtime.compilation import Compilations

PLACES = [
    place((3, 20, 26), (10.0, 1.7, 1.4), (4, 16, 24), 1.5),  # short stack
    place((9, 24, 18), (10.0, 1.1, 2.3), (4, 16, 32), 1.5),  # four windows, wider than the image
    place((4, 16, 24), (10.0, 1.5, 1.5), (4, 16, 24), 1.5),  # the same grid
    place((1, 1, 30), (10.0, 1.0, 3.0), (2, 16, 16), 1.5),  # one slice, one row
    place((3, 41, 50), (10.0, 1.7, 1.1), (2, 16, 16), 1.5),  # much larger than the window
]


def frame_of(placement, seed=0):
    return np.random.default_rng(seed).gamma(2, 100, placement.shape).astype(np.float32)


@pytest.fixture(scope="module", params=PLACES, ids=str)
def grid(request):
    """One for all offsets."""
    return NativeGrid(request.param)


def offsets(placement):
    """The centre, the farthest corners, and something between."""
    rows, columns = placement.reach
    return {(0, 0), (-rows, -columns), (rows, -columns), (rows // 2, columns - columns // 3)}


def test_a_frame_in_the_windows(grid):
    frame = frame_of(grid.placement)
    for offset in offsets(grid.placement):
        placement = grid.placement.at(*offset)
        images, masks = zip(*grid.windows(frame, grid.offset(placement)), strict=True)
        expected = placement.forward(geometry.normalize(frame))
        np.testing.assert_allclose(np.concatenate(images)[..., 0], expected, atol=3e-6)
        np.testing.assert_array_equal(np.concatenate(masks)[..., 0], placement.valid)


def test_logits_and_labels_on_the_native_grid(grid):
    placement = grid.placement
    logits = np.random.default_rng(1).normal(size=(len(placement.windows), *placement.crop, 4)).astype(np.float32)
    windows = tuple(jax.device_put(logits[:, None]))
    for offset in offsets(placement):
        placement = placement.at(*offset)
        expected = placement.backward(logits)
        np.testing.assert_allclose(grid.logits(windows, grid.offset(placement)), expected, atol=3e-6)
        labels = np.asarray(grid.labels(windows, grid.offset(placement)))
        assert labels.dtype == np.uint8
        np.testing.assert_array_equal(labels, expected.argmax(-1))


LARGER = place((2, 41, 50), (10.0, 1.7, 1.1), (4, 16, 24), 1.5)  # one window, of more slices, that can move in both directions


@pytest.mark.parametrize("placement", [PLACES[0], *PLACES[2:4], LARGER], ids=str)
def test_labels_of_one_window_in_the_form_for_other_runtimes(placement):
    grid = NativeGrid(placement)
    assert len(grid.views) == 1
    logits = np.random.default_rng(1).normal(size=(1, *placement.crop, 4)).astype(np.float32)
    with compilation.plain():
        labels = jax.jit(lambda offset: grid.to_label_box((jnp.asarray(logits),), offset)[0]).lower(grid.offset(placement)).compile()
    for offset in offsets(placement):
        placement = placement.at(*offset)
        box, (row, column) = np.asarray(labels(grid.offset(placement))), grid.corner(placement)
        expected = placement.backward(logits).argmax(-1)[:, row : row + box.shape[1], column : column + box.shape[2]]
        np.testing.assert_array_equal(box, expected)


def test_windows_that_move_compile_nothing():
    placement = PLACES[-1]
    grid, frame = NativeGrid(placement), frame_of(placement)
    grid.windows(frame, grid.offset(placement))
    with Compilations() as found:
        for rows in range(-placement.reach[0], placement.reach[0] + 1):
            grid.windows(frame, grid.offset(placement.at(rows, 1)))
    assert found.count == 0 and placement.reach[0] > 3


def test_equal_logits_are_the_first_class_and_voxels_outside_are_background():
    placement = place((2, 12, 12), (10.0, 1.5, 1.5), (2, 8, 8), 1.5)
    logits = np.zeros((1, *placement.crop, 4), np.float32)
    logits[..., 2:] = 1
    grid = NativeGrid(placement)
    windows = (jax.device_put(logits),), grid.offset(placement)
    labels = np.asarray(grid.labels(*windows))
    assert (labels[placement.inside] == 2).all() and not labels[~placement.inside].any()
    outside = np.asarray(grid.logits(*windows))[~placement.inside]
    assert (outside == [OUTSIDE_LOGIT, 0, 0, 0]).all()


def test_mirrored_views_are_flipped_there_and_back():
    placement = PLACES[0]
    frame, plain, both = frame_of(placement), NativeGrid(placement), NativeGrid(placement, mirror=True)
    centre = plain.offset(placement)
    (straight,), views, axes = plain.windows(frame, centre), both.windows(frame, centre), ((), 3, 2, (2, 3))
    for view, flipped in zip(views, axes, strict=True):
        for a, b in zip(straight, view, strict=True):  # image and mask
            np.testing.assert_array_equal(b, np.flip(a, flipped))
    logits = np.random.default_rng(1).normal(size=(4, 1, *placement.crop, 4)).astype(np.float32)
    turned = tuple(np.ascontiguousarray(np.flip(x, flipped)) for x, flipped in zip(logits, axes, strict=True))
    mean = np.log(jax.nn.softmax(logits).mean(0))
    expected = plain.logits((jax.device_put(mean),), centre)
    np.testing.assert_allclose(both.logits(jax.device_put(turned), centre), expected, atol=1e-5)


numbers = st.floats(-(2.0**100), 2.0**100, width=32) | st.integers(-3, 3).map(float)  # negative, tiny, equal, both zeros


def _by_sorting_the_ends(frame):
    with compilation.plain():
        return normalization.percentiles(jnp.asarray(frame))


_percentiles = jax.jit(normalization.percentiles)
ways = pytest.mark.parametrize("percentiles", [_percentiles, _by_sorting_the_ends, geometry.limits], ids=["search", "ends", "NumPy"])


@ways
@settings(max_examples=60, deadline=None)
@given(arrays(np.float32, (2, 3, 5), elements=numbers))
def test_percentiles_of_any_numbers(percentiles, frame):
    found = np.array(percentiles(frame))
    # Exact at the order statistics, and NumPy's interpolation between two of them.
    expected = np.percentile(frame.astype(np.float64), geometry.PERCENTILES)
    ordered = np.sort(frame.ravel()).astype(np.float64)
    gap = np.array([ordered[1] - ordered[0], ordered[-1] - ordered[-2]])
    assert np.all(np.abs(found - expected) <= 1e-6 * (gap + np.abs(expected)) + 1e-37)


@ways
@pytest.mark.parametrize("size", [1, 2, 200, 201, 511, 512, 513, 4000, 70000])
def test_percentiles_of_any_number_of_values(percentiles, size):
    frame = np.random.default_rng(size).integers(0, 50, (1, 1, size)).astype(np.float32)
    if size == 70000:  # whose sample shows nothing of the ends
        frame[..., ::17], frame[..., 1::1000] = 25, 1e6
    np.testing.assert_allclose(percentiles(frame), np.percentile(frame, geometry.PERCENTILES), rtol=1e-5, atol=1e-5)


def test_a_column_never_counts_beyond_its_16_bits(monkeypatch):
    """One column would hold 70000 values, all of which are below the second threshold."""
    monkeypatch.setattr(normalization, "_LANES", 1)
    frame = np.arange(70000, dtype=np.float32).reshape(7, 100, 100)
    np.testing.assert_allclose(normalization.percentiles(jnp.asarray(frame)), np.percentile(frame, geometry.PERCENTILES), rtol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e4 / 3, -1e15])
def test_a_constant_frame_is_zeros(value):
    assert not np.asarray(normalization.normalize(jnp.full((3, 50, 70), value))).any()


def test_normalize_keeps_its_precision_in_a_large_frame():
    frame = np.random.default_rng(0).gamma(2, 100, (10, 256, 256)).astype(np.float32) + 1000
    found = jax.jit(normalization.normalize)(frame)
    np.testing.assert_allclose(found, geometry.normalize(frame), atol=2e-5)
