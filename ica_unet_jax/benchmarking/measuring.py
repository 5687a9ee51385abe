"""Times networks on this machine: a streamed frame, a training step, and how far both are from what the machine can do."""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ica_unet_jax.benchmarking.profile import profile
from ica_unet_jax.benchmarking.systems import PAPER_RATE, SYSTEMS
from ica_unet_jax.benchmarking.timing import Ceilings, Timing, ceilings, measure
from ica_unet_jax.benchmarking.work import Work, equal_work, parameters, streamed, total, training_sample
from ica_unet_jax.config import Config
from ica_unet_jax.data.augmentation import Batch
from ica_unet_jax.data.cache import canvas
from ica_unet_jax.errors import UserError
from ica_unet_jax.inference import segmenters
from ica_unet_jax.inference.segmenters import segmenter_of
from ica_unet_jax.models.networks import init_variables
from ica_unet_jax.runs import provenance
from ica_unet_jax.runtime import compilation
from ica_unet_jax.runtime.files import write_json
from ica_unet_jax.runtime.progress import Progress
from ica_unet_jax.streaming.segmenter import StreamingSegmenter
from ica_unet_jax.training import distillation, stepping

Grid = tuple[int, int, int]

ROI, FULL = (8, 128, 128), (10, 256, 256)
TRAINING = (8, 96, 96)
RATES = (22, PAPER_RATE)  # frames a second
SLICE_MM = 10.0


@dataclasses.dataclass(frozen=True)
class Row:
    """A network and what it is timed at: a stream of frames (s, h, w), or with `frame` None a training step."""

    name: str
    config: Config
    frame: Grid | None = None
    run: str = ""  # whose trained values are used; otherwise untrained ones
    dice: float | None = None  # of the run, on the grid that it was trained on


def paper_rows(compute_dtype: str = "float32") -> list[Row]:
    """ICA-UNet in all its kinds and its rivals, on a window and on full frames; full frames through a window; training."""
    rivals = [system for system in SYSTEMS if system.changes["model"] != "ica_unet"]
    common = dict(compute_dtype=compute_dtype)
    kinds = list(itertools.product((4, 3), ("independent", "dense", "shared"), ("past", "both")))
    found = []
    for name, grid in (("roi", ROI), ("full", FULL)):
        for n, streams, neighbours in kinds:
            config = Config.make(crop=grid, contracting_blocks=n, streams=streams, neighbours=neighbours, **common)
            config = config.replace(**equal_work(config.model))
            found.append(Row(f"{name}/n{n}/{streams}/{neighbours}", config, grid))
        found += [Row(f"{name}/{rival.name}", Config.make(crop=grid, **common, **rival.changes), grid) for rival in rivals]
    causal = Config.make(crop=ROI, neighbours="past", **common)
    found.append(Row("window/n4/independent/past", causal, FULL))
    for streams in ("independent", "dense", "shared"):
        config = Config.make(crop=TRAINING, contracting_blocks=3, streams=streams, decoder_convs=2, **common)
        found.append(Row(f"train/n3/{streams}", config.replace(**equal_work(config.model))))
    trained = [rival for rival in rivals if rival.changes.get("span", 2) == 2]  # each network once
    return found + [Row(f"train/{rival.name}", Config.make(crop=TRAINING, **common, **rival.changes)) for rival in trained]


def run_rows(run_dir: str | Path) -> list[Row]:
    """A trained network on its own grid, on a full frame through its window, and, untrained, on the other grids; its training step."""
    config, name = segmenters.load(run_dir).config, Path(run_dir).resolve().name
    own, d = config.model.crop, config.model.crop[0]
    rows = [
        Row(f"{name}/own", config, own, str(run_dir), dice_of(run_dir)),
        Row(f"{name}/window", config, (d, *FULL[1:]), str(run_dir)),
    ]
    others = {"roi": ROI, "full": FULL}
    rows += [Row(f"{name}/{k}", config.replace(crop=grid), grid) for k, grid in others.items() if grid != own]
    return [*rows, Row(f"{name}/train", config)]


def dice_of(run_dir: str | Path) -> float | None:
    """Mean Dice of a run's evaluation, on test patients if there is one; None without any."""
    for split in ("test", "val"):
        path = Path(run_dir) / f"evaluation_{split}" / "summary.json"
        if path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))["dice"]["mean"]
    return None


def choose(rows: Sequence[Row], only: Sequence[str]) -> list[Row]:
    """The rows whose name contains one of `only`; all without any. Raises UserError where a word fits none."""
    for word in only:
        if not any(word in row.name for row in rows):
            raise UserError(f"--only={word} fits no row: give parts of {', '.join(row.name for row in rows)}.")
    return [row for row in rows if not only or any(word in row.name for word in only)]


def benchmark(
    rows: Sequence[Row], *, seconds: float = 3.0, json_file: str | Path = "", best: Ceilings | None = None, profiled: bool = False
) -> dict[str, Any]:
    """Times rows one after the other; the JSON-safe result.

    Args:
      seconds: for each figure.
      json_file: where the result goes too, rewritten after every row.
      best: the machine's ceilings; by default measured.
      profiled: each row has a `profile` too, the parts of the network with what they take.
    """
    compilation.keep_on_disk()
    if profiled:  # a program from the disk has the names that its parts had when it was compiled
        jax.config.update("jax_enable_compilation_cache", False)
    best = best or ceilings(3 * seconds)
    result = {"machine": provenance.this_process(), "ceilings": dataclasses.asdict(best), "seconds": seconds, "rows": {}}
    with Progress(len(rows), unit="row") as progress:
        for number, row in enumerate(rows, start=1):
            result["rows"][row.name] = (time_stream if row.frame else time_training)(row, best, seconds, profiled)
            if json_file:
                write_json(json_file, result)
            progress.update(number)
    return result


def time_stream(row: Row, best: Ceilings, seconds: float, profiled: bool = False) -> dict[str, Any]:
    """A streamed frame: encoded, decoded, and both with all that lies between a frame and its labels on the host."""
    config, began = row.config, time.perf_counter()
    segmenter = segmenters.load(row.run) if row.run else segmenter_of(config, untrained(config))
    spacing = (SLICE_MM, config.data.spacing, config.data.spacing)
    stream = StreamingSegmenter(segmenter, row.frame, spacing)
    ready = time.perf_counter() - began
    frames = np.random.default_rng(0).gamma(2, 100, (3, *row.frame)).astype(np.float32)
    placement = segmenter.place(row.frame, spacing)
    decoded = [segmenter.encode(placement, segmenter.put(frames[0]))] * segmenter.decoded

    def decode() -> list[np.ndarray]:
        return jax.device_get([segmenter.to_labels(placement, windows) for windows in segmenter.decode(*decoded)])

    answered, waits = config.model.answered, config.model.waits
    timings = {
        "encode_ms": measure(lambda: segmenter.encode(placement, segmenter.put(frames[0])), seconds),
        "decode_ms": measure(decode, seconds, frames=answered),
    }
    timings["frame_ms"], timings["compute_ms"] = time_answers(stream, itertools.cycle(frames), answered, seconds)
    frame, compute = timings["frame_ms"], timings["compute_ms"]
    played = itertools.cycle(frames)
    parts = profile(lambda: [stream.push(next(played)) for _ in range(answered)], config.model, answered) if profiled else []
    windows = len(placement.windows)
    work = total(streamed(config.model))
    work = Work(windows * work.flops, windows * work.bytes)
    return described(row, work, best, frame.p50) | {
        "native": list(row.frame),
        "windows": windows,
        "waits": waits,
        "ready_s": ready,
        "profile": [dataclasses.asdict(part) for part in parts],
        **{name: dataclasses.asdict(timing) for name, timing in timings.items()},
        "frames_per_second": 1e3 / frame.mean,
        "arrival_to_mask_ms": {
            str(rate): {
                name: arrival_to_mask(getattr(compute, name), frame.mean, rate, waits) for name in ("p50", "p95", "p99")
            }
            for rate in RATES
        },
    }


def time_answers(
    stream: StreamingSegmenter, frames: Iterator[np.ndarray], answered: int, seconds: float, clock: Callable[[], float] = time.perf_counter
) -> tuple[Timing, Timing]:
    """Time of a frame, over all calls of `push` from one answer to the next, and of the call that answers.

    They differ where a snippet of `answered` frames is answered at its end.
    """
    answering: list[float] = []

    def push() -> None:
        for _ in range(answered):
            began = clock()
            stream.push(next(frames))  # gives labels on the host, or waits for its features
        answering.append(1e3 * (clock() - began))

    frame = measure(push, seconds, clock, frames=answered)
    return frame, Timing.of(np.array(answering[1:]))  # without the one that does not count


def arrival_to_mask(compute_ms: float, mean_ms: float, rate: float, waits: int) -> float | None:
    """Latency at so many frames a second of an answer that takes `compute_ms`, with the wait for so many later frames.

    None where a frame takes longer than its period on average: such a system cannot keep up, and its latency grows for ever.
    """
    period = 1e3 / rate
    return None if mean_ms > period else compute_ms + period * waits


def time_training(row: Row, best: Ceilings, seconds: float, profiled: bool = False) -> dict[str, Any]:
    """A training step, augmentation and optimizer included, on made-up data."""
    began = time.perf_counter()
    step = training_step(row.config)
    jax.block_until_ready(step())
    ready = time.perf_counter() - began
    timing, batch = measure(step, seconds), row.config.train.batch_size
    parts = profile(step, row.config.model) if profiled else []
    work = total(training_sample(row.config.model))
    work = Work(batch * work.flops, batch * work.bytes)
    return described(row, work, best, timing.p50) | {
        "batch": batch,
        "ready_s": ready,
        "step_ms": dataclasses.asdict(timing),
        "profile": [dataclasses.asdict(part) for part in parts],
    }


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


def untrained(config: Config) -> dict[str, Any]:
    return jax.jit(lambda key: init_variables(config.model, key))(jax.random.key(0))


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
        "parameters": parameters(model),
        "gflop": work.flops / 1e9,
        "mbyte": work.bytes / 1e6,
        "floor_ms": floor,
        "times_floor": milliseconds / floor,
        "share_of_matmul": matmul,
        "share_of_copy": copy,
        "dice": row.dice,
    }
