"""How often the statistics of a study err, and what they find: `python ablations/simulate.py > docs/statistics.md`."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # not this folder, whose modules would hide the standard library's

import numpy as np  # noqa: E402
from scipy import stats  # noqa: E402

from ica_unet_jax.reporting.markup import plain_table  # noqa: E402
from ica_unet_jax.sweeps.statistics import ALPHA, DELTA, against, factorial, holm, p_different, p_within, t_tests, trend  # noqa: E402

STUDIES = 10_000
EFFECT = 0.02
DEVIATIONS = ((0.005, 0.003), (0.005, 0.006), (0.009, 0.003), (0.009, 0.006))  # SD of fold x cell, of seeds
DESIGNS = ((2, 4), (4, 3), (4, 4), (9, 2), (9, 4))  # cells, folds, of studies against a reference
FOLDS = (2, 3, 4)  # of the others
UNEVEN = 4.0  # times the SD of the others, of one cell
_FOLD = 0.02  # SD of the folds' levels, which no contrast sees


_PAGE = """# How often the statistics of a study err, and what they find

{sentence}

Made by `python ablations/simulate.py`. [How settings are compared](ablations.md#how-settings-are-compared) explains the words.

A simulated score is a sum of three random parts: the level of the fold, a deviation of this cell on this fold (SD fold x cell), and
the luck of the training (SD seed). The columns:

- *False decisions*: the share of studies without any effect that call at least one comparison different, and its upper 95 % limit.
- *Finds {effect:g}*: how often the first comparison of the study (in a factorial a main effect) is called different where its effect is
  {effect:g}.
- *Within {delta:g}*: how often it is called smaller than {delta:g} where its effect is 0.

A *factorial of three* switches three terms on and off in all eight combinations, as loss_terms does. *Two trends* are slopes over the
number of bases, as in basis_dimension.

{table}"""


def main() -> None:
    print(page())


def page() -> str:
    """The table, and what it comes to in a sentence."""
    heads = ["study", "SD fold x cell", "SD seed", "false decisions", "upper 95 %", f"finds {EFFECT:g}", f"within {DELTA:g}"]
    rows = []
    for deviations in DEVIATIONS:
        for name, weights, folds in designs():
            false, power, within = rates(weights, folds, *deviations)
            figures = [f"{false:.4f}", f"{upper(round(false * STUDIES), STUDIES):.4f}", f"{power:.2f}", f"{within:.2f}"]
            rows.append([f"{name}, {folds} folds", *deviations, *figures])
    largest = max(rows, key=lambda row: row[4])
    of_four = [row[5] for row in rows if row[0].startswith("4 cells") and row[0].endswith("4 folds")]
    of_factors = [row[5] for row in rows if row[0].startswith("factorial") and row[0].endswith("4 folds")]
    sentence = (
        f"Of {STUDIES:,} simulated studies without any effect at most {float(largest[3]):.1%} find one all the same (upper 95 % limit\n"
        f"{float(largest[4]):.1%}). An effect of {EFFECT:g} is found, with 4 folds, in a share of {min(of_four)} to {max(of_four)} of the studies that compare 4 cells with a\n"
        f"reference, and in {min(of_factors)} to {max(of_factors)} of the factorials of three. Where one cell deviates {UNEVEN:g} times as much from fold to fold as the\n"
        f"others, up to {uneven():.0%} of the studies with 2 folds find an effect that is none, as all contrasts share one error. (Here no cell is\n"
        f"far from the reference: [one that is](ablations.md#how-settings-are-compared) has no part in the error of the others.)"
    )
    table = plain_table(heads, rows, [False] + [True] * 6)
    return _PAGE.format(sentence=sentence, effect=EFFECT, delta=DELTA, table=table)


def uneven() -> float:
    """The largest share of false decisions with 2 folds, where one cell is `UNEVEN`."""
    return max(rates(weights, folds, *deviations, uneven=UNEVEN)[0] for deviations in DEVIATIONS for _, weights, folds in designs() if folds == 2)


def designs() -> list[tuple[str, np.ndarray, int]]:
    """(name, weights of the contrasts, folds) of each kind of study."""
    pairs = [(f"{cells} cells against a reference", against(cells, 0), folds) for cells, folds in DESIGNS]
    levels = np.array([[bool(cell >> factor & 1) for factor in range(3)] for cell in range(8)])
    effects = np.array(list(factorial(levels).values()))
    doses = np.zeros((2, 7))  # the reference, three doses, and three others
    doses[0, :4] = doses[1, [0, 4, 5, 6]] = trend([5, 3, 4, 6])
    trends = np.concatenate([against(7, 0), doses])
    others = ("factorial of three", effects), ("7 cells and two trends", trends)
    return pairs + [(name, weights, folds) for name, weights in others for folds in FOLDS]


def rates(weights: np.ndarray, folds: int, of_cell: float, of_seed: float, count: int = STUDIES, uneven: float = 1.0) -> tuple[float, float, float]:
    """Shares of simulated studies.

    uneven: by how much the last cell deviates more from fold to fold than the others.

    Returns:
      false: without any effect, in which some contrast is called different.
      power: in which the first contrast is called different where it is EFFECT.
      within: without any effect, in which the first contrast is called as good within DELTA.
    """
    random = np.random.default_rng(0)
    cells = weights.shape[1]
    tables = random.normal(0.85, _FOLD, (count, 1, folds)) + random.normal(0, of_cell, (count, cells, folds))
    tables += random.normal(0, of_seed, (count, cells, folds))
    tables[:, -1] += random.normal(0, 1, (count, folds)) * np.sqrt(uneven**2 - 1) * np.hypot(of_cell, of_seed)
    differences, errors, freedom = t_tests(tables, weights)
    false = (holm(p_different(differences, errors, freedom)) < ALPHA).any(axis=1)
    within = holm(p_within(differences, errors, freedom, DELTA))[:, 0] < ALPHA
    first = weights[0] / np.square(weights[0]).sum()  # moves the cells so that the first contrast is 1
    differences, errors, _ = t_tests(tables + EFFECT * first[:, None], weights)
    power = holm(p_different(differences, errors, freedom))[:, 0] < ALPHA
    return float(false.mean()), float(power.mean()), float(within.mean())


def upper(successes: int, trials: int) -> float:
    """The upper end of the 95 % interval of Clopper and Pearson."""
    return 1.0 if successes == trials else float(stats.beta.ppf(0.975, successes + 1, trials - successes))


if __name__ == "__main__":
    main()
