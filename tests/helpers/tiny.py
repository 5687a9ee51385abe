"""The smallest network, random values for it, a run folder of them, and the shortest training, that the tests share."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ica_unet_jax.config import Config
from ica_unet_jax.models.networks import build_model
from ica_unet_jax.runs import run_folder
from ica_unet_jax.runs.checkpoints import Checkpoints, State
from ica_unet_jax.runs.log import read_metrics
from ica_unet_jax.training.optimizers import make_optimizer

SMALL = dict(
    crop=(2, 64, 64), contracting_blocks=2, bases=3, stream_width=2, projection_width=2,
    encoder_width=4, encoder_convs=1, decoder_width=4, correlation_radius=1,
)  # fmt: skip
# The cheapest training, of a network of which the loop knows nothing.
LOOP = dict(
    model="unet2d", crop=(2, 32, 32), unet_width=1, batch_size=1, steps=4, evaluate_every=2, log_every=1, folds=2, chance_validations=0,
    devices=1,
)  # fmt: skip


def tiny(**changes):
    """A `ModelConfig` of the smallest size, with some knobs changed."""
    return Config.make(**SMALL | changes).model


def normal(seed, *shape):
    """Standard normal float32 numbers."""
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def assert_same_bytes(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes(), jax.tree_util.keystr(path)


def copy(state):
    """A state that a step may consume."""
    return jax.tree.map(jnp.copy, state)


def folder(config):
    return Path(config.train.workdir)


def lines(config):
    """metrics.jsonl without the clock."""
    clock = {"seconds_per_step", "compiled"}
    return [{k: v for k, v in line.items() if k not in clock} for line in read_metrics(folder(config))]


def frames(config, batch=1):
    """What stands before a frame, the frame, what follows it, and a mask of ones."""
    shape = (batch, *config.crop)
    return (*(normal(seed, *shape, n) for seed, n in enumerate((config.reach, 1, config.reach))), jnp.ones((*shape, 1)))


def abstract(config, batch=1):
    """`frames`, as shapes alone."""
    return tuple(jax.ShapeDtypeStruct((batch, *config.crop, n), jnp.float32) for n in (config.reach, 1, config.reach, 1))


@functools.cache
def shapes(config):
    """The shapes of a network's variables; nothing is computed."""
    return jax.eval_shape(build_model(config).init, jax.random.key(0), *abstract(config))


def variables(config, seed=0):
    """Variables without a special value: no bias is 0, no scale is 1, every variance is positive."""
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        x = rng.standard_normal(leaf.shape) / np.sqrt(max(1, np.prod(leaf.shape[-3:-1])))
        return jnp.asarray(np.exp(x) if path[-1].key in ("var", "scale") else x, leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, dict(shapes(config)))


def write_run(config, dice=0.2):
    """The run folder of a network of random values; of the fixture `cohort` two patients train and two validate."""
    run_folder.open_run(config, {"train": ["patient001", "patient002"], "val": ["patient003", "patient004"]})
    values = {"batch_stats": {}} | variables(config.model)  # unlike the state of `init_state`, not compiled
    params = values["params"]
    optimizer = jax.jit(make_optimizer(config.train).init)(params)
    checkpoints = Checkpoints(folder(config))
    checkpoints.save(State(np.int32(config.train.steps), params, params, values["batch_stats"], optimizer), dice)
    checkpoints.close()
