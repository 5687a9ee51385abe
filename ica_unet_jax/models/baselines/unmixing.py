"""From a snippet of frames to its canonical form: independent sources in time, the same for all voxels.

The variation of a snippet's sites in time spans at most S - 1 directions. The strongest of them are the whitened time
courses; a rotation that makes them as independent as it can (FastICA with log cosh, symmetric) gives the sources. The
rotation keeps them uncorrelated, so that at every site the variance in time is the sum of the squared coefficients and
of the residual, exactly.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ica_unet_jax.models.baselines.canonical import Canonical

ROUNDS = 10  # of the fixed-point iteration; it converges in a few


def unmix(frames: Float[Array, "batch d h w frames"], sources: int) -> tuple[Canonical, Float[Array, "batch k frames"]]:
    """The canonical form of a snippet of S frames, one channel, and its sources S_i(t).

    There are K = min(sources, S - 1) sources, each of zero mean and unit variance over the S frames, uncorrelated.
    Where nothing moves they are arbitrary, and their coefficients are 0.
    """
    span = frames.shape[-1]
    mean = frames.mean(-1, keepdims=True)
    varied = frames - mean
    # The sources are found, not learned: no gradient goes through the search.
    found = jax.vmap(lambda x: _sources(x, min(sources, span - 1)))(jax.lax.stop_gradient(varied))
    coefficients = jnp.einsum("bdhws,bks->kbdhw", varied, found)[..., None] / span
    explained = jnp.square(coefficients).sum(0)
    residual = jnp.maximum(jnp.square(varied).mean(-1, keepdims=True) - explained, 0)
    return Canonical(mean, coefficients, residual), found


def _sources(varied: Float[Array, "d h w frames"], count: int) -> Float[Array, "count frames"]:
    """Independent time courses of frames without their mean."""
    span = varied.shape[-1]
    differences = jnp.asarray(zero_mean_basis(span))  # (S, S-1): whatever is chosen in them has zero mean
    directions = jnp.ones((1, 1))
    if span > 2:  # two frames differ in one direction alone
        x = varied.reshape(-1, span) @ differences
        _, directions = jnp.linalg.eigh(x.T @ x / len(x))  # rising
    white = jnp.sqrt(float(span)) * (differences @ directions[:, ::-1][:, :count]).T
    return rotation(white) @ white


def rotation(white: Float[Array, "k frames"]) -> Float[Array, "k k"]:
    """The orthogonal matrix W whose W @ white is most independent, by FastICA from the identity."""
    if len(white) == 1:
        return jnp.ones((1, 1))

    def update(_, w):
        y = jnp.tanh(w @ white)
        w = y @ white.T / white.shape[1] - (1 - jnp.square(y)).mean(1)[:, None] * w
        left, _, right = jnp.linalg.svd(w, full_matrices=False)
        return left @ right

    return jax.lax.fori_loop(0, ROUNDS, update, jnp.eye(len(white)))


def zero_mean_basis(span: int) -> np.ndarray:
    """(S, S-1) float32, orthonormal columns that sum to zero (Helmert's)."""
    basis = np.zeros((span, span - 1))
    for k in range(1, span):
        basis[:k, k - 1] = 1
        basis[k, k - 1] = -k
    return np.float32(basis / np.linalg.norm(basis, axis=0))
