"""What a sweep will cost, before it runs: a measured step of the reference, scaled by each cell's useful FLOPs."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from ablations.plan import Run, Sweep
from ablations.runner import ROOT, Slot, environment
from ica_unet_jax import distillation, flops
from ica_unet_jax.config import Config
from ica_unet_jax.errors import UserError
from ica_unet_jax.markup import plain_table

STEPS = 5  # timed, after the one that compiles


def report(workdir: Path, sweep: Sweep, left: Iterable[Run], shares: list[Slot]) -> str:
    """A table of the cells: runs left and hours, by training alone (evaluation adds little), with the sum.

    Cells that have finished with another seed or fold are priced by their own steps.
    """
    cells, counts = sweep.cells(), {}
    for run in left:
        counts[run.cell] = counts.get(run.cell, 0) + 1
    base = sweep.reference
    step, compilation = measure(base, shares[0])

    def work(config: Config) -> int:
        """Of a sample; a student's with its teacher's answer, and with the training of a teacher of its own."""
        own, teacher = distillation.own_teacher(config), distillation.teacher_config(config)
        answer = flops.total(flops.triple(teacher.model)).flops if teacher else 0
        return flops.total(flops.training_sample(config.model)).flops + answer + (work(own) if own else 0)

    lines, total = [], 0.0
    for name, config in cells.items():
        known = finished_seconds(workdir / "cells" / name)
        seconds = known or step * work(config) / work(base) * config.train.steps + compilation
        count = counts.get(name, 0)
        total += count * seconds
        lines.append((name, count, f"{seconds / 3600:.2f}", "measured" if known else "estimated"))
    head = [
        f"{len(list(sweep.runs()))} runs, {sum(counts.values())} left; {len(shares)} at a time with {shares[0].threads} threads.",
        f"The reference takes {step:.3f} s a step after {compilation:.0f} s of compilation, measured now on this machine.",
        "",
        plain_table(("cell", "runs left", "hours each", ""), lines),
    ]
    end = ["", f"Together {total / 3600:.1f} hours of training, {total / 3600 / len(shares):.1f} hours with {len(shares)} at a time."]
    return "\n".join(head + end)


def finished_seconds(folder: Path) -> float | None:
    """Training seconds of a cell's finished runs on average; None where there is none."""
    timings = [json.loads(path.read_text()) for path in sorted(folder.glob("*/timing.json"))]
    seconds = [timing["training_seconds"] + timing["evaluation_seconds"] for timing in timings if timing["evaluation_seconds"]]
    return sum(seconds) / len(seconds) if seconds else None


def measure(config: Config, slot: Slot) -> tuple[float, float]:
    """(seconds a step, seconds of compilation) of a configuration in a process with the slot's share of the machine."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(config.to_json())
        command = [sys.executable, str(ROOT / "ablations" / "cell.py"), "--measure", str(path)]
        done = subprocess.run(command, env=environment(slot), capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"a step of the reference cannot be measured ({done.stderr.strip().splitlines()[-1]}): correct its flags.")
    return tuple(json.loads(done.stdout.splitlines()[-1]))


def time_step(config: Config) -> tuple[float, float]:
    """`measure`, in this process, on made-up data of the right shapes."""
    import jax
    import numpy as np

    from ica_unet_jax.benchmarking import training_step

    step, times = training_step(config), [time.perf_counter()]
    for _ in range(1 + STEPS):
        jax.block_until_ready(step())
        times.append(time.perf_counter())
    spans = np.diff(times)
    seconds = float(np.median(spans[1:]))
    return seconds, float(spans[0]) - seconds
