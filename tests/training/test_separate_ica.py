"""The ICA-encoder learns by itself, by its own loss, and is then left as it is."""

import jax
import numpy as np
import pytest
from tiny import SMALL

from ica_unet_jax.config import Config
from ica_unet_jax.data.augmentation import Batch
from ica_unet_jax.data.cache import canvas
from ica_unet_jax.errors import UserError
from ica_unet_jax.models import losses
from ica_unet_jax.training import stepping


def test_first_the_encoder_learns_then_the_others():
    config = Config.make(**SMALL, batch_size=1, learning_rate=0.01, warmup_steps=0, steps=10, separate_ica_steps=2, devices=1)
    depth, (rows, columns) = config.model.crop[0], canvas(config.model.crop)
    rng = np.random.default_rng(2)
    images = rng.standard_normal((1, 3, depth, rows, columns), np.float32)
    labels = rng.integers(0, 4, (1, depth, rows, columns)).astype(np.uint8)
    batch = Batch(images, labels, np.ones(labels.shape, np.float32))
    step, state = stepping.make_step(config), stepping.init_state(config)
    for number in range(4):
        before = jax.device_get(state.params)
        state, terms = step(state, batch)
        changed = {name: any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (before[name], jax.device_get(state.params)[name])), strict=True)) for name in before}
        alone = number < 2
        assert changed == {name: alone == (name == "encoder") for name in before} and len(before) > 1
        ica = sum(weight * terms[name] for name, weight in losses.weights(config.loss).items())
        assert (abs(float(terms["loss"] - ica)) < 1e-6) == alone


@pytest.mark.parametrize("changes", [dict(ica_weight=0.0), dict(model="unet2d"), dict(steps=5, separate_ica_steps=5)])
def test_there_is_something_to_learn_for_both(changes):
    with pytest.raises(UserError, match="--separate_ica_steps=5"):
        Config.make(**dict(steps=10, separate_ica_steps=5) | changes)
