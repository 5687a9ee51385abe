"""What happened in a live session so far: counts, latencies, memory, ejection fractions."""

from __future__ import annotations

import dataclasses
import math
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np

from ica_unet_jax.errors import UserError
from ica_unet_jax.metrics.clinical import ejection_fraction
from ica_unet_jax.runtime import memory
from ica_unet_jax.streaming.segmenter import Result

MEMORY_SECONDS = 10.0  # from one look at the memory to the next


@dataclasses.dataclass
class Tally:
    """`frames` = answered + dropped + refused, but for those still on their way."""

    deadline_ms: float
    frames: int = 0  # handed over by the scanner
    dropped: int = 0  # pushed out of the queue by a newer one
    refused: int = 0  # NaN, another size
    deadline_misses: int = 0  # answered, but later than `deadline_ms` after arrival
    compilations: int = 0
    window_moves: int = 0  # from one answer to the next
    compute_ms: array = dataclasses.field(default_factory=lambda: array("d"))
    arrival_to_mask_ms: array = dataclasses.field(default_factory=lambda: array("d"))
    resident_mb: list[tuple[float, float]] = dataclasses.field(default_factory=list)  # (s since the start, MB of the process)
    last: Result | None = None
    refusal: str = ""  # the last one's reason
    extremes: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)  # mL, (smallest, largest)
    _next_look: float = dataclasses.field(default=0.0, init=False)  # at the memory, s since the start

    def add(self, result: Result) -> None:
        """An answer."""
        self.window_moves += self.last is not None and self.last.placement != result.placement
        self.last = result
        self.compute_ms.append(result.compute_ms)
        self.arrival_to_mask_ms.append(result.arrival_to_mask_ms)
        self.deadline_misses += result.arrival_to_mask_ms > self.deadline_ms
        for name, volume in result.volumes_ml.items():
            smallest, largest = self.extremes.get(name, (volume, volume))
            self.extremes[name] = min(smallest, volume), max(largest, volume)

    def look_at_memory(self, seconds: float) -> None:
        """To be called often, `seconds` after the start."""
        if seconds >= self._next_look:
            self._next_look += MEMORY_SECONDS
            if held := memory.resident_mb():
                self.resident_mb.append((seconds, held))

    def refuse(self, error: UserError) -> None:
        self.refused += 1
        self.refusal = str(error)

    @property
    def answered(self) -> int:
        return len(self.compute_ms)

    def ejection_fraction(self, ventricle: str) -> float:
        """Of the largest and the smallest volume so far; NaN before there is any."""
        smallest, largest = self.extremes.get(ventricle, (0.0, 0.0))
        return ejection_fraction(largest, smallest)

    def counts(self) -> dict[str, Any]:
        """What is known at any time without looking at all answers, JSON-safe."""
        fractions = {name: self.ejection_fraction(name) for name in ("LV", "RV")}
        return {
            "frames": self.frames,
            "answered": self.answered,
            "dropped": self.dropped,
            "refused": self.refused,
            "deadline_ms": self.deadline_ms,
            "deadline_misses": self.deadline_misses,
            "ejection_fraction": {name: round(value, 4) if math.isfinite(value) else None for name, value in fractions.items()},
        }

    def summary(self) -> dict[str, Any]:
        """All, JSON-safe."""
        return self.counts() | {
            "compute_ms": percentiles(self.compute_ms),
            "arrival_to_mask_ms": percentiles(self.arrival_to_mask_ms),
            "compilations": self.compilations,
            "window_moves": self.window_moves,
            "resident_mb": [[round(seconds, 1), round(held, 1)] for seconds, held in self.resident_mb],
        }


def percentiles(values: Sequence[float]) -> dict[str, float | None]:
    """{"p50", "p95", "p99", "max"}, linearly interpolated; None of nothing."""
    names = {"p50": 50, "p95": 95, "p99": 99, "max": 100}
    if not len(values):
        return dict.fromkeys(names)
    found = np.percentile(np.asarray(values), list(names.values()))
    return {name: round(float(value), 3) for name, value in zip(names, found, strict=True)}


def describe(summary: dict[str, Any]) -> str:
    """A session's summary in four lines."""

    def line(name: str, values: dict[str, float | None]) -> str:
        return f"{name} " + "  ".join(f"{key} " + ("–" if v is None else f"{v:.1f}") for key, v in values.items())

    fractions = summary["ejection_fraction"].items()
    return "\n".join(
        [
            f"{summary['frames']} frames, {summary['answered']} answered, {summary['dropped']} dropped, "
            f"{summary['refused']} refused, {summary['compilations']} compilations; {summary['runtime']}, {summary['compute_dtype']}",
            line("compute (ms)        ", summary["compute_ms"]),
            line("arrival to mask (ms)", summary["arrival_to_mask_ms"])
            + f"  {summary['deadline_misses']} later than {summary['deadline_ms']:g}",
            "EF " + ", ".join(f"{name} " + ("–" if v is None else f"{100 * v:.1f} %") for name, v in fractions),
        ]
    )
