"""Times networks on this machine: a streamed frame, a training step, and how far both are from what the machine can do."""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ica_unet_jax.benchmarking.profile import profile
from ica_unet_jax.benchmarking.rows import Row
from ica_unet_jax.benchmarking.systems import PAPER_RATE
from ica_unet_jax.benchmarking.timing import LEAST, Ceilings, Timing, ceilings, laps
from ica_unet_jax.benchmarking.values import untrained
from ica_unet_jax.benchmarking.work import Work, parameters, streamed_stack, total, training_sample
from ica_unet_jax.config import Config
from ica_unet_jax.data.augmentation import Batch
from ica_unet_jax.data.cache import canvas
from ica_unet_jax.inference import segmenters
from ica_unet_jax.inference.segmenters import segmenter_of
from ica_unet_jax.portable.runtimes import JAX
from ica_unet_jax.runs import provenance
from ica_unet_jax.runtime import compilation
from ica_unet_jax.runtime.files import write_json
from ica_unet_jax.runtime.progress import Progress
from ica_unet_jax.streaming.segmenter import StreamingSegmenter
from ica_unet_jax.training import distillation, stepping

RATES = (22, PAPER_RATE)  # frames a second
SLICE_MM = 10.0
ROUNDS = 5


def benchmark(
    rows: Sequence[Row],
    *,
    seconds: float = 3.0,
    json_file: str | Path = "",
    best: Ceilings | None = None,
    profiled: bool = False,
    rounds: int = ROUNDS,
) -> dict[str, Any]:
    """Times rows; the JSON-safe result.

    The rows of a group take turns, for a part of the time each, `rounds` times: what a shared machine does in a bad minute is
    done to all of them, and ratios of two rows of one round may be trusted.

    Args:
      seconds: for each figure, of all rounds together.
      json_file: where the result goes too, rewritten after every group.
      best: the machine's ceilings; by default measured.
      profiled: each row has a `profile` too, the parts of the network with what they take.
    """
    compilation.keep_on_disk()
    if profiled:  # a program from the disk has the names that its parts had when it was compiled
        jax.config.update("jax_enable_compilation_cache", False)
    best = best or ceilings(3 * seconds)
    result = {"machine": provenance.this_process(), "ceilings": dataclasses.asdict(best), "seconds": seconds, "rounds": rounds, "rows": {}}
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.group or row.name.split("/", 1)[0]].append(row)
    with Progress(len(rows) * (rounds + 1), unit="row's round") as progress:
        done = 0
        for group in groups.values():
            timed: list[Streamed | Trained] = []
            for turn in range(rounds + 1):
                for number, row in enumerate(group):
                    if turn:
                        timed[number].round(seconds / rounds)
                    else:
                        timed.append(Streamed(row) if row.frame else Trained(row))
                    progress.update(done := done + 1)
            result["rows"] |= {one.row.name: one.described(best, profiled) for one in timed}
            if json_file:
                write_json(json_file, result)
    return result


class Streamed:
    """A network on a stream of frames: encoded, decoded, and both with all that lies between a frame and its labels on the host."""

    def __init__(self, row: Row):
        began = time.perf_counter()
        self.row, config = row, row.config
        if row.run:
            self.segmenter = segmenters.load(row.run, runtime=row.runtime, compute_dtype=config.model.compute_dtype)
        else:
            self.segmenter = segmenter_of(config, untrained(config), runtime=row.runtime)
        spacing = (SLICE_MM, config.data.spacing, config.data.spacing)
        self.stream = StreamingSegmenter(self.segmenter, row.frame, spacing)
        self.ready = time.perf_counter() - began
        self.placement, self.way = self.segmenter.place(row.frame, spacing), self.stream.way
        frames = np.random.default_rng(0).gamma(2, 100, (3, *row.frame)).astype(np.float32)
        self.frame, self.frames = frames[0], itertools.cycle(frames)
        self.rounds: dict[str, list[np.ndarray]] = defaultdict(list)

    def encode(self) -> Any:
        return self.way.encode(self.placement, self.way.put(self.frame))

    def round(self, seconds: float, least: int = 1) -> None:
        """Times each figure for so long."""
        decoded, answered = [self.encode()] * self.segmenter.decoded, self.row.config.model.answered

        def decode() -> list[np.ndarray]:
            return self.way.labels(self.placement, decoded, answered)

        frame, compute = time_answers(self.stream, self.frames, answered, seconds, least=least)
        found = {
            "encode_ms": laps(self.encode, seconds, least=least),
            "decode_ms": laps(decode, seconds, frames=answered, least=least),
            "frame_ms": frame,
            "compute_ms": compute,
        }
        for name, milliseconds in found.items():
            self.rounds[name].append(milliseconds)

    def described(self, best: Ceilings, profiled: bool = False) -> dict[str, Any]:
        """What was found, JSON-safe."""
        model, timings = self.row.config.model, {name: Timing.of(*rounds) for name, rounds in self.rounds.items()}
        frame, compute = timings["frame_ms"], timings["compute_ms"]
        work = total(streamed_stack(model, self.row.frame[0]))
        return described(self.row, work, best, frame.p50) | {
            "native": list(self.row.frame),
            "windows": len(self.placement.windows),
            "waits": model.waits,
            "ready_s": self.ready,
            "profile": self.profile() if profiled else [],
            **{name: dataclasses.asdict(timing) for name, timing in timings.items()},
            "frames_per_second": 1e3 / frame.mean,
            "arrival_to_mask_ms": {
                str(rate): {
                    name: arrival_to_mask(getattr(compute, name), frame.mean, rate, model.waits) for name in ("p50", "p95", "p99")
                }
                for rate in RATES
            },
        }

    def profile(self) -> list[dict[str, Any]]:
        """Where the time goes: by parts of the network in JAX, by kinds of nodes elsewhere."""
        if self.row.runtime != JAX:
            return self.way.node_times(self.placement, self.way.put(self.frame))
        answered = self.row.config.model.answered
        parts = profile(lambda: [self.stream.push(next(self.frames)) for _ in range(answered)], self.row.config.model, answered)
        return [dataclasses.asdict(part) for part in parts]


class Trained:
    """A training step, augmentation and optimizer included, on made-up data."""

    def __init__(self, row: Row):
        began = time.perf_counter()
        self.row, self.step, self.rounds = row, training_step(row.config), []
        jax.block_until_ready(self.step())
        self.ready = time.perf_counter() - began

    def round(self, seconds: float, least: int = 1) -> None:
        """Times it for so long."""
        self.rounds.append(laps(self.step, seconds, least=least))

    def described(self, best: Ceilings, profiled: bool = False) -> dict[str, Any]:
        """What was found, JSON-safe."""
        timing, batch = Timing.of(*self.rounds), self.row.config.train.batch_size
        parts = profile(self.step, self.row.config.model) if profiled else []
        work = total(training_sample(self.row.config.model))
        work = Work(batch * work.flops, batch * work.bytes)
        return described(self.row, work, best, timing.p50) | {
            "batch": batch,
            "ready_s": self.ready,
            "step_ms": dataclasses.asdict(timing),
            "profile": [dataclasses.asdict(part) for part in parts],
        }


def time_answers(
    stream: StreamingSegmenter,
    frames: Iterator[np.ndarray],
    answered: int,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
    least: int = LEAST,
) -> tuple[np.ndarray, np.ndarray]:
    """Milliseconds of a frame, over all calls of `push` from one answer to the next, and of the calls that answer.

    They differ where a snippet of `answered` frames is answered at its end.
    """
    answering: list[float] = []

    def push() -> None:
        for _ in range(answered):
            began = clock()
            stream.push(next(frames))  # gives labels on the host, or waits for its features
        answering.append(1e3 * (clock() - began))

    frame = laps(push, seconds, clock, frames=answered, least=least)
    return frame, np.array(answering[1:])  # without the one that does not count


def arrival_to_mask(compute_ms: float, mean_ms: float, rate: float, waits: int) -> float | None:
    """Latency at so many frames a second of an answer that takes `compute_ms`, with the wait for so many later frames.

    None where a frame takes longer than its period on average: such a system cannot keep up, and its latency grows for ever.
    """
    period = 1e3 / rate
    return None if mean_ms > period else compute_ms + period * waits


def training_step(config: Config) -> Callable[[], Any]:
    """A call does a training step on made-up data of the right shapes, on one device; the first compiles."""
    config = config.replace(devices=1)
    batch, (d, *_), (rows, columns) = config.train.batch_size, config.model.crop, canvas(config.model.crop)
    rng = np.random.default_rng(0)
    frames = rng.standard_normal((batch, 2 * distillation.reach(config) + 1, d, rows, columns), np.float32)
    labels = rng.integers(0, 4, (batch, d, rows, columns)).astype(np.uint8)
    data = Batch(frames, labels, np.ones(labels.shape, np.float32))
    teacher = distillation.teacher_config(config)
    step, states, taught = stepping.make_step(config), [stepping.init_state(config)], teacher and untrained(teacher)

    def call() -> Any:
        states[0], terms = step(states[0], data, taught)
        return terms

    return call


def described_model(row: Row) -> dict[str, Any]:
    """Its settings as they are read back from JSON."""
    return json.loads(json.dumps(dataclasses.asdict(row.config.model)))


def described(row: Row, work: Work, best: Ceilings, milliseconds: float) -> dict[str, Any]:
    """What a row is, and its work against the machine's ceilings."""
    model = row.config.model
    floor = best.floor_ms(work, model.compute_dtype)
    matmul, copy = best.shares(work, model.compute_dtype, milliseconds)
    return {
        "model": described_model(row),
        "runtime": row.runtime,
        "parameters": parameters(model),
        "gflop": work.flops / 1e9,
        "mbyte": work.bytes / 1e6,
        "floor_ms": floor,
        "times_floor": milliseconds / floor,
        "share_of_matmul": matmul,
        "share_of_copy": copy,
        "dice": row.dice,
    }
