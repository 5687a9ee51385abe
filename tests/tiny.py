"""The smallest network, and random values for it, that the tests share."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ica_unet_jax.config import Config
from ica_unet_jax.models import build_model

SMALL = dict(
    crop=(2, 64, 64), contracting_blocks=2, bases=3, stream_width=2, projection_width=2,
    encoder_width=4, encoder_convs=1, decoder_width=4, correlation_radius=1,
)  # fmt: skip


def tiny(**changes):
    """A `ModelConfig` of the smallest size, with some knobs changed."""
    return Config.make(**SMALL | changes).model


def normal(seed, *shape):
    """Standard normal float32 numbers."""
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


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
