"""What a large cohort takes before the first step of a training: seconds and memory, for docs/large_cohorts.md.

  python ablations/large_cohort.py --patients=2000 --json=ablations/results/large_cohort/benchmark.json

It simulates so many small cines into a folder that is removed afterwards. Each figure is of a process of its own.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # not this folder, whose modules would hide the standard library's

from absl import flags  # noqa: E402

from ica_unet_jax import launcher  # noqa: E402
from ica_unet_jax.reporting.markup import plain_table  # noqa: E402

SHAPE, FRAMES = (4, 64, 64), 8
VALIDATING = 20
FEW = 10  # the smallest cohort of the table of memory is this part of the largest


def main() -> None:
    from ica_unet_jax.data.phantom import beating_heart
    from ica_unet_jax.runs.provenance import commit, processor
    from ica_unet_jax.runtime import files

    place, patients = flags.FLAGS.json, flags.FLAGS.patients
    files.check_place(place)
    made_by = {"commit": commit(), "machine": processor(), "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory(prefix="large_cohort_") as folder:
        cohort = Path(folder) / "cohort"
        beating_heart.write_cohort(cohort, patients, shape=SHAPE, frames=FRAMES)
        result = made_by | {"patients": patients, "shape": SHAPE, "frames": FRAMES} | measured(cohort, patients)
    files.write_json(place, result)
    print("\n\n".join(made(result) for made in TABLES.values()))


def measured(cohort: Path, patients: int) -> dict[str, Any]:
    """All figures of a cohort in the ACDC layout."""
    names = [f"patient{number:03d}" for number in range(1, patients + 1)]
    most = patients - VALIDATING
    checks = {str(jobs): seconds_of("check_data", f"--data_dir={cohort}", f"--jobs={jobs}") for jobs in (1, 2)}
    starts = [
        start | loaded(cohort, names, most, start["workers"], cohort.with_name(f"cache{start['workers']}"))
        for start in (dict(cache="empty", workers=1), dict(cache="empty", workers=2), dict(cache="full", workers=1))
    ]
    memory = [loaded(cohort, names, count, 1, cohort.with_name("cache1")) for count in (most // FEW, most // 2, most)]
    split, run = cohort.with_name("split.json"), cohort.with_name("run")  # the split of all, which `loaded` wrote last
    of_all = [f"--{name}={value}" for name, value in settings(cohort, split, cohort.with_name("cache1"), 1).items()]
    step = seconds_of("train", *of_all, f"--workdir={run}", "--steps=1", "--nofinal_evaluation")
    cache = sum(path.stat().st_size for path in cohort.with_name("cache1").rglob("*") if path.is_file())
    return {"check_seconds": checks, "starts": starts, "first_step_seconds": step, "memory": memory, "cache_gb": cache / 1e9}


def seconds_of(command: str, *arguments: str) -> float:
    """From the start of a command to its end."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", f"ica_unet_jax.{command}", *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def loaded(cohort: Path, names: Sequence[str], count: int, workers: int, cache: Path) -> dict[str, float]:
    """Seconds until `count` patients who are learned from are there, and what the process holds then, in a process of its own."""
    split = cohort.with_name("split.json")
    split.write_text(json.dumps({"train": names[:count], "val": names[-VALIDATING:]}), encoding="utf-8")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_load, str(cohort), str(split), workers, str(cache)).result()


def settings(cohort: str | Path, split: str | Path, cache: str | Path, workers: int) -> dict[str, Any]:
    """Of the training whose start is measured."""
    return dict(model="unet2d", crop="4,64,64", data_dir=cohort, split_file=split, cache_dir=cache, workers=workers)


def _load(cohort: str, split: str, workers: int, cache: str) -> dict[str, float]:
    from ica_unet_jax.config import Config
    from ica_unet_jax.training import loading

    config = Config.make(**settings(cohort, split, cache, workers) | dict(crop=(4, 64, 64)))
    before, began = _held(), time.perf_counter()
    samples, _, chosen, _ = loading.load(config)
    seconds, after = time.perf_counter() - began, _held()
    assert samples
    return {"patients": len(chosen["train"]), "seconds": seconds, "own_mb": after["RssAnon"] - before["RssAnon"], "mapped_mb": after["RssFile"] - before["RssFile"]}


def _held() -> dict[str, float]:
    """What this process holds of the machine's memory, of its own and of files that it maps, in MB."""
    lines = (line.split() for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines())
    return {name.rstrip(":"): int(value) / 1000 for name, value, *_ in (line for line in lines if line[0] in ("RssAnon:", "RssFile:"))}


def check_table(result: dict[str, Any]) -> str:
    rows = [[f"`--jobs={jobs}`", f"{seconds:.0f}"] for jobs, seconds in result["check_seconds"].items()]
    return plain_table([f"{result['patients']:,} cines", "seconds"], rows, [False, True])


def start_table(result: dict[str, Any]) -> str:
    rows = [[f"{'nothing' if start['cache'] == 'empty' else 'all'} in the cache, `--workers={start['workers']}`", f"{start['seconds']:.0f}"] for start in result["starts"]]
    rows.append(["all in the cache: from the start of `train --steps=1` to its end, with the compilation and one validation", f"{result['first_step_seconds']:.0f}"])
    return plain_table([f"{result['starts'][0]['patients']:,} patients to learn from, {VALIDATING} to validate", "seconds until all are there"], rows, [False, True])


def memory_table(result: dict[str, Any]) -> str:
    rows = [[f"{row['patients']:,}", f"{row['own_mb']:.0f}", f"{row['mapped_mb']:.0f}"] for row in result["memory"]]
    return plain_table(["patients to learn from", "memory of its own (MB)", "mapped files in memory (MB)"], rows, [True, True, True])


def extrapolated_table(result: dict[str, Any]) -> str:
    times, empty, full = 50_000 / result["patients"], result["starts"][0], result["starts"][-1]
    minutes = {"`check_data --jobs=1`": result["check_seconds"]["1"], "first start, one process": empty["seconds"], "each later start, one process": full["seconds"]}
    rows = [[name, f"{seconds:.0f} s", f"{times * seconds / 60:.0f} min"] for name, seconds in minutes.items()]
    rows.append(["cache", f"{result['cache_gb']:.2f} GB", f"{times * result['cache_gb']:.0f} GB"])
    return plain_table(["", f"{result['patients']:,} measured", f"50,000, by {times:g} times as much"], rows, [False, True, True])


TABLES = {"check": check_table, "start": start_table, "memory": memory_table, "extrapolated": extrapolated_table}

if __name__ == "__main__":
    flags.DEFINE_integer("patients", 2000, "So many are simulated.", lower_bound=10 * VALIDATING)
    flags.DEFINE_string("json", None, "File for the result.", required=True)
    launcher.run(main)
