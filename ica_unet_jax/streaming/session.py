"""A live session: a scanner on its thread, a segmenter on this one, and the count of what came out."""

from __future__ import annotations

import dataclasses
import math
import time
from array import array
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ica_unet_jax.errors import UserError
from ica_unet_jax.inference import segmenters
from ica_unet_jax.metrics.clinical import ejection_fraction
from ica_unet_jax.runs import provenance
from ica_unet_jax.runtime.compilation import Compilations
from ica_unet_jax.runtime.files import write_json
from ica_unet_jax.streaming.recorder import Recorder
from ica_unet_jax.streaming.scanner import FrameQueue, Handover, Scanner, Shot, at_rate, open_source
from ica_unet_jax.streaming.segmenter import Result, StreamingSegmenter
from ica_unet_jax.streaming.view import LiveView


@dataclasses.dataclass
class Tally:
    """What happened so far. `frames` = answered + dropped + refused, but for those still on their way."""

    deadline_ms: float
    frames: int = 0  # handed over by the scanner
    dropped: int = 0  # pushed out of the queue by a newer one
    refused: int = 0  # NaN, another size
    deadline_misses: int = 0  # answered, but later than `deadline_ms` after arrival
    compilations: int = 0
    window_moves: int = 0  # from one answer to the next
    compute_ms: array = dataclasses.field(default_factory=lambda: array("d"))
    arrival_to_mask_ms: array = dataclasses.field(default_factory=lambda: array("d"))
    last: Result | None = None
    refusal: str = ""  # the last one's reason
    extremes: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)  # mL, (smallest, largest)

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

    def summary(self) -> dict[str, Any]:
        """JSON-safe."""
        fractions = {name: self.ejection_fraction(name) for name in ("LV", "RV")}
        return {
            "frames": self.frames,
            "answered": self.answered,
            "dropped": self.dropped,
            "refused": self.refused,
            "deadline_ms": self.deadline_ms,
            "deadline_misses": self.deadline_misses,
            "compute_ms": percentiles(self.compute_ms),
            "arrival_to_mask_ms": percentiles(self.arrival_to_mask_ms),
            "compilations": self.compilations,
            "window_moves": self.window_moves,
            "ejection_fraction": {k: round(v, 4) if math.isfinite(v) else None for k, v in fractions.items()},
        }


def percentiles(values: Sequence[float]) -> dict[str, float | None]:
    """{"p50", "p95", "p99", "max"}, linearly interpolated; None of nothing."""
    names = {"p50": 50, "p95": 95, "p99": 99, "max": 100}
    if not len(values):
        return dict.fromkeys(names)
    found = np.percentile(np.asarray(values), list(names.values()))
    return {name: round(float(value), 3) for name, value in zip(names, found, strict=True)}


def play(
    segmenter: StreamingSegmenter,
    shots: Iterable[Shot],
    *,
    queue_size: int = 2,
    deadline_ms: float = 50.0,
    clock: Callable[[], float] = time.perf_counter,
    watch: Callable[[Tally, Handover | None, Result | None], None] = lambda tally, handover, result: None,
) -> Tally:
    """Plays a scanner's shots against a segmenter until they end.

    Args:
      segmenter: whose clock is `clock`.
      shots: (seconds after the start, frame).
      queue_size: frames that may wait; when one more comes, the oldest is dropped.
      deadline_ms: later answers, counted from arrival, are deadline misses.
      watch: called after each frame with the tally, the frame (None at the end) and what it answered, if it did.
    """
    queue, tally = FrameQueue(queue_size), Tally(deadline_ms)
    scanner = Scanner(shots, queue, clock)

    def done(handover: Handover | None, result: Result | None) -> None:
        if result:
            tally.add(result)
        tally.frames, tally.dropped, tally.compilations = scanner.frames, queue.dropped, compilations.count
        watch(tally, handover, result)

    with Compilations() as compilations:
        scanner.start()
        try:
            for handover in queue:
                result = None
                try:
                    result = segmenter.push(handover.frame, handover.time_stamp, handover.number)
                except UserError as error:
                    tally.refuse(error)
                done(handover, result)
            done(None, segmenter.flush())
        finally:
            scanner.finish()
    return tally


def stream(
    run_dir: str | Path,
    source: str | Path,
    *,
    which: str = "latest",
    window: str | None = None,
    rate: float = 22.0,
    seconds: float = 60.0,
    queue_size: int = 2,
    deadline_ms: float = 50.0,
    json_file: str | Path = "",
    gif: str | Path = "",
) -> dict[str, Any]:
    """Plays a cine or a phantom at a given rate against a trained model, shows it, and returns the summary.

    Args:
      run_dir: of the training.
      source: 4D NIfTI file, or "phantom"; repeated for as long as asked.
      which: "latest" or "best" checkpoint.
      window: where the model looks in frames larger than its grid, one of `roi.WINDOWS`; by default as it was trained.
      rate: frames a second.
      seconds: for so long.
      queue_size, deadline_ms: as in `play`.
      json_file: the summary goes there, if named.
      gif: a picture of the last three seconds goes there, if named.

    Raises:
      UserError: no such run, no readable cine, a file that cannot be written.
    """
    if gif and Path(gif).suffix != ".gif":
        raise UserError(f"--gif={gif} is no GIF: name a file that ends in .gif.")
    segmenter = segmenters.load(run_dir, which)
    window = window or segmenter.config.data.window
    frames, spacing = open_source(source, segmenter.config, rate, larger=window == "follow")
    live = StreamingSegmenter(segmenter, frames.shape[1:], spacing, window=window)
    recorder = Recorder(round(3 * rate)) if gif else None
    with LiveView() as view:

        def watch(tally: Tally, handover: Handover | None, result: Result | None) -> None:
            view.update(tally)
            if recorder:
                recorder.add(handover, result)

        options = dict(queue_size=queue_size, deadline_ms=deadline_ms)
        tally = play(live, at_rate(frames, rate, seconds), watch=watch, **options)
    summary = tally.summary() | {
        "rate": rate,
        "seconds": seconds,
        "queue": queue_size,
        "input": str(source),
        "shape": list(frames.shape[1:]),
        "window": window,
        "spacing_mm": [round(float(step), 4) for step in spacing],
        "model": {"crop": list(segmenter.config.model.crop), "neighbours": segmenter.config.model.neighbours},
        "checkpoint": which,
        "checkpoint_step": segmenter.step,
        "provenance": provenance.this_process(),
    }
    if json_file:
        write_json(json_file, summary)
    if recorder:
        recorder.save(gif, spacing, rate)
    return summary


def describe(summary: dict[str, Any]) -> str:
    """A summary in four lines."""

    def line(name: str, values: dict[str, float | None]) -> str:
        return f"{name} " + "  ".join(f"{key} " + ("–" if v is None else f"{v:.1f}") for key, v in values.items())

    fractions = summary["ejection_fraction"].items()
    return "\n".join(
        [
            f"{summary['frames']} frames, {summary['answered']} answered, {summary['dropped']} dropped, "
            f"{summary['refused']} refused, {summary['compilations']} compilations",
            line("compute (ms)        ", summary["compute_ms"]),
            line("arrival to mask (ms)", summary["arrival_to_mask_ms"])
            + f"  {summary['deadline_misses']} later than {summary['deadline_ms']:g}",
            "EF " + ", ".join(f"{name} " + ("–" if v is None else f"{100 * v:.1f} %") for name, v in fractions),
        ]
    )
