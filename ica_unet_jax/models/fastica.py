"""FastICA, by scikit-learn: of any mixtures, and of the patches of training frames, whose components are bases that nothing trains."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ica_unet_jax.data.learning_frame import LearningFrame
from ica_unet_jax.errors import UserError
from ica_unet_jax.runtime import packages

MAX_ITERATIONS = 1000
SEED = 0
PATCHES = 4000  # of which a dictionary is made


class Components(NamedTuple):
    """What FastICA finds."""

    sources: np.ndarray  # (samples, m), of zero mean and unit variance; the order and the signs mean nothing
    mixing: np.ndarray  # (mixtures, m)
    converged: bool


class TooFewDimensions(UserError):
    """The patches do not span as many dimensions as there are bases asked for."""


def require() -> None:
    """UserError where scikit-learn is not installed."""
    packages.require("FastICA", "ablations", ("sklearn",))


def components(mixtures: np.ndarray, m: int, told: str) -> Components:
    """The m components of mixtures (samples, mixtures). Deterministic.

    Raises:
      TooFewDimensions: the mixtures, less their means, span fewer than m dimensions; its sentence begins with `told`.
      UserError: scikit-learn is not installed.
    """
    require()
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits  # scikit-learn brings it

    ica = FastICA(m, whiten="unit-variance", max_iter=MAX_ITERATIONS, random_state=SEED)
    # One thread: the matrices are small, and threads that wait for each other are slower by orders of magnitude.
    with threadpool_limits(1), warnings.catch_warnings(record=True) as caught:
        rank = np.linalg.matrix_rank(mixtures - mixtures.mean(axis=0)) if mixtures.size else 0
        if rank < m:
            raise TooFewDimensions(f"{told} span {rank} dimensions, too few for {m} bases.")
        warnings.simplefilter("always", ConvergenceWarning)
        sources = ica.fit_transform(mixtures)
    others = [warning for warning in caught if not issubclass(warning.category, ConvergenceWarning)]
    for warning in others:
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return Components(sources, ica.mixing_, converged=len(others) == len(caught))


def patterns(samples: Sequence[LearningFrame], shape: tuple[int, int, int], m: int) -> np.ndarray:
    """A constant, and the m - 1 components of patches of this size (d, K, L) out of the frames: (d, K, L, m), each of mean square 1.

    As in `sweeps.fastica` the patches are the mixtures, their voxels the samples. A patch's mean, which FastICA takes off, is what
    the constant stands for. The patches lie within the images; a stack of fewer than d slices has zeros around it, as in training.

    Raises:
      TooFewDimensions: the patches are too few, or too plain.
      UserError: scikit-learn is not installed.
    """
    found = np.array(list(_patches(samples, shape)), np.float64).reshape(-1, int(np.prod(shape)))
    size = "x".join(map(str, shape))
    constant = np.ones((found.shape[1], 1))
    if m == 1:
        return constant.reshape(*shape, m)
    told = f"--bases_from=fastica: the training frames' {len(found)} patches of {size} voxels"
    return np.concatenate([constant, components(found.T, m - 1, told).sources], axis=1).reshape(*shape, m)


def _patches(samples: Sequence[LearningFrame], shape: tuple[int, int, int]) -> Iterator[np.ndarray]:
    """About `PATCHES` patches (d, K, L), as many of each frame, at places that are drawn; of frames at most as many, from all over the cohort."""
    random, (d, rows, columns) = np.random.default_rng(SEED), shape
    each = -(-PATCHES // max(1, len(samples)))
    for i in np.linspace(0, len(samples) - 1, min(PATCHES, len(samples))).astype(int):
        sample = samples[i]
        frame = np.asarray(sample.frames[len(sample.frames) // 2], np.float32)
        short = max(0, d - len(frame))
        before = short // 2
        frame = np.pad(frame, ((before, short - before), (0, 0), (0, 0)))
        inside = np.argwhere(sample.valid.any(0))
        if not len(inside):
            continue
        first, last = inside.min(0), inside.max(0) + 1 - (rows, columns)
        if (last < first).any():
            continue
        for _ in range(each):
            z = random.integers(0, len(frame) - d + 1)
            y, x = random.integers(first, last + 1)
            patch = frame[z : z + d, y : y + rows, x : x + columns]
            if np.ptp(patch) > 0:  # a constant one is its mean, and mixes nothing
                yield patch
