"""Optimizers and their schedules over the steps of a training."""

from __future__ import annotations

from typing import Any

import jax
import optax

from ica_unet_jax.config import TrainConfig


def warmup_steps(config: TrainConfig) -> int:
    """Steps of warm-up: a tenth of a short training at most."""
    return min(config.warmup_steps, config.steps // 10)


def make_optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """Clipping, then the optimizer with its schedule over `config.steps`."""
    warmup, decay = warmup_steps(config), config.steps
    if config.schedule == "cosine":
        rate = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, warmup, decay, 0.01 * config.learning_rate)
    else:
        after = {
            "constant": optax.constant_schedule(config.learning_rate),
            "polynomial": optax.polynomial_schedule(config.learning_rate, 0.0, 0.9, decay - warmup),
            "exponential": optax.exponential_decay(config.learning_rate, decay - warmup, 0.01),
        }[config.schedule]
        rate = optax.join_schedules([optax.linear_schedule(0.0, config.learning_rate, warmup), after], [warmup])
    optimizer = {
        "adamw": lambda: optax.adamw(rate, weight_decay=config.weight_decay, mask=None if config.decay_everything else kernels),
        "adam": lambda: optax.adam(rate),
        "sgd": lambda: optax.sgd(rate, momentum=config.momentum, nesterov=True),
    }[config.optimizer]()
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    return optax.chain(clip, optimizer)


def kernels(params: Any) -> Any:
    """True at the kernels of `params`. Towards zero is no sensible way for a scale, an offset or a pattern of the dictionary."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)
