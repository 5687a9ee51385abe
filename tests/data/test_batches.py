"""Batches are a function of the seed and the step."""

import dataclasses
import itertools

import numpy as np
import pytest

from ica_unet_jax.data.batches import Batches
from ica_unet_jax.data.learning_frame import LearningFrame


def sample(number, slices=2):
    """All frames show 100 * number + slice, as do the labels, modulo 256."""
    image = (100 * number + np.arange(slices))[:, None, None] * np.ones((1, 4, 6))
    frames = np.stack([image - 0.25, image, image + 0.25]).astype(np.float16)
    return LearningFrame(f"case{number}", 0, frames, (image % 256).astype(np.uint8), np.ones(image.shape, bool))


SAMPLES = [sample(number) for number in range(5)]


def numbers(batches):
    return [int(frames[1, 0, 0, 0]) // 100 for batch in batches for frames in batch.frames]


def same(a, b):
    return all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_types_and_shapes():
    batch = Batches(SAMPLES, 2, 3, 0)[0]
    assert batch.frames.shape == (3, 3, 2, 4, 6) and batch.labels.shape == batch.valid.shape == (3, 2, 4, 6)
    assert (batch.frames.dtype, batch.labels.dtype, batch.valid.dtype) == (np.float32, np.uint8, np.float32)
    np.testing.assert_array_equal(batch.frames[:, 2] - batch.frames[:, 0], 0.5)


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_every_sample_once_an_epoch_in_an_order_of_its_own(batch_size):
    batches = Batches(SAMPLES, 2, batch_size, 0)
    seen = numbers(batches[step] for step in range(-(-30 // batch_size)))
    epochs = [tuple(seen[i : i + 5]) for i in range(0, 30, 5)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len(set(epochs)) > 1


def test_seed_and_step_fix_a_batch():
    batches = Batches([sample(n, 5) for n in range(5)], 2, 2, 3)
    again = Batches([sample(n, 5) for n in range(5)], 2, 2, 3)
    assert all(same(batches[step], again[step]) for step in (7, 0, 7, 3))
    other = Batches([sample(n, 5) for n in range(5)], 2, 2, 4)
    assert not all(same(batches[step], other[step]) for step in range(4))


def test_iterating_is_indexing_and_goes_on_where_it_stopped():
    batches = Batches([sample(n, 5) for n in range(5)], 2, 2, 0)
    whole = list(batches.iterate(0, 6))
    assert len(whole) == 6 and all(same(batch, batches[step]) for step, batch in enumerate(whole))
    resumed = [*itertools.islice(batches.iterate(0, 6), 2), *batches.iterate(2, 6)]
    assert all(same(a, b) for a, b in zip(whole, resumed, strict=True))
    assert list(batches.iterate(6, 6)) == []


def test_frames_without_ground_truth_have_the_last_rows_and_epochs_of_their_own():
    others = [dataclasses.replace(sample(number), labelled=False) for number in range(5, 8)]
    plain, mixed = Batches(SAMPLES, 2, 2, 0), Batches([*others, *SAMPLES], 2, 3, 0, unlabelled=1)
    seen = [numbers([mixed[step]]) for step in range(6)]
    assert [row[:2] for row in seen] == [numbers([plain[step]]) for step in range(6)]
    assert all(sorted(row[2] for row in epoch) == [5, 6, 7] for epoch in (seen[:3], seen[3:]))


def test_every_depth_window_of_a_long_stack_is_seen():
    batches = Batches([sample(1, 5)], 2, 1, 0)
    starts = set()
    for batch in batches.iterate(0, 40):
        first, second = batch.frames[0, 1, :, 0, 0] - 100
        assert second == first + 1 and np.all(batch.labels[0, :, 0, 0] - 100 == [first, second])
        starts.add(first)
    assert starts == {0, 1, 2, 3}


def test_a_short_stack_is_padded_with_what_is_not_valid():
    [frames], [labels], [valid] = Batches([sample(1, 2)], 6, 1, 0)[0]
    np.testing.assert_array_equal(valid[:, 0, 0], [0, 0, 1, 1, 0, 0])
    assert not np.any(frames[:, valid == 0]) and not np.any(labels[valid == 0])
    np.testing.assert_array_equal(frames[1, 2:4, 0, 0], [100, 101])


def test_a_failing_reader_is_heard():
    with pytest.raises(ZeroDivisionError):
        list(Batches([], 2, 1, 0).iterate(0, 1))
