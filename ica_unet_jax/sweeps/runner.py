"""Runs the trainings that a sweep lacks, each in its own process, resumed after any kill; a failure becomes a row.

WORKDIR/running/CELL/seedS_foldF holds a run while it trains, WORKDIR/cells/CELL/seedS_foldF what is left of it. The
second appears by one rename, so what is there is whole and is never run again.
"""

from __future__ import annotations

import dataclasses
import os
import queue
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from ica_unet_jax.config import Config
from ica_unet_jax.errors import UserError
from ica_unet_jax.runs.log import read_metrics
from ica_unet_jax.runs.run_folder import essential_changes
from ica_unet_jax.runtime.files import write_text
from ica_unet_jax.runtime.paths import ROOT, compiled_dir
from ica_unet_jax.sweeps import cell, records
from ica_unet_jax.sweeps.plan import Run
from ica_unet_jax.sweeps.trials import LEFT


@dataclasses.dataclass(frozen=True)
class Slot:
    """A share of the machine: some cores, and one of its GPUs where it has any."""

    cores: tuple[int, ...] = ()  # empty: wherever the system puts it
    threads: int = 1
    gpu: int | None = None
    gpu_share: int = 1  # slots on that GPU


def environment(slot: Slot) -> dict[str, str]:
    """This process's environment with the share of the machine, this package, and a cache of compiled programs for all runs."""
    threads = str(slot.threads)
    # NPROC sizes XLA's thread pool where a process cannot be bound to cores.
    share = {"CELL_THREADS": threads, "NPROC": threads, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
    if slot.cores:
        share["CELL_CORES"] = ",".join(map(str, slot.cores))
    if slot.gpu is not None:
        share["CUDA_VISIBLE_DEVICES"] = str(slot.gpu)
        share["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 / slot.gpu_share:.2f}"
    compiled = {
        "JAX_COMPILATION_CACHE_DIR": str(compiled_dir(slot.threads)),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
    }
    found = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return compiled | dict(os.environ) | share | {"PYTHONPATH": found}


def slots(jobs: int, threads: int) -> list[Slot]:
    """Shares of this machine.

    Args:
      jobs: how many; 0: one for each GPU, without any one for each core, or for each `threads` cores.
      threads: cores of each; 0: all cores, divided by the number of shares.

    Raises:
      UserError: more cores are asked for than there are.
    """
    free = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    devices = gpus()
    jobs = jobs or len(devices) or max(1, len(free) // (threads or 1))
    threads = threads or max(1, len(free) // jobs)
    if jobs * threads > len(free):
        raise UserError(f"--jobs={jobs} with --threads={threads} asks for {jobs * threads} cores of {len(free)}: lower one.")
    bind = hasattr(os, "sched_setaffinity")
    return [
        Slot(
            tuple(free[i * threads : (i + 1) * threads]) if bind else (),
            threads,
            devices[i % len(devices)] if devices else None,
            -(-jobs // len(devices)) if devices else 1,
        )
        for i in range(jobs)
    ]


def gpus() -> list[int]:
    """The NVIDIA GPUs that a run may use, by number; none with JAX_PLATFORMS=cpu."""
    if os.environ.get("JAX_PLATFORMS", "") == "cpu" or not shutil.which("nvidia-smi"):
        return []
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [int(number) for number in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if number.strip().isdigit()]
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    return list(range(sum(line.startswith("GPU ") for line in listed.stdout.splitlines())))


def status(workdir: Path, run: Run) -> str:
    """"done", "diverged", "crashed", or "" where it has not finished.

    Raises:
      UserError: it was finished with another configuration, by a version of this package with other defaults.
    """
    record = records.find(workdir, (run.cell, run.config.train.seed, run.config.data.fold))
    if record is None:
        return ""
    if changed := essential_changes(run.config, Config.recorded(record.config)):
        raise UserError(
            f"{workdir}: {run.cell}, {run.name}, was finished by another version, with other defaults of {', '.join(changed)}: "
            "take another --workdir."
        )
    return record.facts["status"]


def finished(workdir: Path, run: Run) -> Path:
    return workdir / "cells" / run.cell / run.name


def missing(workdir: Path, runs: Iterable[Run]) -> list[Run]:
    """What is still to be run; a crash is tried again, a divergence would only repeat itself."""
    return [run for run in runs if status(workdir, run) in LEFT]


def run_all(
    workdir: Path,
    runs: Iterable[Run],
    shares: list[Slot],
    on_end: Callable[[Run, str], Any],
    on_begin: Callable[[Run], Any] = lambda run: None,
) -> None:
    """Runs them on this machine, one on each slot at a time; `on_begin(run)` before, `on_end(run, status)` after each."""
    free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
    for share in shares:
        free.put(share)

    def work(run: Run) -> str:
        slot = free.get()
        try:
            on_begin(run)
            return execute(workdir, run, slot)
        finally:
            free.put(slot)

    pool = ThreadPoolExecutor(len(shares))
    try:
        futures = {pool.submit(work, run): run for run in runs}
        for future in as_completed(futures):
            on_end(futures[future], future.result())
    finally:
        # After an error or Ctrl-C nothing new starts; what runs ends with this process, see `cell.py`.
        pool.shutdown(wait=False, cancel_futures=True)


def execute(workdir: Path, run: Run, slot: Slot) -> str:
    """One run in a process of its own; returns its status. A crash leaves a row with the last line of its log."""
    folder, end = Path(run.config.train.workdir), finished(workdir, run)
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "cell.json"
    write_text(config, run.config.to_json())
    command = [sys.executable, "-m", "ica_unet_jax.sweeps.cell", str(config), str(end)]
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # closes with this process, and the child ends
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment(slot),
        )
        code = process.wait()
        process.stdin.close()
    if status(workdir, run) in ("done", "diverged"):
        return status(workdir, run)
    lines = [line for line in (folder / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    reason = f"killed by signal {-code}" if code < 0 else (lines[-1].strip() if lines else f"exit code {code}")
    steps = [line["step"] for line in read_metrics(folder)]
    cell.finish(run.config, end, "crashed", reason[:200], max(steps, default=0))
    return "crashed"
