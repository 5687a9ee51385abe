"""Values of networks that nobody has trained, for timing."""

from __future__ import annotations

from typing import Any

import jax

from ica_unet_jax.config import Config
from ica_unet_jax.models.networks import init_variables

NORMS = ("scale", "bias", "mean", "var")  # of layers


def untrained(config: Config) -> dict[str, Any]:
    """Those of a whole network."""
    return jax.jit(lambda key: with_norms(init_variables(config.model, key), key))(jax.random.key(0))


def with_norms(variables: dict[str, Any], key: jax.Array) -> dict[str, Any]:
    """Fresh variables whose norms and biases do something.

    A compiler leaves out a norm of mean 0, variance 1, scale 1 and bias 0, and the network would be faster than any trained one.
    """
    leaves, tree = jax.tree_util.tree_flatten_with_path(variables)
    keys = jax.random.split(key, len(leaves))
    moved = [x + 0.1 * jax.random.uniform(k, x.shape) if path[-1].key in NORMS else x for k, (path, x) in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, moved)
