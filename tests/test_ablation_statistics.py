"""Scores are made up. What a statistic must be is written by hand, as a fraction where it is one, or simulated."""

import dataclasses
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ablations import statistics
from ablations.statistics import Contrast, contrast, finite_pairs, holm, interval, signed_rank_p, summarize
from ica_unet_jax.errors import UserError

PATIENTS = [f"patient{i:03d}" for i in range(100)]
ONE_FOLD = dict.fromkeys(PATIENTS, 0)
DECIDED = Contrast(n=12, seeds=3, difference=0.02, low=0.01, high=0.03, p=0.001, spread=0.004, p_holm=0.03)


def scores(table):
    """{(seed, patient): score} of a table (patients, seeds)."""
    rows = zip(PATIENTS, np.asarray(table).tolist(), strict=False)
    return {(seed, patient): value for patient, row in rows for seed, value in enumerate(row)}


def simulate(rng, n, seeds, folds, patient_sd, seed_sd, case_sd=0.0):
    """Two arms (2, n, seeds) and the patients' folds; `patient_sd` is that of the difference of the two arms."""
    fold = np.arange(n) % folds
    patient = rng.normal(0, patient_sd / math.sqrt(2), (2, n, 1))
    training = rng.normal(0, seed_sd, (2, folds, seeds))[:, fold]
    return 0.85 + patient + training + rng.normal(0, case_sd, (2, n, seeds)), fold


def studies(rng, count, difference, *setting):
    """So many simulated contrasts, each the one contrast of its study."""
    for _ in range(count):
        (cell, reference), fold = simulate(rng, *setting)
        folds = dict(zip(PATIENTS, fold.tolist(), strict=False))
        yield holm([contrast(scores(cell + difference), scores(reference), folds)])[0]


def test_summary_by_hand():
    # Means of the patients 5/8, 3/8, 7/8: deviations 0, -1/4, 1/4. Means of the seeds 1/2 and 3/4.
    summary = summarize(scores([[1 / 2, 3 / 4], [1 / 4, 1 / 2], [3 / 4, 1]]))
    assert (summary.n, summary.seeds, summary.mean, summary.sd) == (3, 2, 5 / 8, 1 / 4)
    assert summary.spread == pytest.approx(1 / (4 * math.sqrt(2)))


def test_summary_of_one_patient_one_seed_and_nothing():
    assert summarize(scores([[1 / 4, 3 / 4]])).sd is None
    one_seed = summarize(scores([[1 / 4], [3 / 4]]))
    assert (one_seed.mean, one_seed.spread) == (1 / 2, None)
    assert summarize({}) == statistics.Summary(0, 0, None, None, None)


def test_summary_where_a_patient_lacks_a_seed():
    # Means of the patients 1/2 and 4; the spread over the seeds is the first patient's alone.
    summary = summarize({(0, "a"): 1 / 4, (1, "a"): 3 / 4, (1, "b"): 4.0})
    assert (summary.n, summary.seeds, summary.mean) == (2, 2, 9 / 4)
    assert summary.spread == pytest.approx(1 / (2 * math.sqrt(2)))


def test_contrast_by_hand():
    """Differences 1/16, ..., 10/16: mean 11/32; all of one sign, which 2 of the 2^10 choices of signs are."""
    steps = np.arange(1, 11)[:, None] / 16
    cell, reference = steps + [[-1 / 8, 1 / 8]], 0 * steps + [[-1 / 4, 1 / 4]]
    found = contrast(scores(cell), scores(reference), ONE_FOLD)
    assert (found.n, found.seeds, found.difference, found.p) == (10, 2, 11 / 32, 2 / 2**10)
    assert found.spread == pytest.approx(1 / (2 * math.sqrt(2)))  # the reference's, the larger one
    assert found.low < found.difference < found.high


def test_p_is_scipys_on_integers_and_deaf_to_round_off():
    steps = np.array([3, -3, 1, 2, -2, 4, 4, -1, 5, 3, 2, -4])
    reference = np.linspace(0.81, 0.94, len(steps)) / 7
    differences = (reference + 0.1 * steps) - reference
    expected = stats.wilcoxon(steps).pvalue
    assert signed_rank_p(differences) == expected
    assert stats.wilcoxon(differences).pvalue != expected  # the trap: round-off breaks the ties


def test_equal_arms_are_undecided():
    table = np.random.default_rng(0).normal(0.9, 0.02, (12, 3))
    found = holm([contrast(scores(table), scores(table), ONE_FOLD)])[0]
    assert (found.difference, found.p, found.p_holm, found.verdict) == (0, 1, 1, "undecided")
    assert found.low < 0 < found.high
    constant = contrast(scores(0 * table), scores(0 * table), ONE_FOLD)
    assert (constant.low, constant.high, constant.verdict) == (0, 0, "undecided")


@pytest.mark.parametrize("n", [0, 1, 9])
def test_below_ten_patients_neither_p_nor_interval(n):
    table = np.random.default_rng(0).normal(0.9, 0.001, (n, 3))
    found = holm([contrast(scores(table + 0.1), scores(table), ONE_FOLD)])[0]
    assert (found.n, found.low, found.high, found.p, found.p_holm) == (n, None, None, None, None)
    assert found.difference is None if n == 0 else found.difference == pytest.approx(0.1)
    assert (found.verdict, found.why) == ("undecided", f"{n} patient{'' if n == 1 else 's'}, 10 are needed")


def test_one_seed_is_undecided_however_clear():
    table = np.random.default_rng(0).normal(0.9, 0.001, (20, 1))
    found = holm([contrast(scores(table + 0.05), scores(table), ONE_FOLD)])[0]
    assert (found.spread, found.verdict, found.why) == (None, "undecided", "one seed")
    assert found.low > 0 and found.p_holm < 0.001


@pytest.mark.parametrize(
    "change, verdict, why",
    [
        ({}, "better", ""),
        (dict(difference=-0.02, low=-0.03, high=-0.01), "worse", ""),
        (dict(lower_is_better=True), "worse", ""),
        (dict(difference=-0.02, low=-0.03, high=-0.01, lower_is_better=True), "better", ""),
        (dict(n=6, low=None, high=None, p=None, p_holm=None), "undecided", "6 patients, 10 are needed"),
        (dict(seeds=1, spread=None), "undecided", "one seed"),
        (dict(spread=0.02), "undecided", "inside the seed spread"),
        (dict(low=-0.001), "undecided", "interval includes 0"),
        (dict(low=0.0), "undecided", "interval includes 0"),
        (dict(p_holm=0.05), "undecided", "p 0.05 after Holm"),
        (dict(p_holm=0.212), "undecided", "p 0.21 after Holm"),
        (dict(p_holm=None), "undecided", "p not corrected yet"),
    ],
)
def test_every_rule_of_a_verdict(change, verdict, why):
    found = dataclasses.replace(DECIDED, **change)
    assert (found.verdict, found.why) == (verdict, why)


@pytest.mark.parametrize(
    "p, expected",
    [
        # Sorted: 4 * 0.005, 3 * 0.01, 2 * 0.03, and 1 * 0.04, which may not fall below the one before.
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.5, 0.02, 0.02], [0.5, 0.06, 0.06]),  # ties
        ([0.6, 0.7], [1, 1]),
        ([None, 0.04, None, 0.02], [None, 0.04, None, 0.04]),  # what has no p is no comparison
        ([], []),
    ],
)
def test_holm_by_hand(p, expected):
    corrected = holm([dataclasses.replace(DECIDED, p=value, p_holm=None) for value in p])
    assert [c.p for c in corrected] == p
    assert [c.p_holm for c in corrected] == pytest.approx(expected)


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_p_and_bonferroni_and_keeps_the_order(p):
    corrected = [c.p_holm for c in holm([dataclasses.replace(DECIDED, p=value) for value in p])]
    assert all(a <= b <= min(1, len(p) * a) for a, b in zip(p, corrected, strict=True))
    assert [b for _, b in sorted(zip(p, corrected, strict=True))] == sorted(corrected)


@pytest.mark.parametrize("folds", [1, 4])
def test_interval_of_many_patients_and_seeds_is_the_normal_one(folds):
    """Variance of the difference: of the patients over n, and for each training of a fold its share, over the seeds."""
    n, seeds = 80, 10
    (cell, reference), fold = simulate(np.random.default_rng(1), n, seeds, folds, 0.015, 0.006)
    differences = cell.mean(1) - reference.mean(1)
    variance = differences.var(ddof=1) / n
    for part in range(folds):
        for arm in (cell, reference):
            variance += (arm[fold == part].mean(0) / folds).var(ddof=1) / seeds
    low, high = interval(cell, reference, fold)
    assert (low + high) / 2 == pytest.approx(differences.mean(), abs=0.1 * math.sqrt(variance))
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(variance), rel=0.08)


SETTINGS = [  # patients, seeds, folds; SDs of patients, trainings, cases
    (12, 3, 1, 0.01, 0.003, 0.005),
    (12, 3, 1, 0.02, 0.006, 0.0),
    (21, 3, 1, 0.01, 0.006, 0.005),
    (21, 3, 1, 0.02, 0.003, 0.0),
    (20, 3, 5, 0.015, 0.0045, 0.005),
    (15, 2, 1, 0.015, 0.0045, 0.0),
]


@pytest.mark.parametrize("setting", SETTINGS)
def test_coverage(setting, monkeypatch):
    """Of the truth, which is 0; 500 studies tell it to within 0.02. Far fewer replicates would narrow the interval."""
    monkeypatch.setattr(statistics, "REPLICATES", 1000)
    rng = np.random.default_rng(0)
    intervals = np.array([interval(*arms, fold) for arms, fold in (simulate(rng, *setting) for _ in range(500))])
    assert 0.93 <= np.mean((intervals[:, 0] <= 0) & (intervals[:, 1] >= 0)) <= 0.98


def test_luck_of_a_training_is_no_effect(monkeypatch):
    """Seeds as different as patients: p alone, which knows of patients only, would find an effect in every third."""
    monkeypatch.setattr(statistics, "REPLICATES", 1000)
    found = list(studies(np.random.default_rng(0), 200, 0.0, 21, 3, 1, 0.01, 0.006, 0.0))
    assert np.mean([c.p < 0.05 for c in found]) > 0.25
    assert np.mean([c.verdict != "undecided" for c in found]) <= 0.07


def test_real_differences_are_found(monkeypatch):
    monkeypatch.setattr(statistics, "REPLICATES", 300)
    for difference, verdict in ((0.03, "better"), (-0.03, "worse")):
        found = list(studies(np.random.default_rng(0), 50, difference, 21, 3, 1, 0.015, 0.0045, 0.005))
        assert np.mean([c.verdict == verdict for c in found]) > 0.9


def test_the_order_of_the_scores_changes_nothing_and_neither_does_a_second_call():
    (cell, reference), fold = simulate(np.random.default_rng(2), 15, 3, 5, 0.01, 0.005, 0.005)
    arms, folds = (scores(cell), scores(reference)), dict(zip(PATIENTS, fold.tolist(), strict=False))

    def shuffled(mapping):
        return dict(random.Random(0).sample(list(mapping.items()), len(mapping)))

    first = contrast(*arms, folds)
    assert contrast(*arms, folds) == first
    assert contrast(*map(shuffled, arms), shuffled(folds)) == first
    assert summarize(shuffled(arms[0])) == summarize(arms[0])


def test_folds_are_told_by_membership_not_by_number():
    (cell, reference), fold = simulate(np.random.default_rng(3), 15, 3, 3, 0.01, 0.005)
    assert interval(cell, reference, fold) == interval(cell, reference, 7 + 2 * fold)
    assert interval(cell, reference, fold) != interval(cell, reference, 0 * fold)


def test_arms_that_do_not_match_are_an_error():
    table = np.random.default_rng(0).normal(0.9, 0.02, (12, 3))
    whole, fewer, short = scores(table), scores(table[:11]), scores(table[:, :2])
    names = ("bases 8", "bases 32")
    with pytest.raises(UserError, match=r"bases 8 and bases 32 differ in patients \(only bases 32: patient011\)"):
        contrast(fewer, whole, ONE_FOLD, names=names)
    with pytest.raises(UserError, match=r"bases 8 and bases 32 differ in seeds \(only bases 8: 2\)"):
        contrast(whole, short, ONE_FOLD, names=names)
    hole = {key: value for key, value in whole.items() if key != (1, "patient004")}
    with pytest.raises(UserError, match="bases 32 lacks seeds of some patients"):
        contrast(whole, hole, ONE_FOLD, names=names)
    with pytest.raises(UserError, match="the fold of patient010, patient011 is not known"):
        contrast(whole, whole, dict.fromkeys(PATIENTS[:10], 0))


@pytest.mark.parametrize("bad", [None, math.nan, math.inf])
def test_what_is_not_finite_is_an_error_that_names_it(bad):
    table = scores(np.full((12, 2), 0.5)) | {(1, "patient003"): bad}
    with pytest.raises(UserError, match="bases 8: the score of patient003 with seed 1 is not finite"):
        summarize(table, "bases 8")
    with pytest.raises(UserError, match="patient003 with seed 1"):
        contrast(table, scores(np.full((12, 2), 0.5)), ONE_FOLD)


def test_finite_pairs_lose_a_case_for_all_seeds_of_both_arms():
    cell = {(s, p, f): 1.0 + s for s in (0, 1) for p in "abc" for f in (1, 9)}
    reference = {key: 5.0 for key in cell}
    cell |= {(0, "a", 1): math.inf, (1, "b", 9): None}
    reference |= {(1, "c", 1): math.nan}
    del reference[0, "c", 9]
    ours, theirs, n = finite_pairs(cell, reference)
    assert ours == {(0, "a", 9): 1, (1, "a", 9): 2, (0, "b", 1): 1, (1, "b", 1): 2}
    assert theirs == dict.fromkeys(ours, 5)
    assert n == 2


def test_finite_pairs_of_patients_make_a_contrast():
    cell, reference = scores(np.full((12, 2), 3.0)), scores(np.full((12, 2), 4.0))
    cell[0, "patient002"] = math.inf
    del reference[1, "patient005"]
    ours, theirs, n = finite_pairs(cell, reference)
    assert n == 10
    found = holm([contrast(ours, theirs, ONE_FOLD, lower_is_better=True)])[0]
    assert (found.n, found.difference, found.verdict) == (10, -1, "better")


def test_finite_pairs_of_a_seed_that_found_nothing_are_none():
    cell, reference = scores(np.full((12, 2), 3.0)), scores(np.full((12, 2), 4.0))
    cell |= {(1, patient): math.inf for patient in PATIENTS[:12]}
    ours, theirs, n = finite_pairs(cell, reference)
    assert (ours, theirs, n) == ({}, {}, 0)
    assert contrast(ours, theirs, ONE_FOLD).why == "0 patients, 10 are needed"
