"""What a study may say. The unit is a training: the score of a cell in a block is one number, and a block is a fold.

Scores follow the additive model cell + block + error; the error is how differently a fold and its training treat the cells. All
contrasts of a study share its residual mean square, with (C - 1)(K - 1) degrees of freedom of C cells and K blocks. A cell that lies
far from the reference has not learned what the others have, and varies as it likes: the error of the others is without it. Further
trainings of a fold are averaged within it before: they share the fold's deviation, and are no blocks.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

ALPHA = 0.05  # of the intervals and of the corrected p
DELTA = 0.01  # of Dice: what is smaller is as good as none
FAR = 0.1  # of Dice: a cell that is further from the reference has no part in the error of the others
PATIENTS_NEEDED = 10  # for an interval over patients
REPLICATES = 4000
RESOLUTION = 1e-9  # finer figures are round-off


@dataclasses.dataclass(frozen=True)
class Contrast:
    """A weighted sum of the cells' means, as `contrasts` makes it; `corrected` fills the corrected p, and only then is it decided."""

    difference: float
    blocks: int
    delta: float = DELTA
    error: float | None = None  # standard error; None of one block, and so are all below
    freedom: int | None = None  # residual degrees of freedom
    low: float | None = None  # 95 % interval by t, of this contrast alone
    high: float | None = None
    p: float | None = None  # that it is 0, two-sided
    p_within: float | None = None  # that it is not inside +-delta: the larger one of two one-sided tests
    p_holm: float | None = None
    p_within_holm: float | None = None

    @property
    def verdict(self) -> str:
        """"better", "worse", or "" where no difference is decided."""
        if self.p_holm is None or self.p_holm >= ALPHA:
            return ""
        return "better" if self.difference > 0 else "worse"

    @property
    def within(self) -> bool:
        """Whether it is decided that the difference is smaller than delta."""
        return self.p_within_holm is not None and self.p_within_holm < ALPHA

    @property
    def decision(self) -> str:
        """In words; "" where the contrast is none of those that its study decides."""
        if self.blocks == 1:
            return "one block, no decision"
        if self.p_holm is None:
            return ""
        if self.verdict:
            return f"{self.verdict}, within {self.delta:g}" if self.within else self.verdict
        return f"as good within {self.delta:g}" if self.within else "undecided"


def additive(tables: np.ndarray) -> tuple[np.ndarray, np.ndarray | float, int]:
    """Tables (..., cells, blocks) -> means of the cells (..., cells), residual mean squares (...), their degrees of freedom.

    Without degrees of freedom the mean squares are NaN.
    """
    cells, blocks = tables.shape[-2:]
    means, freedom = tables.mean(axis=-1), (cells - 1) * (blocks - 1)
    residuals = tables - means[..., None] - tables.mean(axis=-2, keepdims=True) + tables.mean(axis=(-2, -1), keepdims=True)
    squares = np.square(residuals).sum(axis=(-2, -1))
    return means, squares / freedom if freedom else np.full_like(squares, np.nan), freedom


def t_tests(tables: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Tables (..., cells, blocks), weights (contrasts, cells) -> differences and their standard errors (..., contrasts), freedom."""
    means, squares, freedom = additive(tables)
    scale = np.sqrt(np.square(weights).sum(axis=-1) / tables.shape[-1])
    return means @ weights.T, np.sqrt(squares)[..., None] * scale, freedom


def p_different(differences: np.ndarray, errors: np.ndarray, freedom: int) -> np.ndarray:
    """Two-sided p of t tests against 0."""
    return 2 * stats.t.sf(np.abs(_ratio(differences, errors)), freedom)


def p_within(differences: np.ndarray, errors: np.ndarray, freedom: int, delta: float) -> np.ndarray:
    """p of the two one-sided t tests that a difference lies inside +-delta: the larger one."""
    return stats.t.sf(_ratio(delta - np.abs(differences), errors), freedom)


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down correction over the last axis."""
    order = np.argsort(p, axis=-1, kind="stable")
    steps = np.take_along_axis(p, order, axis=-1) * np.arange(p.shape[-1], 0, -1)
    steps = np.minimum(np.maximum.accumulate(steps, axis=-1), 1.0)
    corrected = np.empty_like(steps)
    np.put_along_axis(corrected, order, steps, axis=-1)
    return corrected


def near(table: np.ndarray, reference: int) -> np.ndarray:
    """(cells,): which share an error: those at most `FAR` from the reference, with it; all where there are none but it."""
    means = table.mean(axis=1)
    found = np.abs(means - means[reference]) <= FAR + RESOLUTION
    return found if found.sum() > 1 else np.ones_like(found)


def contrasts(table: np.ndarray, weights: np.ndarray, delta: float = DELTA, alike: np.ndarray | None = None) -> list[Contrast]:
    """A table (cells, blocks), whole, and weights (contrasts, cells) -> the contrasts, not corrected for their number.

    alike: (cells,), which share an error, as `near` tells; None for all. A contrast with any other cell has the error of all cells.
    One block, or a single cell, has differences alone.
    """
    alike = np.ones(len(table), bool) if alike is None else alike
    groups = [(alike, apart := ~weights[:, ~alike].any(axis=1)), (np.ones_like(alike), ~apart)]
    found: dict[int, Contrast] = {}
    for cells, rows in groups:
        if rows.any():
            found |= zip(np.flatnonzero(rows).tolist(), _of_one_error(table[cells], weights[rows][:, cells], delta), strict=True)
    return [found[row] for row in range(len(weights))]


def _of_one_error(table: np.ndarray, weights: np.ndarray, delta: float) -> list[Contrast]:
    differences, errors, freedom = t_tests(table, weights)
    blocks = table.shape[1]
    if not freedom:
        return [Contrast(float(difference), blocks, delta) for difference in differences]
    half = stats.t.isf(ALPHA / 2, freedom) * errors
    columns = (
        differences, errors, differences - half, differences + half,
        p_different(differences, errors, freedom), p_within(differences, errors, freedom, delta),
    )  # fmt: skip
    return [
        Contrast(difference, blocks, delta, error, freedom, low, high, p, inside)
        for difference, error, low, high, p, inside in zip(*(column.tolist() for column in columns), strict=True)
    ]


def corrected(family: Sequence[Contrast]) -> list[Contrast]:
    """The contrasts that a study decides, with Holm's correction over all of them: of being different, and of being within delta."""
    if any(contrast.p is None for contrast in family) or not family:
        return list(family)
    different, within = (holm(np.array([getattr(c, name) for c in family])).tolist() for name in ("p", "p_within"))
    return [
        dataclasses.replace(contrast, p_holm=p, p_within_holm=inside)
        for contrast, p, inside in zip(family, different, within, strict=True)
    ]


def smallest(contrast: Contrast, number: int) -> float | None:
    """The smallest difference that could have been decided among `number` contrasts: at Holm's first step, with this error."""
    if contrast.error is None:
        return None
    return float(stats.t.isf(ALPHA / (2 * number), contrast.freedom) * contrast.error)


def against(cells: int, reference: int) -> np.ndarray:
    """Weights of every cell minus the reference, (cells - 1, cells)."""
    weights = np.eye(cells)
    weights[:, reference] -= 1
    return np.delete(weights, reference, axis=0)


def factorial(levels: np.ndarray) -> dict[tuple[int, ...], np.ndarray]:
    """Weights (cells,) of all effects of a 2^k factorial by the factors that they are of, main effects first.

    levels: (cells, k), whether a factor is there. A main effect is the mean of the cells with the factor minus the mean of those
    without; an interaction is half the difference of one effect with and without the other, and so on.
    """
    signs = np.where(levels, 1.0, -1.0)
    k = levels.shape[1]
    subsets = sorted((tuple(i for i in range(k) if mask >> i & 1) for mask in range(1, 2**k)), key=lambda s: (len(s), s))
    return {subset: signs[:, subset].prod(axis=1) * 2 / len(levels) for subset in subsets}


def trend(x: Sequence[float] | np.ndarray) -> np.ndarray:
    """Weights (cells,) of the change from the smallest to the largest x on the line that is fitted to the cells' means."""
    deviations = np.asarray(x, float) - np.mean(x)
    return deviations / np.square(deviations).sum() * np.ptp(x)


def patients_interval(differences: Sequence[np.ndarray]) -> tuple[float, float] | None:
    """95 % of where the mean over folds would lie for these trained networks on other patients; not of other trainings.

    differences: (patients,) of each fold. Patients are drawn with replacement within their fold. None below ten patients.
    """
    if sum(map(len, differences)) < PATIENTS_NEEDED:
        return None
    random, total = np.random.default_rng(0), np.zeros(REPLICATES)
    for values in differences:
        n = len(values)
        total += random.multinomial(n, np.full(n, 1 / n), size=REPLICATES) @ values / n
    low, high = np.quantile(total / len(differences), [ALPHA / 2, 1 - ALPHA / 2])
    return float(low), float(high)


def _ratio(differences: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """t of differences; without any error infinite, or 0."""
    exact = errors <= RESOLUTION
    limits = np.where(np.abs(differences) <= RESOLUTION, 0.0, np.copysign(math.inf, differences))
    return np.where(exact, limits, differences / np.where(exact, 1.0, errors))
