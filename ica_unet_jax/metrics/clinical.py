"""Volumes, ejection fraction, myocardial mass, their agreement with a reference, and behaviour over time."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ica_unet_jax.labels import STRUCTURES
from ica_unet_jax.metrics.overlap import structure_dice

MYOCARDIAL_DENSITY = 1.05  # g/mL


def volumes_ml(labels: np.ndarray, spacing: Sequence[float]) -> dict[str, np.ndarray | np.float64]:
    """Volume of each of STRUCTURES in mL.

    labels: (..., slices, rows, columns); spacing: (dz, dy, dx) in mm. Each value has the leading shape: a number
    for one frame, the volume curve (frames,) for a cine.
    """
    voxel_ml = math.prod(map(float, spacing)) / 1000
    return {name: np.count_nonzero(labels == label, axis=(-3, -2, -1)) * voxel_ml for name, label in STRUCTURES.items()}


def ejection_fraction(edv: float, esv: float) -> float:
    """(EDV − ESV) / EDV, a fraction; NaN where the end-diastolic volume is zero."""
    return (edv - esv) / edv if edv else math.nan


def myocardial_mass(volume_ml: float | np.ndarray) -> float | np.ndarray:
    """Mass in g of a myocardial volume in mL, or of a curve of such volumes, at 1.05 g/mL."""
    return MYOCARDIAL_DENSITY * volume_ml


class Agreement(NamedTuple):
    """Bland–Altman and Pearson; what n does not suffice for is NaN."""

    bias: float  # mean of prediction − reference
    limits: tuple[float, float]  # limits of agreement, bias ∓ 1.96 sample SD of the differences (n ≥ 2)
    r: float  # Pearson correlation; NaN where either side is constant
    n: int  # pairs
    n_undefined: int  # pairs left out because one of the two is not finite, as the EF of an empty ventricle


def agreement(prediction: Sequence[float], reference: Sequence[float]) -> Agreement:
    """Agreement of paired measurements, both (n,), in their own unit."""
    pairs = np.array([prediction, reference], dtype=np.float64)
    defined = pairs[:, np.isfinite(pairs).all(axis=0)]
    n = defined.shape[1]
    difference = defined[0] - defined[1]
    bias = float(difference.mean()) if n else math.nan
    reach = 1.96 * float(difference.std(ddof=1)) if n > 1 else math.nan
    varies = n > 1 and np.all(np.ptp(defined, axis=1) > 0)
    r = float(np.corrcoef(defined)[0, 1]) if varies else math.nan
    return Agreement(bias, (bias - reach, bias + reach), r, n, pairs.shape[1] - n)


def roughness(curve: Sequence[float] | np.ndarray) -> float:
    """RMS of the second difference of a volume curve (frames,), over its own range (the stroke).

    Without unit: a straight line has 0, a curve that jumps by its whole range at every frame 2. It falls with
    the square of the frame rate, so compare curves of one cine only. NaN below three frames or for a flat curve.
    """
    curve = np.asarray(curve, dtype=np.float64)
    if len(curve) < 3 or np.ptp(curve) == 0:
        return math.nan
    return float(np.sqrt(np.mean(np.diff(curve, n=2) ** 2)) / np.ptp(curve))


def neighbour_dice(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Dice of each of STRUCTURES between frames t and t+1: labels (frames, slices, rows, columns) → (frames − 1,)."""
    steps = [structure_dice(frame, following) for frame, following in zip(labels, labels[1:], strict=False)]
    return {name: np.array([step[name] for step in steps]) for name in STRUCTURES}
