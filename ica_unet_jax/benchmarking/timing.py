"""How long a call takes, and how fast the machine is at best."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ica_unet_jax.benchmarking.work import Work

LEAST = 5  # calls, however long they take


@dataclasses.dataclass(frozen=True)
class Timing:
    """Milliseconds a call, over `calls` of them."""

    p50: float  # of several rounds the median of theirs
    p95: float
    p99: float
    mean: float
    jitter: float  # standard deviation
    best: float
    calls: int
    rounds: list[float]  # p50 of each

    @classmethod
    def of(cls, *rounds: np.ndarray) -> Timing:
        milliseconds = np.concatenate(rounds)
        p95, p99 = np.percentile(milliseconds, (95, 99)).tolist()
        best, mean, jitter = (float(f(milliseconds)) for f in (np.min, np.mean, np.std))
        medians = [float(np.median(found)) for found in rounds]
        return cls(float(np.median(medians)), p95, p99, mean, jitter, best, len(milliseconds), medians)


def laps(
    call: Callable[[], Any], seconds: float, clock: Callable[[], float] = time.perf_counter, *, frames: int = 1, least: int = LEAST
) -> np.ndarray:
    """Milliseconds of the calls in so many seconds, and of `least` at least, after one call that does not count.

    What it returns is waited for. The figures are of one of the `frames` of a call.
    """
    jax.block_until_ready(call())
    spent: list[float] = []
    while len(spent) < least or sum(spent) < seconds:
        began = clock()
        jax.block_until_ready(call())
        spent.append(clock() - began)
    return 1e3 / frames * np.array(spent)


def measure(call: Callable[[], Any], seconds: float, clock: Callable[[], float] = time.perf_counter) -> Timing:
    """`laps`, in one round."""
    return Timing.of(laps(call, seconds, clock))


@dataclasses.dataclass(frozen=True)
class Ceilings:
    """What the machine does at best: multiply-adds of large matrices (x 2) and copied bytes, read and written, a second."""

    float32: float
    bfloat16: float  # with float32 sums
    copy: float

    def floor_ms(self, work: Work, dtype: str) -> float:
        """The time below which no program does the work: its FLOPs or its bytes, whichever takes longer."""
        return 1e3 * max(work.flops / getattr(self, dtype), work.bytes / self.copy)

    def shares(self, work: Work, dtype: str, milliseconds: float) -> tuple[float, float]:
        """Parts of the two ceilings, matrix products and copying, that the work has reached in this time."""
        seconds = milliseconds / 1e3
        return work.flops / seconds / getattr(self, dtype), work.bytes / seconds / self.copy


def ceilings(seconds: float, size: int = 0) -> Ceilings:
    """Measured now, a third of the time each; the fastest call counts.

    Args:
      seconds: for all three.
      size: rows of the first matrix, and of the array of 16384 columns that is copied; 0: enough for the device.
    """
    on_cpu = jax.default_backend() == "cpu"
    size = size or (4096 if on_cpu else 8192)
    inner, rates = size // 4 if on_cpu else size, {}
    for dtype in ("float32", "bfloat16"):
        a, b = (jnp.ones(shape, dtype) for shape in ((size, inner), (inner, inner)))
        product = jax.jit(functools.partial(jnp.dot, preferred_element_type=jnp.float32))
        timing = measure(functools.partial(product, a, b), seconds / 3)
        rates[dtype] = 2 * size * inner * inner / (timing.best / 1e3)
    x = jnp.ones((size, 16384), jnp.float32)
    # One more than it was: what is only copied might not be touched.
    timing = measure(functools.partial(jax.jit(lambda x: x + 1), x), seconds / 3)
    return Ceilings(**rates, copy=2 * x.nbytes / (timing.best / 1e3))
