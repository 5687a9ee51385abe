"""Three training steps give the losses that they gave before: nothing of the arithmetic changes by accident."""

import jax
import numpy as np
import pytest
from tiny import SMALL

from ica_unet_jax.config import Config
from ica_unet_jax.data.augmentation import Batch
from ica_unet_jax.data.cache import canvas
from ica_unet_jax.training import stepping

# Recorded at commit 77eeaed, on a CPU.
LOSSES = {
    "ica_unet": [2.501728, 2.474739, 2.337117],
    "unet3d": [2.750941, 2.780438, 2.665453],
}
CHANGES = {"ica_unet": SMALL | dict(streams="independent"), "unet3d": dict(model="unet3d", crop=(2, 32, 32), width_multiplier=0.05)}


@pytest.mark.parametrize("model", CHANGES)
def test_losses_of_three_steps(model):
    config = Config.make(**CHANGES[model], batch_size=2, dice_weight=0.5, learning_rate=0.01, warmup_steps=1, steps=10, devices=1, seed=1)
    depth, (rows, columns) = config.model.crop[0], canvas(config.model.crop)
    rng = np.random.default_rng(2)
    images = rng.standard_normal((2, 3, depth, rows, columns), np.float32)
    labels = rng.integers(0, 4, (2, depth, rows, columns)).astype(np.uint8)
    valid = np.ones(labels.shape, np.float32)
    valid[0, 0] = 0  # a padded slice
    step, state, found = stepping.make_step(config), stepping.init_state(config), []
    for _ in range(3):
        state, terms = step(state, Batch(images, labels, valid))
        found.append(float(jax.device_get(terms["loss"])))
    np.testing.assert_allclose(found, LOSSES[model], rtol=2e-5)
