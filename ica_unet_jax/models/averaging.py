"""The mean of several answers to one frame: of the networks of an ensemble, or of one network on mirror images."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def mean_softmax(logits: Sequence[jax.Array]) -> jax.Array:
    """Logits (..., classes), an array for each answer -> the logarithms of their mean probabilities, (..., classes)."""
    return jax.nn.logsumexp(jnp.stack([jax.nn.log_softmax(x) for x in logits]), axis=0) - jnp.log(len(logits))
