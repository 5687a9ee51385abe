"""Dice overlap."""

import numpy as np

from ica_unet_jax.errors import UserError
from ica_unet_jax.labels import STRUCTURES


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """2|a ∩ b| / (|a| + |b|) of two masks of one shape. Both empty: 1; one empty: 0.

    Raises UserError where the shapes differ.
    """
    a, b = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    if a.shape != b.shape:
        raise UserError(f"Masks of shapes {a.shape} and {b.shape} cannot be compared: bring them to one grid.")
    total = np.count_nonzero(a) + np.count_nonzero(b)
    return 2 * np.count_nonzero(a & b) / total if total else 1.0


def structure_dice(prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Dice of each of STRUCTURES in two label arrays of one shape."""
    return {name: dice(prediction == label, truth == label) for name, label in STRUCTURES.items()}
