import functools

import numpy as np
import pytest

from ica_unet_jax.benchmarking import timing as clocks
from ica_unet_jax.benchmarking.timing import LEAST, Ceilings, Timing, ceilings, measure
from ica_unet_jax.benchmarking.work import Work

BEST = Ceilings(float32=100e9, bfloat16=400e9, copy=10e9)


def test_of_rounds_the_median_counts():
    timing = Timing.of(np.array([1.0, 2.0, 30.0]), np.array([5.0]), np.array([4.0, 4.0]))
    assert (timing.p50, timing.rounds, timing.calls, timing.best) == (4, [2, 5, 4], 6, 1)


def test_figures_of_made_up_times():
    timing = Timing.of(np.arange(1.0, 102.0))
    assert (timing.p50, timing.p95, timing.p99, timing.mean, timing.best, timing.calls) == (51, 96, 100, 51, 1, 101)
    assert timing.jitter == pytest.approx(np.sqrt((101**2 - 1) / 12))  # of whole numbers in a row
    assert Timing.of(np.full(7, 3.0)).jitter == 0


@pytest.mark.parametrize("seconds, calls", [(0.0, LEAST), (0.5, LEAST), (1.0, 10), (2.05, 21)])
def test_calls_are_made_until_the_time_is_spent_and_the_first_does_not_count(seconds, calls):
    now, made = [0.0], []

    def call():
        made.append(1)
        now[0] += 50.0 if len(made) == 1 else 0.1

    timing = measure(call, seconds, clock=lambda: now[0])
    assert timing.calls in (calls, calls + 1) and len(made) == timing.calls + 1  # sums of 0.1 are not exact
    assert timing.p50 == timing.p99 == pytest.approx(100)


def test_the_floor_is_the_larger_of_the_two_and_shares_are_of_each():
    assert BEST.floor_ms(Work(10**9, 10**6), "float32") == pytest.approx(10)  # 1 GFLOP at 100 a second
    assert BEST.floor_ms(Work(10**9, 10**6), "bfloat16") == pytest.approx(2.5)
    assert BEST.floor_ms(Work(10**9, 5 * 10**8), "bfloat16") == pytest.approx(50)  # 0.5 GB at 10 a second
    assert BEST.shares(Work(10**9, 5 * 10**8), "float32", 100) == pytest.approx((0.1, 0.5))
    work = Work(3 * 10**9, 10**7)
    for dtype in ("float32", "bfloat16"):
        assert max(BEST.shares(work, dtype, BEST.floor_ms(work, dtype))) == pytest.approx(1)


def test_the_machines_ceilings_are_of_the_fastest_call(monkeypatch):
    """A product of 64x16 by 16x16 values, and an array of 64x16384 float32 that is read and written."""
    shapes = []

    def took(call, seconds):
        shapes.append(call().shape)
        return Timing.of(np.array([5.0, 2.0, 9.0]))  # ms

    monkeypatch.setattr(clocks, "measure", took)
    found = ceilings(0.0, size=64)
    assert shapes == [(64, 16), (64, 16), (64, 16384)]
    assert (found.float32, found.bfloat16, found.copy) == pytest.approx([2 * 64 * 16 * 16 / 2e-3] * 2 + [2 * 4 * 64 * 16384 / 2e-3])


def test_what_a_call_returns_is_waited_for():
    waited = []

    class Answer:
        def block_until_ready(self):
            waited.append(1)

    measure(functools.partial(Answer), 0.0)
    assert len(waited) == LEAST + 1
