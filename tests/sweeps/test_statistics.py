"""Against statsmodels, a small example by hand, and simulated studies without any effect."""

import dataclasses
import math
import re

import numpy as np
import pandas
import pytest
from places import ROOT
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from ablations import simulate
from ica_unet_jax.sweeps import statistics
from ica_unet_jax.sweeps.statistics import (
    Contrast,
    against,
    contrasts,
    corrected,
    factorial,
    holm,
    near,
    patients_interval,
    smallest,
    trend,
)

LEVELS = np.array([[bool(cell >> factor & 1) for factor in range(3)] for cell in range(8)])


def random_table(seed, cells, blocks):
    rng = np.random.default_rng(seed)
    return 0.85 + rng.normal(0, 0.02, blocks) + rng.normal(0, 0.004, (cells, 1)) + rng.normal(0, 0.008, (cells, blocks))


def fitted(table):
    """Ordinary least squares of score ~ cell + block."""
    cells, blocks = (index.ravel().astype(str) for index in np.indices(table.shape))
    return ols("score ~ C(cell) + C(block)", pandas.DataFrame(dict(score=table.ravel(), cell=cells, block=blocks))).fit()


@pytest.mark.parametrize("seed, cells, blocks", [(0, 2, 4), (1, 8, 4), (2, 9, 3), (3, 4, 2)])
def test_contrasts_are_those_of_a_two_way_anova(seed, cells, blocks):
    table = random_table(seed, cells, blocks)
    model = fitted(table)
    names = [f"C(cell)[T.{cell}]" for cell in range(1, cells)]  # statsmodels' own reference is the first, too
    ours = contrasts(table, against(cells, 0))
    assert [c.freedom for c in ours] == [model.df_resid] * (cells - 1)
    for name, values in dict(difference=model.params, error=model.bse, p=model.pvalues).items():
        assert [getattr(c, name) for c in ours] == pytest.approx(values[names].tolist(), rel=1e-9)
    ends = model.conf_int().loc[names].to_numpy()
    assert np.array([(c.low, c.high) for c in ours]) == pytest.approx(ends, rel=1e-9)


def test_effects_of_a_factorial_are_half_the_coefficients_of_its_signs():
    """Coded -1 and 1, a coefficient is half of an effect."""
    table = random_table(4, 8, 4)
    cell, block = np.indices(table.shape)
    signs = np.where(LEVELS[cell.ravel()], 1, -1)
    data = pandas.DataFrame(dict(score=table.ravel(), block=block.ravel().astype(str), s=signs[:, 0], i=signs[:, 1], r=signs[:, 2]))
    model = ols("score ~ s * i * r + C(block)", data).fit()
    effects = factorial(LEVELS)
    assert list(effects) == [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
    ours = contrasts(table, np.array(list(effects.values())))
    names = ["s", "i", "r", "s:i", "s:r", "i:r", "s:i:r"]
    assert [c.difference for c in ours] == pytest.approx((2 * model.params[names]).tolist(), rel=1e-9)
    assert [c.p for c in ours] == pytest.approx(model.pvalues[names].tolist(), rel=1e-9)
    assert {c.freedom for c in ours} == {21}


def test_holm_is_that_of_statsmodels():
    p = np.random.default_rng(0).uniform(0, 0.2, (8, 7)) ** 2  # of which theirs takes a tenth of a second each
    p[0] = p[0, 0]  # ties
    assert holm(p) == pytest.approx(np.array([multipletests(row, method="holm")[1] for row in p]))


def test_holm_by_hand():
    # Sorted: 4 * 0.005, 3 * 0.01, 2 * 0.03, and 1 * 0.04, which may not fall below the one before.
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_of_two_cells_all_is_the_paired_t_test():
    table = random_table(5, 2, 6)
    [ours] = contrasts(table, against(2, 0), delta=0.012)
    assert ours.p == pytest.approx(stats.ttest_rel(table[1], table[0]).pvalue)
    assert ours.p_within == pytest.approx(ttost_paired(table[1], table[0], -0.012, 0.012)[0])


def test_a_small_study_by_hand():
    """Differences of the second cell to the first are 3, 1, 2 hundredths: mean 2, and a standard error of 1 / sqrt(3)."""
    table = np.array([[0.80, 0.70, 0.75], [0.83, 0.71, 0.77]])
    [found] = contrasts(table, against(2, 0))
    assert (found.blocks, found.freedom) == (3, 2)
    assert found.difference == pytest.approx(0.02) and found.error == pytest.approx(0.01 / math.sqrt(3))
    # With two degrees of freedom p = 1 - t / sqrt(2 + t^2), and t = 2 sqrt(3).
    t = 2 * math.sqrt(3)
    assert found.p == pytest.approx(1 - t / math.sqrt(2 + t * t))
    half = 4.302653 * 0.01 / math.sqrt(3)
    assert (found.low, found.high) == pytest.approx((0.02 - half, 0.02 + half))
    assert smallest(found, 1) == pytest.approx(half)
    assert smallest(found, 2) == pytest.approx(6.205347 * 0.01 / math.sqrt(3))


def test_a_cell_far_off_has_no_part_in_the_error_of_the_others():
    table = random_table(6, 5, 3)
    apart = np.vstack([table[:3], table[3] - 0.3 + np.array([0.05, -0.05, 0.0]), table[4:]])
    alike = near(apart, 0)
    assert alike.tolist() == [True, True, True, False, True]
    found, all_share = contrasts(apart, against(5, 0), alike=alike), contrasts(apart, against(5, 0))
    others = contrasts(apart[alike], against(4, 0))
    assert [found[i] for i in (0, 1, 3)] == others != [all_share[i] for i in (0, 1, 3)]
    assert found[2] == all_share[2] and {c.freedom for c in found} == {6, 8}


def test_an_effect_of_cells_far_off_has_the_error_of_all():
    table = random_table(7, 4, 3) - np.array([[0.0], [0.0], [0.3], [0.3]])
    weights = np.array(list(factorial(LEVELS[:4, :2]).values()))
    assert contrasts(table, weights, alike=near(table, 0)) == contrasts(table, weights)


def test_a_factorial_by_hand():
    """Scores of two factors: nothing .1, the first .3, the second .2, both .8."""
    levels = np.array([[False, False], [True, False], [False, True], [True, True]])
    means = np.array([0.1, 0.3, 0.2, 0.8])
    effects = {subset: float(weights @ means) for subset, weights in factorial(levels).items()}
    # First: (.3 + .8 - .1 - .2) / 2; second: (.2 + .8 - .1 - .3) / 2; both: (.6 - .2) / 2.
    assert effects == pytest.approx({(0,): 0.4, (1,): 0.3, (0, 1): 0.2})


def test_a_trend_is_the_change_along_a_fitted_line():
    assert float(trend([1, 2, 3, 4]) @ [0.1, 0.3, 0.2, 0.4]) == pytest.approx(3 * np.polyfit([1, 2, 3, 4], [0.1, 0.3, 0.2, 0.4], 1)[0])


def test_one_block_or_one_cell_decides_nothing():
    [found] = corrected(contrasts(np.array([[0.8], [0.9]]), against(2, 0)))
    assert (found.difference, found.error, found.p, found.p_holm) == (pytest.approx(0.1), None, None, None)
    assert (found.verdict, found.within, found.decision) == ("", False, "one block, no decision")
    assert smallest(found, 1) is None
    assert contrasts(np.array([[0.8, 0.9]]), against(1, 0)) == []


@pytest.mark.parametrize("change, decision", [
    ({}, "better"),
    (dict(difference=-0.02), "worse"),
    (dict(p_within_holm=0.01), "better, within 0.01"),
    (dict(p_holm=0.05), "undecided"),
    (dict(p_holm=0.3, p_within_holm=0.049), "as good within 0.01"),
    (dict(p_holm=None, p_within_holm=None), ""),
    (dict(blocks=1), "one block, no decision"),
])  # fmt: skip
def test_every_decision(change, decision):
    found = Contrast(0.02, 4, 0.01, 0.004, 21, 0.01, 0.03, 0.001, 0.9, p_holm=0.007, p_within_holm=1.0)
    assert dataclasses.replace(found, **change).decision == decision


def test_no_effect_and_too_noisy_are_two_answers_and_a_small_effect_is_both():
    noise = np.array([[0.001, -0.001, 0.001, -0.001], [-0.001, 0.001, -0.001, 0.001]])
    for scale, shift, decision in ((1, 0, "as good within 0.01"), (20, 0, "undecided"), (0.2, 0.004, "better, within 0.01")):
        table = 0.8 + scale * noise + [[0], [shift]]
        assert corrected(contrasts(table, against(2, 0)))[0].decision == decision


def test_cells_without_any_noise():
    [same, other] = contrasts(np.full((3, 2), 0.5) + [[0], [0], [0.1]], against(3, 0))
    assert (same.p, same.p_within, other.p, other.p_within) == (1, 0, 0, 1)


def test_interval_over_patients_is_the_normal_one_for_many():
    rng = np.random.default_rng(0)
    folds = [rng.normal(0.01, 0.02, 80), rng.normal(-0.01, 0.04, 40)]
    low, high = patients_interval(folds)
    error = math.sqrt(sum(part.var() / len(part) for part in folds)) / 2
    centre = (folds[0].mean() + folds[1].mean()) / 2
    assert (low, high) == pytest.approx((centre - 1.96 * error, centre + 1.96 * error), abs=0.15 * error)
    assert patients_interval([np.zeros(9)]) is None


def test_rates_of_simulated_studies_are_those_of_the_page():
    """At most 6 % of studies without an effect may call one, at the upper end of what 10,000 studies tell."""
    made, page = (re.findall(r"^\| .*, \d folds \|.*$", text, re.M) for text in (simulate.page(), (ROOT / "docs" / "statistics.md").read_text()))
    assert len(made) == len(page) == 44
    for ours, theirs in zip(made, page, strict=True):
        name, *figures = (text.strip() for text in ours.split("|")[1:-1])
        assert theirs.startswith(f"| {name} |")
        assert [float(x) for x in theirs.split("|")[2:-1]] == pytest.approx([float(x) for x in figures], abs=0.006)
        assert 0.02 < float(figures[2]) < float(figures[3]) <= 0.06


def test_the_upper_limit_is_that_of_clopper_and_pearson():
    assert simulate.upper(0, 10) == pytest.approx(1 - 0.025 ** (1 / 10))
    assert simulate.upper(10, 10) == 1


def test_weights_against_a_reference():
    assert against(3, 1).tolist() == [[1, -1, 0], [0, -1, 1]]
    assert statistics.smallest(Contrast(0.1, 2), 3) is None
