"""Trains, judges and times the systems of the paper's tables, each in a run folder of its own; what is there is kept."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ica_unet_jax import evaluation, flops, paper_tables, run_folder, training
from ica_unet_jax.config import Config
from ica_unet_jax.errors import Diverged, UserError
from ica_unet_jax.files import write_text
from ica_unet_jax.inference import segmenter_of
from ica_unet_jax.models import init_variables
from ica_unet_jax.paper_tables import DIVERGED
from ica_unet_jax.snippet_streaming import SnippetStream
from ica_unet_jax.streaming import StreamingSegmenter
from ica_unet_jax.systems import SYSTEMS, System

SLICE_MM = 10.0
LEAST = 5  # calls, however long they take


def compare(
    reference: Config, *, only: Sequence[str] = (), split: str = "val", seconds: float = 3.0, timed: bool = True
) -> Path:
    """Trains, judges and times what is missing below `reference.train.workdir`, and writes the tables there.

    The tables are rewritten after every system. One whose training diverges is a row that says so; one that does not fit
    the grid is left out, with a sentence.

    Args:
      reference: data, grid, steps and the settings of ICA-UNet; each system changes what is its own.
      only: systems whose name contains one of these; empty: all.
      split: patients that are judged.
      seconds: for each timing.
      timed: False leaves timings out.

    Returns:
      The folder with tables.md, table_1.csv and .tex, table_2.csv and .tex.

    Raises:
      UserError: bad data, or a word of `only` that fits no system.
    """
    folder = Path(reference.train.workdir)
    for system in chosen(only):
        run = folder / system.name
        if (run / DIVERGED).is_file():
            continue  # it would diverge again
        try:
            config = system.config(reference).replace(workdir=str(run))
        except UserError as error:
            print(f"{system.title} is left out: {error}")
            continue
        try:
            if timed:
                time_system(config, run, seconds)
            train_system(config, run, system, split)
        except Diverged as error:
            write_text(run / DIVERGED, f"diverged at step {error.step} ({error.what})\n")
        paper_tables.write(folder, split)
    return folder


def chosen(only: Sequence[str]) -> list[System]:
    """The systems whose name contains one of `only`; all without any. Raises UserError where a word fits none."""
    for word in only:
        if not any(word in system.name for system in SYSTEMS):
            raise UserError(f"--only={word} fits no system: give parts of {', '.join(system.name for system in SYSTEMS)}.")
    return [system for system in SYSTEMS if not only or any(word in system.name for word in only)]


def train_system(config: Config, run: Path, system: System, split: str) -> None:
    """Trains to the last step and judges, unless both are done."""
    summary = run / f"evaluation_{split}" / "summary.json"
    if summary.is_file() and json.loads(summary.read_text())["checkpoint_step"] == config.train.steps:
        run_folder.open_run(config, json.loads((run / "split.json").read_text()))  # refuses other settings
        return
    training.train(config, pictures=False)
    evaluation.evaluate(run, split=split, cines=0, largest_component=system.cleaned, mirror=system.cleaned, pictures=False)


def time_system(config: Config, run: Path, seconds: float) -> None:
    """Writes timing.json: the network at full width, untrained, on a stream of frames of its own grid."""
    path = run / "timing.json"
    model = config.replace(width_multiplier=1.0).model
    if path.is_file() and json.loads(path.read_text())["crop"] == list(model.crop):
        return
    timing = stream_timing(config.replace(width_multiplier=1.0), seconds)
    work = flops.total(flops.streamed(model))
    figures = {
        "crop": list(model.crop),
        "parameters": flops.parameters(model),
        "gflop": work.flops / 1e9,
        "answered": model.answered,
        "waits": model.answered - 1 or int(1 in model.frames),  # frames that the first of those answered waits for
        **timing,
        "machine": run_folder.provenance(),
    }
    write_text(path, json.dumps(figures, indent=2) + "\n")


def stream_timing(config: Config, seconds: float, clock: Callable[[], float] = time.perf_counter) -> dict[str, Any]:
    """{"compute_ms": median of the call that answers, "frame_ms": mean time of a frame in all its calls}."""
    model, spacing = config.model, (SLICE_MM, config.data.spacing, config.data.spacing)
    variables = jax.jit(lambda key: init_variables(model, key))(jax.random.key(0))
    segmenter = segmenter_of(config, variables)
    kind = SnippetStream if model.answered > 1 else StreamingSegmenter
    stream = kind(segmenter, model.crop, spacing)
    frames = np.random.default_rng(0).gamma(2, 100, (4, *model.crop)).astype(np.float32)
    turn = itertools.cycle(frames)
    while not stream.push(next(turn)):
        pass  # from answer to answer: what the first waits for counts nowhere
    answering, spent, count = [], 0.0, 0
    while len(answering) < LEAST or spent < seconds:
        result = None
        while not result:
            began = clock()
            result = stream.push(next(turn))
            took = clock() - began
            spent, count = spent + took, count + 1
        answering.append(1e3 * took)
    return {"compute_ms": float(np.median(answering)), "frame_ms": 1e3 * spent / count, "frames": count}
