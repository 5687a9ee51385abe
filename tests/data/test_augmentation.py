"""One warp for frames, labels and mask; nothing drawn, nothing changed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import normal

from ica_unet_jax.config import DataConfig
from ica_unet_jax.data import augmentation
from ica_unet_jax.data.augmentation import Batch, augment, crop_centre
from ica_unet_jax.labels import UNLABELLED

CANVAS, CROP = (2, 40, 48), (2, 32, 32)
OFF = dict(rotation=0.0, scaling=0.0, shift=0.0, elastic=0.0, slice_shift=0.0)
COLOURS_OFF = dict(gamma=0.0, brightness=0.0, noise=0.0, blur=0.0, bias_field=0.0, ghosting=0.0, spike=0.0, drop_neighbour=0.0)
STILL = OFF | COLOURS_OFF
STRONG = dict(rotation=90.0, scaling=0.3, shift=5.0, elastic=3.0, slice_shift=2.0, flip=True)


def run(batch, seed=0, **config):
    """Not compiled: every configuration would be compiled anew."""
    return augment(jax.random.key(seed), batch, CROP, DataConfig(**config))


def sample(frames=None, labels=None, valid=None, count=8):
    """Eight samples of noise, random labels and a full mask, where nothing else is given."""
    labels = np.random.default_rng(1).integers(0, 4, (count, *CANVAS)) if labels is None else labels
    return Batch(
        normal(0, count, 3, *CANVAS) if frames is None else jnp.float32(frames),
        jnp.asarray(labels, jnp.uint8),
        jnp.ones((count, *CANVAS)) if valid is None else jnp.float32(valid),
    )


def disc():
    """A disc beside the centre, and the three frames that show it."""
    y, x = np.indices(CANVAS[1:])
    plane = np.hypot(y - 18, x - 27) < 9
    mask = np.broadcast_to(plane, (8, *CANVAS))
    return mask, np.repeat(mask[:, None], 3, axis=1)


def test_nothing_drawn_is_the_centre():
    batch = sample()
    for actual, expected in zip(run(batch, **STILL), crop_centre(batch, CROP), strict=True):
        assert actual.dtype == expected.dtype
        np.testing.assert_array_equal(actual, expected)


def test_the_centre_is_in_the_middle():
    centre = crop_centre(sample(), CROP)
    assert centre.labels.shape == (8, *CROP) and centre.frames.shape == (8, 3, *CROP)
    np.testing.assert_array_equal(centre.labels, sample().labels[:, :, 4:36, 8:40])


def test_a_key_fixes_the_batch():
    batch = sample()
    one, same, other = (run(batch, seed, **STRONG) for seed in (0, 0, 1))
    for a, b in zip(one, same, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(one.frames, other.frames)
    repeated = jax.tree.map(lambda x: jnp.repeat(x[:1], 8, axis=0), batch)
    assert not np.array_equal(*run(repeated, **STRONG).labels[:2])  # samples have draws of their own


@pytest.mark.parametrize("seed", range(2))
def test_labels_move_with_the_image(seed):
    mask, frames = disc()
    y = run(sample(frames, 3 * mask), seed, **STRONG | COLOURS_OFF)
    image, inside = y.frames[:, 1], y.valid > 0
    decided = inside & (np.abs(image - 0.5) > 1e-4)
    np.testing.assert_array_equal(y.labels[decided], np.where(image[decided] > 0.5, 3, 0))
    assert np.count_nonzero(y.labels == 3) > 100
    assert not np.array_equal(y.labels, crop_centre(sample(frames, 3 * mask), CROP).labels)


def test_the_three_frames_move_and_change_colour_together():
    _, frames = disc()
    y = run(sample(frames), **STRONG | dict(noise=0.0, drop_neighbour=0.0))
    np.testing.assert_array_equal(y.frames[:, 0], y.frames[:, 1])
    np.testing.assert_array_equal(y.frames[:, 2], y.frames[:, 1])
    noisy = run(sample(frames), **STRONG | dict(noise=0.1, drop_neighbour=0.0))
    assert not np.array_equal(noisy.frames[:, 0], noisy.frames[:, 1])


def test_only_what_is_read_from_image_alone_is_valid():
    valid = np.zeros((8, *CANVAS))
    valid[:, :1, 8:34, 10:38] = 1
    y = run(sample(np.repeat(valid[:, None], 3, axis=1), 2 * valid, valid), **STRONG | COLOURS_OFF)
    assert set(np.unique(y.valid)) == {0, 1}
    inside = y.valid > 0
    assert 200 < np.count_nonzero(inside[:, 0]) < inside[:, 0].size and not np.any(inside[:, 1])
    for frame in np.moveaxis(y.frames, 1, 0):
        np.testing.assert_allclose(frame[inside], 1, atol=2e-3)
        assert not np.any(frame[~inside])
    assert np.all(y.labels[inside] == 2) and not np.any(y.labels[~inside])


def test_what_lies_beyond_the_canvas_is_not_valid():
    y = run(sample(), **STILL | dict(shift=40.0))
    assert 0 < np.count_nonzero(y.valid) < y.valid.size
    assert not np.any(y.frames[np.repeat(y.valid[:, None] == 0, 3, axis=1)])


def test_a_mirror_image_is_the_only_thing_that_flip_makes():
    batch = sample(count=16)
    there, y = crop_centre(batch, CROP), run(batch, **STILL | dict(flip=True))
    images = [np.flip(there.labels, axes) for axes in ((), -1, -2, (-2, -1))]
    found = [[np.array_equal(a, b) for b in labels] for a, labels in zip(y.labels, zip(*images, strict=True), strict=True)]
    assert np.all(np.sum(found, axis=1) == 1) and np.all(np.any(found, axis=0))  # each is one of the four, and all four come


def test_a_dropped_neighbour_is_the_frame_itself():
    batch = sample()
    middle = crop_centre(batch, CROP).frames[:, 1]
    y = run(batch, **STILL | dict(drop_neighbour=1.0)).frames
    for neighbour in (0, 1, 2):
        np.testing.assert_array_equal(y[:, neighbour], middle)
    dropped = set()
    for seed in range(4):
        y = run(batch, seed, **STILL | dict(drop_neighbour=0.5)).frames
        np.testing.assert_array_equal(y[:, 1], middle)
        dropped |= {tuple(bool(np.array_equal(y[i, j], middle[i])) for j in (0, 2)) for i in range(8)}
    assert dropped == {(a, b) for a in (True, False) for b in (True, False)}  # the two independently


@pytest.mark.parametrize("knob", [k for k in STILL if k != "drop_neighbour"])
def test_every_knob_turns_something(knob):
    batch = sample()
    y, still = run(batch, **STILL | {knob: 0.5}), crop_centre(batch, CROP)
    inside = np.asarray(y.valid) > 0
    assert not np.allclose(y.frames[:, 1][inside], still.frames[:, 1][inside], atol=1e-3)
    if knob in COLOURS_OFF:
        np.testing.assert_array_equal(y.labels, still.labels)


def test_a_stack_moves_through_the_depth_as_a_whole():
    depth = 6
    labels = np.broadcast_to(1 + np.arange(depth)[None, :, None, None] % 3, (40, depth, *CANVAS[1:]))
    frames = np.broadcast_to(1.0 + np.arange(depth)[None, None, :, None, None], (40, 3, depth, *CANVAS[1:]))
    batch = Batch(jnp.float32(frames), jnp.asarray(labels, jnp.uint8), jnp.ones((40, depth, *CANVAS[1:])))
    moved = augment(jax.random.key(0), batch, (depth, 32, 32), DataConfig(**STILL, depth_shift=2))
    seen = set()
    for frame, mask, valid in zip(*(np.asarray(x) for x in moved), strict=True):
        inside = valid.any((1, 2))
        shift = int(np.argmax(inside)) - int(np.argmax(inside[::-1]))
        numbers = np.arange(depth) - shift  # the slice that lies there now
        np.testing.assert_array_equal(inside, (numbers >= 0) & (numbers < depth))
        for z in np.flatnonzero(inside):
            assert (frame[:, z] == 1 + numbers[z]).all() and (mask[z] == 1 + numbers[z] % 3).all()
        assert not frame[:, ~inside].any() and not mask[~inside].any()
        seen.add(shift)
    assert seen == {-2, -1, 0, 1, 2}


def test_some_slice_of_a_thin_stack_stays_in_the_grid():
    one = jax.tree.map(lambda x: x[0], numbered(first=0, last=0, count=1))
    for seed in range(20):
        assert np.asarray(augmentation._shift_depth(jax.random.key(seed), one, 4).valid).any()


def test_what_has_no_ground_truth_has_none_after_the_warp():
    labels = np.array(sample().labels)
    labels[4:] = UNLABELLED
    warped = run(sample(labels=labels), **STRONG | COLOURS_OFF)
    inside = np.asarray(warped.valid, bool)
    assert np.all(np.asarray(warped.labels)[4:][inside[4:]] == UNLABELLED) and not np.asarray(warped.labels)[~inside].any()
    assert np.asarray(warped.labels)[:4].max() < 4


def test_slices_are_turned_round_in_their_place():
    """Three slices behind one of padding, of six: the order alone changes, padding stays where it was."""
    depth, shown = 6, slice(1, 4)
    valid, labels = np.zeros((40, depth, *CANVAS[1:])), np.zeros((40, depth, *CANVAS[1:]))
    valid[:, shown], labels[:, shown] = 1, np.array([1, 2, 3])[:, None, None]
    y = augment(jax.random.key(0), sample(np.repeat(labels[:, None], 3, axis=1), labels, valid, 40), (depth, *CROP[1:]), DataConfig(**STILL | dict(flip_slices=True)))
    np.testing.assert_array_equal(y.valid, valid[..., 4:36, 8:40])
    orders = y.labels[:, shown, 16, 16]
    assert {tuple(order.tolist()) for order in orders} == {(1, 2, 3), (3, 2, 1)}
    for frame in np.moveaxis(y.frames, 1, 0):
        np.testing.assert_array_equal(frame, y.labels)


def numbered(depth=6, first=1, last=4, count=60):
    """A stack in the grid whose slices hold their number, 1 for `first`, and whose labels say it too."""
    number = np.zeros((count, depth, *CANVAS[1:]))
    number[:, first : last + 1] = (1 + np.arange(last + 1 - first))[:, None, None]
    return sample(np.repeat(number[:, None], 3, axis=1), number % 4, number > 0, count)


def orders(batch):
    """The numbers of the slices that each sample shows, and where the first of them lies; frames, labels and mask agree."""
    found = []
    for frames, labels, valid in zip(*map(np.asarray, batch), strict=True):
        shown = valid.any((1, 2))
        for frame in frames:
            assert all(frame[z].min() == frame[z].max() for z in range(len(shown)))
            np.testing.assert_array_equal(labels, frame % 4)
            assert not frame[~shown].any() and np.all(frame[shown] > 0)
        found.append((int(shown.argmax()), tuple(frames[0, shown, 0, 0].astype(int).tolist())))
    return found


def test_a_missing_slice_is_one_of_the_stack_and_the_others_close_up():
    y = augment(jax.random.key(0), numbered(), (6, *CROP[1:]), DataConfig(**STILL, missing_slice=0.8))
    assert set(orders(y)) == {(1, rest) for rest in ((1, 2, 3, 4), (2, 3, 4), (1, 3, 4), (1, 2, 4), (1, 2, 3))}
    alone = jax.tree.map(lambda x: x[0], numbered(last=1, count=1))
    assert np.asarray(augmentation._lose_a_slice(jax.random.key(0), alone, 1.0).valid).any()  # or nothing would be left to learn from


def test_a_thin_stack_is_a_run_of_the_slices():
    y = augment(jax.random.key(0), numbered(), (6, *CROP[1:]), DataConfig(**STILL, thin_stack=0.8))
    runs = {(first, tuple(range(first, last + 1))) for first in range(1, 5) for last in range(first, 5)}
    found = set(orders(y))
    assert found <= runs and len(found) >= 8 and (1, (1, 2, 3, 4)) in found


def test_a_bias_field_is_smooth_and_leaves_air_black():
    frames = np.ones((8, 3, *CANVAS))
    frames[..., 30:] = -1  # air
    y = run(sample(frames), **STILL | dict(bias_field=0.5)).frames
    air, tissue = np.asarray(y[..., 24:]), np.asarray(y[..., :21])
    gain = np.log((tissue + 1) / 2)
    assert np.all(air[..., 3:] == -1) and 0.3 < gain.std() < 0.6
    assert np.abs(np.diff(gain, axis=-1)).max() < 0.4  # control points are eight voxels apart
    np.testing.assert_array_equal(y[:, 0], y[:, 2])


def test_stripes_have_one_frequency():
    frames = np.zeros((8, 3, *CANVAS))
    y = np.asarray(run(sample(frames), **STILL | dict(spike=1.0)).frames[:, 1, 0], np.float64)
    for image in y:
        power = np.sort((np.abs(np.fft.fft2(image * np.outer(np.hanning(32), np.hanning(32)))) ** 2).ravel())
        assert np.abs(image).max() <= 1 and power[-18:].sum() > 0.95 * power.sum()  # a peak and its mirror image, as wide as the window makes them


def test_a_ghost_is_the_frame_beside_itself():
    batch = sample()
    there, y = np.asarray(crop_centre(batch, CROP).frames), np.asarray(run(batch, **STILL | dict(ghosting=0.5)).frames)
    shifts = [(axis, 32 // apart) for axis in (-2, -1) for apart in (2, 3, 4)]
    for image, seen in zip(there, y, strict=True):
        ghost = seen - image
        shares = [np.vdot(ghost, moved) / np.vdot(moved, moved) for moved in (np.roll(image, by, axis) for axis, by in shifts)]
        best = int(np.argmax(shares))
        assert 0 <= shares[best] <= 0.5
        np.testing.assert_allclose(ghost, shares[best] * np.roll(image, shifts[best][1], shifts[best][0]), atol=1e-4)


@pytest.mark.parametrize("kind", ["noise", "blur", "bias_field", "ghosting", "spike"])
def test_each_kind_of_damage_is_done_to_a_share_of_the_samples(kind):
    """Samples are left alone, or as with a share of 1."""
    batch = sample(count=64)
    there, whole, half, none = (
        np.asarray(x) for x in (crop_centre(batch, CROP).frames, *(run(batch, **STILL | {kind: 0.5}, damage=share).frames for share in (1.0, 0.5, 0.0)))
    )
    same, damaged = (np.array([np.allclose(a, b, atol=1e-5) for a, b in zip(half, other, strict=True)]) for other in (there, whole))
    assert np.all(same ^ damaged) and 16 < damaged.sum() < 48
    np.testing.assert_allclose(none, there, atol=1e-5)


def test_kinds_of_damage_come_apart():
    batch = sample(count=64)
    there = np.asarray(crop_centre(batch, CROP).frames)
    hit = [[not np.allclose(a, b, atol=1e-5) for a, b in zip(run(batch, **STILL | {kind: 0.5}, damage=0.5).frames, there, strict=True)] for kind in ("blur", "ghosting", "spike")]
    assert len(set(map(tuple, hit))) == 3
