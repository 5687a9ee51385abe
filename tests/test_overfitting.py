"""Each rival can learn: two ACDC-mini patients by heart. Minutes a network."""

from pathlib import Path

import numpy as np
import pytest

from ica_unet_jax import evaluation, training
from ica_unet_jax.config import MODELS, Config
from ica_unet_jax.data import acdc, cache
from ica_unet_jax.data.batches import Batches
from ica_unet_jax.inference import segmenter_of
from ica_unet_jax.metrics.overlap import structure_dice
from ica_unet_jax.models import METHODS

DATA = Path(__file__).parents[2] / "shared" / "data" / "acdc_mini"
STILL = dict(rotation=0.0, scaling=0.0, shift=0.0, elastic=0.0, slice_shift=0.0, gamma=0.0, brightness=0.0, noise=0.0, drop_neighbour=0.0)
WIDTHS = {"unet3d": 0.25, "ensemble_unet": 0.25, "msu_net": 0.5, "grid_net": 0.25, "omega_net": 0.5}
STEPS = 250


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="needs ACDC-mini beside the checkout")
@pytest.mark.parametrize("name", [name for name in MODELS if name != "ica_unet"])
def test_two_patients_by_heart(name, tmp_path):
    config = Config.make(
        model=name, crop=(8, 96, 96), spacing=1.65, span=3, width_multiplier=WIDTHS.get(name, 1.0), steps=STEPS, batch_size=4,
        optimizer="adam", learning_rate=3e-3, warmup_steps=10, ema_decay=0.9, **STILL,
    )  # fmt: skip
    chosen = acdc.find_cases(DATA)[:2]
    options = dict(crop=config.model.crop, spacing=1.65, reach=config.model.reach, cache_dir=tmp_path)
    samples = [frame for case in chosen for frame in cache.preprocessed(case, **options)]
    batches, step, state = Batches(samples, 8, 4, 0), training.make_step(config), training.init_state(config)
    state = state.replace(batch_stats=METHODS[name].prepare(state.batch_stats, samples, config.model.crop))
    for number in range(STEPS):
        state, _ = step(state, batches[number])
    segmenter = segmenter_of(config, state.variables)
    scores = []
    for case in chosen:
        cine = acdc.read(case)
        found, _ = evaluation.segment(segmenter, cine, sorted(cine.labels))
        scores += [list(structure_dice(found[time], truth).values()) for time, truth in cine.labels.items()]
    assert np.mean(scores) >= 0.95, np.mean(scores, axis=0)
