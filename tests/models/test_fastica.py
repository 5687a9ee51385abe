"""Bases by FastICA of the training frames: found before training, and left as they are by it."""

import jax
import numpy as np
import pytest
from tiny import SMALL

from ica_unet_jax.config import Config
from ica_unet_jax.data.augmentation import Batch
from ica_unet_jax.data.cache import canvas
from ica_unet_jax.data.learning_frame import LearningFrame
from ica_unet_jax.models import fastica
from ica_unet_jax.models.networks import method
from ica_unet_jax.training import loop, stepping

pytest.importorskip("sklearn.decomposition")
CONFIG = Config.make(**SMALL, bases_from="fastica", batch_size=1, learning_rate=0.01, warmup_steps=0, steps=10, devices=1)
SIZE = (2, 4, 4)


def frame_of(stack):
    return LearningFrame("a", 0, np.stack([0 * stack, stack, 0 * stack]).astype(np.float16), np.zeros(stack.shape, np.uint8), np.ones(stack.shape, bool))


def test_planted_bases_are_found():
    """All patches of a frame, where they are mixtures of two sparse patterns and a constant."""
    rng = np.random.default_rng(0)
    bases = rng.laplace(size=(2, 2, 16, 16))
    samples = [frame_of(np.einsum("m,mdij->dij", rng.standard_normal(2), bases) + rng.standard_normal()) for _ in range(50)]
    found = fastica.patterns(samples, (2, 16, 16), 3)
    assert found.shape == (2, 16, 16, 3) and (found[..., 0] == 1).all()
    np.testing.assert_allclose(np.square(found).mean((0, 1, 2)), 1, rtol=1e-6)
    both = np.corrcoef(bases.reshape(2, -1), found.reshape(-1, 3)[:, 1:].T)[:2, 2:]
    assert sorted(np.abs(both).argmax(1)) == [0, 1] and np.abs(both).max(1).min() > 0.9


def test_patches_lie_in_the_image_and_short_stacks_have_zeros_around():
    rng = np.random.default_rng(1)
    stack = np.full((2, 20, 20), np.nan)
    stack[:, 3:9, 5:14] = rng.uniform(1, 2, (2, 6, 9))
    sample = frame_of(stack)
    sample.valid[:] = np.isfinite(stack)
    patches = np.array(list(fastica._patches([sample], (4, 4, 4))))
    assert len(patches) == fastica.PATCHES and not patches[:, [0, 3]].any() and (patches[:, 1:3] >= 1).all()


def test_too_few_patches_say_so():
    with pytest.raises(fastica.TooFewDimensions, match="--bases_from=fastica: the training frames' 0 patches of 2x4x4 voxels span 0 dimensions, too few for 2"):
        fastica.patterns([frame_of(np.ones((2, 8, 8)))], SIZE, 3)


def test_training_leaves_them_as_they_are():
    depth, (rows, columns) = CONFIG.model.crop[0], canvas(CONFIG.model.crop)
    rng = np.random.default_rng(2)
    images = rng.standard_normal((1, 3, depth, rows, columns), np.float32)
    labels = rng.integers(0, 4, (1, depth, rows, columns)).astype(np.uint8)
    state = stepping.init_state(CONFIG)
    assert "dictionary" not in state.params["encoder"]
    prepared = method("ica_unet").prepare(state.batch_stats, [frame_of(images[0, 1])], CONFIG.model.crop)
    begun = np.array(prepared["encoder"]["dictionary"]["bases"])
    assert (begun != np.array(state.batch_stats["encoder"]["dictionary"]["bases"])).any()
    # Of a channel all patterns are as large as those with which a trained dictionary begins.
    ratio = np.square(begun).mean((0, 1, 2)) / np.square(np.array(state.batch_stats["encoder"]["dictionary"]["bases"])).mean((0, 1, 2))
    np.testing.assert_allclose(ratio, 1, rtol=1e-4)
    step, state = stepping.make_step(CONFIG), state.replace(batch_stats=prepared)
    batch = Batch(images, labels, np.ones(labels.shape, np.float32))
    state, _ = step(state, batch)
    state = stepping.recalibrated(CONFIG, state, [batch])
    np.testing.assert_array_equal(jax.device_get(state.batch_stats["encoder"]["dictionary"]["bases"]), begun)


def test_other_dictionaries_are_left_to_training():
    stats = stepping.init_state(CONFIG.replace(bases_from="dictionary")).batch_stats
    assert method("ica_unet").prepare(stats, [], CONFIG.model.crop) is stats


def test_what_is_missing_is_said_before_the_data_are_read(monkeypatch, tmp_path):
    def lacking(*arguments):
        raise RuntimeError("asked for")

    monkeypatch.setattr(fastica.packages, "require", lacking)
    with pytest.raises(RuntimeError, match="asked for"):
        loop.train(CONFIG.replace(workdir=str(tmp_path / "run")))
