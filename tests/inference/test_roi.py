"""The window finds the heart, follows it, pastes its labels back where they belong, and compiles nothing on the way."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from places import SHARED_DATA
from tiny import SMALL, variables

from ica_unet_jax.config import Config
from ica_unet_jax.data.geometry import place
from ica_unet_jax.data.heart import middle
from ica_unet_jax.data.phantom.beating_heart import simulate
from ica_unet_jax.data.reading import find_cases, read
from ica_unet_jax.inference import roi
from ica_unet_jax.inference.roi import MEMORY, FollowingWindow, Sight, Window, find, tiles
from ica_unet_jax.inference.segmenters import Segmenter
from ica_unet_jax.runtime.compilation import Compilations
from ica_unet_jax.streaming.segmenter import StreamingSegmenter

REAL = SHARED_DATA / "acdc_full"
SHAPE, SPACING = (3, 150, 180), (10.0, 1.5, 1.5)  # three slices: two windows of the model's two
WIDE = place(SHAPE, SPACING, (2, 64, 64), 1.5)

wide = st.builds(
    lambda h, w, dy, dx: place((2, h, w), (10.0, dy, dx), (2, 64, 64), 1.5),
    st.integers(20, 300), st.integers(20, 300), st.floats(0.8, 2.5), st.floats(0.8, 2.5),
)  # fmt: skip


def disc(row, column, shape=SHAPE, radius=9, value=1):
    """A volume with a disc in each slice."""
    y, x = np.mgrid[: shape[1], : shape[2]]
    plane = np.where((y - row) ** 2 + (x - column) ** 2 <= radius**2, value, 0)
    return np.broadcast_to(plane, shape).astype(np.uint8)


def seen_through(truth):
    """A network that makes no mistake in what its window shows it."""
    return lambda placement: Sight(np.where(placement.inside, truth, 0), 0.0)


class Bright(Segmenter):
    """Bright voxels are LV. Where the neighbours that it may look at do not show the same window, all is RV."""

    @functools.cached_property
    def functions(self):
        offsets = self.config.model.frames

        def encode(variables, image, valid):
            self.traces += 1
            return image, valid

        def decode(variables, previous, current, following):
            self.traces += 1
            image, valid = current
            strange = sum(jnp.any(other[1] != valid) for o, other in ((-1, previous), (1, following)) if o in offsets)
            lv = jnp.where(image > 3, 5.0, -5.0)
            rv = jnp.where(strange > 0, 9.0, -9.0) * jnp.ones_like(image)
            return (jnp.concatenate([jnp.zeros_like(image), rv, -9.0 + 0 * image, lv], axis=-1),)

        return encode, decode


def bright(kind="both"):
    config = Config.make(**SMALL, neighbours=kind, bases_from="frame_with_coordinates")  # window by window, by `functions`
    return Bright(config, variables(config.model))


@pytest.fixture(scope="module")
def segmenters():
    return {kind: bright(kind) for kind in ("both", "past", "none")}


def frame_with(truth, seed=0):
    return (np.random.default_rng(seed).random(truth.shape) + 50 * truth).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(wide)
def test_tiles_cover_the_frame_and_overlap_by_half(placement):
    found = tiles(placement)
    assert np.any([tile.inside for tile in found], axis=0).all()
    assert len(set(found)) == len(found)
    for axis, size in enumerate(placement.crop[1:]):
        assert np.all(np.diff(sorted({tile.offset[axis] for tile in found})) <= size / 2)


@settings(max_examples=60, deadline=None)
@given(wide, st.floats(0, 1), st.floats(0, 1))
def test_a_window_at_the_middle_of_a_voxel_holds_it_in_its_centre(placement, y, x):
    labels = np.zeros(placement.shape, np.uint8)
    row, column = round(y * (labels.shape[1] - 1)), round(x * (labels.shape[2] - 1))
    labels[1, row, column] = 2
    centred = placement.at(*middle(labels, placement))
    assert centred.inside[1, row, column]
    shown = centred.forward(labels > 0)[0, 1]
    free = [abs(offset) < most for offset, most in zip(centred.offset, placement.reach, strict=True)]
    if all(free) and min(placement.spacing[1:]) >= placement.target_spacing:  # a coarser grid may miss a voxel
        assert shown[30:34, 30:34].max() == shown.max() > 0


def test_the_middle_is_the_median_and_nothing_has_none():
    labels = disc(40, 100)
    assert middle(labels, WIDE) == (40 - 74.5, 100 - 89.5)
    labels = labels | disc(140, 20, radius=5)  # a spot elsewhere moves it by little
    assert np.allclose(middle(labels, WIDE), (40 - 74.5, 100 - 89.5), atol=7)
    assert middle(np.zeros(SHAPE, np.uint8), WIDE) is None
    fine = place((3, 300, 180), (10.0, 0.75, 1.5), (2, 64, 64), 1.5)
    assert middle(disc(80, 100, fine.shape), fine) == ((80 - 149.5) / 2, 100 - 89.5)


@settings(max_examples=30, deadline=None)
@given(wide, st.floats(0.1, 0.9), st.floats(0.1, 0.9))
def test_the_heart_is_found_wherever_it_lies(placement, y, x):
    row, column = (round(f * n) for f, n in zip((y, x), placement.shape[1:], strict=True))
    truth = disc(row, column, placement.shape, radius=12 / max(placement.spacing[1:]))
    found, centre = find(seen_through(truth), placement)
    assert centre is not None and not truth[~found.inside].any()


def test_what_the_network_is_sure_of_wins_over_more_of_what_it_is_not():
    heart, liver = disc(40, 40, radius=12), disc(110, 140, radius=30, value=2)

    def look(placement):
        labels = np.where(placement.inside, heart + liver, 0)
        return Sight(labels, 0.5 if (labels == 2).any() else 0.1)

    found, centre = find(look, WIDE)
    assert np.allclose(centre, (40 - 74.5, 40 - 89.5)) and not heart[~found.inside].any()


def test_what_is_larger_than_a_heart_is_no_more_of_one():
    """As a network saw a patient's window on the heart, and one on the chest's wall (voxels of RV, myocardium and LV, entropy)."""

    def sight(counts, unsure):
        return Sight(np.repeat(np.arange(1, 4, dtype=np.uint8), counts)[None, None], unsure)

    assert roi.evidence(sight((2622, 2284, 2987), 0.228)) > roi.evidence(sight((4801, 13480, 25383), 0.461)) + 1
    assert roi.evidence(sight((9000, 9000, 9000), 0.2)) == roi.evidence(sight((90000, 9000, 9000), 0.2))


def test_a_small_heart_that_nobody_is_sure_of_is_more_than_nothing():
    spot = disc(40, 40, radius=2)
    found, centre = find(lambda placement: Sight(np.where(placement.inside, spot, 0), 0.6 * (placement.inside & (spot > 0)).any()), WIDE)
    assert np.allclose(centre, (40 - 74.5, 40 - 89.5)) and not spot[~found.inside].any()


def test_a_search_in_vain_stays_at_the_centre_and_is_repeated_after_as_many_empty_masks():
    window, looks = FollowingWindow(WIDE), []

    def nothing(placement):
        looks.append(placement)
        return Sight(np.zeros(SHAPE, np.uint8), 0.0)

    assert window.lost
    window.search(nothing)
    assert not window.lost and window.placement == WIDE and len(looks) == len(tiles(WIDE))
    for number in range(1, MEMORY + 1):
        window.saw(np.zeros(SHAPE, np.uint8))
        assert window.lost == (number == MEMORY)
    window.search(seen_through(disc(30, 40)))
    assert not window.lost and window.placement == WIDE.at(30 - 74.5, 40 - 89.5)


def at_once(row, column):
    window = FollowingWindow(WIDE)
    window.search(seen_through(disc(row, column)))
    return window


def test_bad_masks_move_nothing_unless_they_are_the_most():
    good, bad, empty = disc(75, 90), disc(20, 20), np.zeros(SHAPE, np.uint8)
    window = at_once(75, 90)
    before = window.placement
    for i in range(30):
        window.saw((bad, empty, good, good)[i % 4])
        assert window.placement == before and not window.lost
    for _ in range(MEMORY):
        window.saw(good)
    for i in range(MEMORY // 2 + 1):
        assert window.placement == before, i
        window.saw(bad)
    assert window.placement == WIDE.at(20 - 74.5, 20 - 89.5)  # cut at the frame's border


def test_a_beating_heart_does_not_make_the_window_tremble_and_a_drifting_one_never_leaves_it():
    window = at_once(75, 90)
    before = window.placement
    for t in range(40):
        window.saw(disc(75 + 3.9 * np.sin(t), 90 + 3.9 * np.cos(t)))
        assert window.placement == before
    offsets = []
    for row in np.arange(75, 125, 0.5):
        truth = disc(row, 90)
        assert not truth[~window.placement.inside].any()
        window.saw(np.where(window.placement.inside, truth, 0))
        offsets.append(window.placement.offset)
    assert 3 < len(set(offsets)) < 20  # steps, not one a frame


def test_a_window_that_stays_stays():
    window = Window(WIDE)
    window.saw(disc(20, 20))
    assert window.placement == WIDE and not window.lost and roi.open_window("centre", WIDE).placement == WIDE


@pytest.mark.parametrize("place_of_heart", [(75, 90), (75 - 32, 90), (75, 90 + 32), (75 + 32, 90 - 32), (14, 14)])
def test_labels_are_pasted_back_exactly(segmenters, place_of_heart):
    """Hearts as far as 32 voxels, 48 mm, off the centre in each direction, and one in the corner."""
    truth = disc(*place_of_heart)
    labels = segmenters["both"].segment_cine(np.stack([frame_with(truth, i) for i in range(3)]), SPACING, window="follow")
    np.testing.assert_array_equal(labels, np.stack([3 * truth] * 3))
    if place_of_heart != (75, 90):
        centred = segmenters["both"].segment_frame(frame_with(truth), SPACING)
        inside = WIDE.inside
        np.testing.assert_array_equal(centred, np.where(inside, 3 * truth, 0))


def cine_of(count=24):
    """A heart that drifts through the frame."""
    return np.stack([frame_with(disc(50 + 2 * t, 60 + 3 * t), t) for t in range(count)])


@pytest.mark.parametrize("kind", ["both", "past", "none"])
def test_a_stream_follows_as_the_offline_model_does_without_a_trace(segmenters, kind):
    segmenter, cine = bright(kind), cine_of()
    stream = StreamingSegmenter(segmenter, SHAPE, SPACING, window="follow")
    traces = segmenter.traces
    with Compilations() as found:
        results = [result for results in (*map(stream.push, cine), stream.flush()) for result in results]
        offline = segmenter.segment_cine(cine, SPACING, window="follow")
    assert found.count == 0 and segmenter.traces == traces
    np.testing.assert_array_equal([result.labels for result in results], offline)
    placements = [result.placement for result in results]
    assert 3 < len(set(placements)) < 20
    for t, (labels, placement) in enumerate(zip(offline, placements, strict=True)):
        truth = disc(50 + 2 * t, 60 + 3 * t)
        assert not truth[~placement.inside].any()
        np.testing.assert_array_equal(labels, 3 * truth)  # no RV: no neighbour was seen through another window


def test_a_frame_is_encoded_again_only_when_the_window_has_moved(segmenters, monkeypatch):
    segmenter, cine, encoded = segmenters["past"], cine_of(), []
    stream = StreamingSegmenter(segmenter, SHAPE, SPACING, window="follow")
    encode = segmenter.encode

    def counted(placement, frame):
        encoded.append(placement)
        return encode(placement, frame)

    first = stream.push(cine[0])
    monkeypatch.setattr(segmenter, "encode", counted)
    results = first + [result for frame in cine[1:] for result in stream.push(frame)]
    moves = sum(a.placement != b.placement for a, b in zip(results, results[1:], strict=False))
    assert moves > 2 and len(encoded) == len(cine) - 1 + moves  # the previous frame once more


def test_nothing_crosses_to_the_device_but_frames_and_a_new_offset(segmenters):
    stream = StreamingSegmenter(segmenters["past"], SHAPE, SPACING, window="follow")
    with jax.transfer_guard("disallow"):
        [result] = stream.push(frame_with(disc(20, 150)))
    assert result.labels.any()


def test_the_callers_buffer_is_free_although_the_frame_may_be_encoded_again(segmenters):
    stream, cine = StreamingSegmenter(segmenters["both"], SHAPE, SPACING, window="follow"), cine_of()
    buffer, results = np.empty(SHAPE, np.float32), []
    for frame in cine:
        buffer[:] = frame
        results += stream.push(buffer)
        buffer[:] = -1
    results = [result.labels for result in results + stream.flush()]
    np.testing.assert_array_equal(results, segmenters["both"].segment_cine(cine, SPACING, window="follow"))


def test_a_stream_finds_a_heart_again_that_was_gone(segmenters):
    stream = StreamingSegmenter(segmenters["past"], SHAPE, SPACING, window="follow")
    here, gone, there = (frame_with(truth) for truth in (disc(30, 30), 0 * disc(0, 0), disc(120, 150)))
    first, *others, last = [result.labels for frame in (here, *[gone] * MEMORY, there) for result in stream.push(frame)]
    assert first.any() and len(others) == MEMORY and not np.any(others)
    np.testing.assert_array_equal(last, 3 * disc(120, 150))


def test_a_heart_that_comes_back_in_the_last_frame_is_found_as_offline(segmenters):
    stream = StreamingSegmenter(segmenters["both"], SHAPE, SPACING, window="follow")
    here, gone, there = (frame_with(truth) for truth in (disc(30, 30), 0 * disc(0, 0), disc(120, 150)))
    cine = np.stack([here, *[gone] * MEMORY, there])
    answers = [result.labels for results in (*map(stream.push, cine), stream.flush()) for result in results]
    np.testing.assert_array_equal(answers, segmenters["both"].segment_cine(cine, SPACING, window="follow"))
    np.testing.assert_array_equal(answers[-1], 3 * disc(120, 150))


@pytest.mark.parametrize("index", range(5))
def test_a_phantom_off_the_centre_is_found_by_a_network_that_sees_it(index):
    shape, away = (8, 288, 288), 32  # 48 mm at 1.5 mm; cut to 256 x 256 with the heart aside
    phantom = simulate(3, index, shape, 2)
    for rows, columns in ((away, 0), (0, -away // 2), (-away // 2, away // 2)):
        cut = slice(16 - rows // 2, 272 - rows // 2), slice(16 - columns // 2, 272 - columns // 2)
        for truth in phantom.labels[:, :, cut[0], cut[1]]:
            found, _ = find(seen_through(truth), place(truth.shape, phantom.spacing, (8, 128, 128), 1.5))
            assert not truth[~found.inside].any()


@pytest.mark.skipif(not REAL.is_dir(), reason="no real patients beside the checkout")
def test_a_window_of_192_mm_on_a_real_heart_holds_it():
    cines = [read(case) for case in find_cases(REAL)]
    centre = outside = total = 0
    for cine in cines:
        placement = place(cine.frames.shape[1:], cine.spacing, (8, 128, 128), 1.5)
        for truth in cine.labels.values():
            found, _ = find(seen_through(truth), placement)
            total += np.count_nonzero(truth)
            centre += np.count_nonzero(truth[~placement.inside])
            outside += np.count_nonzero(truth[~found.inside])
    assert outside == 0 < total and centre > 0.001 * total
