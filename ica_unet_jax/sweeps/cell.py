"""One training of a sweep, in its own process: trains, judges, and leaves a small folder, whole or not at all.

Started by `runner.py` as `python -m ica_unet_jax.sweeps.cell CONFIG.json FINISHED_FOLDER`, or by `cost.py` with `--measure`. What is unfinished lies in the
configuration's workdir and is resumed; the finished folder holds figures alone, no weights and no pictures.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import statistics
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_BEGAN = time.perf_counter()


def main() -> None:
    if "CELL_CORES" in os.environ:
        # Before jax is imported: the size of its thread pool, hence the order of its sums, comes from here.
        os.sched_setaffinity(0, {int(core) for core in os.environ["CELL_CORES"].split(",")})
    from absl import logging

    from ica_unet_jax.config import Config
    from ica_unet_jax.runtime import memory

    logging.set_verbosity(logging.ERROR)
    memory.keep_freed()
    _die_with_the_parent()
    if sys.argv[1] == "--measure":
        from ica_unet_jax.sweeps import probe

        began = time.perf_counter()
        parts = probe.measure(Config.from_json(Path(sys.argv[2]).read_text(encoding="utf-8")))
        print(json.dumps(dataclasses.asdict(parts) | {"inside": time.perf_counter() - began}))
    else:
        run(Config.from_json(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))


def run(config, finished: Path) -> None:
    """Trains and judges `config` in its workdir; leaves `finished` with done.json, whatever the training came to."""
    from ica_unet_jax.errors import Diverged
    from ica_unet_jax.sweeps.frame_time import frame_ms
    from ica_unet_jax.sweeps.trials import Trial

    folder = Path(config.train.workdir)
    resumed = (folder / "config.json").is_file()
    try:
        judging = Trial("", config).run()
    except Diverged as error:
        finish(config, finished, "diverged", error.what, error.step)
        return
    spent = {"evaluation_seconds": judging, "frame_ms": frame_ms(folder)}
    # What a resumed run took before it was stopped is not known.
    finish(config, finished, "done", "", config.train.steps, spent | {"wall_seconds": None if resumed else time.perf_counter() - _BEGAN})


def finish(config, finished: Path, status: str, message: str, step: int, spent: Mapping[str, float | None] | None = None) -> None:
    """Leaves `finished` with what the tables need; drops the workdir, the weights among it."""
    folder = Path(config.train.workdir)
    keep_figures(config, folder, finished, status, message, step, spent)
    if status != "crashed":  # a crashed one is tried again, from its last checkpoint
        shutil.rmtree(folder, ignore_errors=True)


def keep_figures(
    config, folder: Path, finished: Path, status: str, message: str, step: int, spent: Mapping[str, float | None] | None = None
) -> None:
    """Copies what the tables need of a run folder to `finished`, which appears by one rename; `spent` goes into timing.json."""
    from ica_unet_jax.config import Config
    from ica_unet_jax.evaluation import where_lost
    from ica_unet_jax.metrics.cases import METRICS_VERSION
    from ica_unet_jax.runs.run_folder import MAY_CHANGE
    from ica_unet_jax.sweeps import records

    temporary = finished.with_name(f".writing-{finished.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    defaults = Config().flat()
    portable = config.replace(**{name: defaults[name] for name in MAY_CHANGE})  # folders of one machine tell nothing
    (temporary / "config.json").write_text(portable.to_json(), encoding="utf-8")
    for name in ("split.json", "provenance.json", "metrics.jsonl", "evaluation_val/cases.csv", "evaluation_val/ica.csv"):
        source = folder / name
        wanted = status == "done" or name in ("split.json", "provenance.json", "metrics.jsonl")
        if wanted and source.is_file():
            shutil.copy(source, temporary / source.name)
    if status == "done" and (faults := folder / "evaluation_val" / "faults.csv").is_file():
        records.write_lines(temporary / "places.csv", where_lost.by_place(where_lost.read_csv(faults)))
    _anonymous(temporary / "provenance.json")
    (temporary / "timing.json").write_text(_json(timing(folder, step) | dict(spent or {})), encoding="utf-8")
    judged = folder / "evaluation_val" / "summary.json"
    version = json.loads(judged.read_text(encoding="utf-8"))["metrics_version"] if judged.is_file() else METRICS_VERSION
    done = {"status": status, "message": message, "step": step, "metrics_version": version}
    (temporary / "done.json").write_text(_json(done), encoding="utf-8")
    if finished.exists():  # of a crash, which this run made good; the tables never meet half of it
        before = finished.with_name(f".before-{finished.name}")
        shutil.rmtree(before, ignore_errors=True)  # left by a kill at this place
        finished.rename(before)
        shutil.rmtree(before)
    temporary.rename(finished)


def timing(folder: Path, steps: int) -> dict[str, Any]:
    """Seconds a step (median of the logged spans), of compilation and of training; of what follows nothing is known here."""
    from ica_unet_jax.runs import log

    spans = [span for span in log.spans(log.read_metrics(folder)) if span]
    plain = [span.seconds_per_step for span in spans if not span.compiled]
    provenance = folder / "provenance.json"
    return {
        "seconds_per_step": statistics.median(plain) if plain else None,
        "compile_seconds": sum(span.seconds_per_step for span in spans if span.compiled),
        "training_seconds": sum(span.seconds for span in spans),
        "evaluation_seconds": None,
        "frame_ms": None,
        "wall_seconds": None,
        "steps": steps,
        "device": json.loads(provenance.read_text(encoding="utf-8"))["device"] if provenance.is_file() else "",
        "threads": int(os.environ.get("CELL_THREADS", 0)) or None,
    }


def _anonymous(path: Path) -> None:
    """Drops the command, which names folders of this machine; the sweep's own command stands in sweep.json."""
    if path.is_file():
        provenance = json.loads(path.read_text(encoding="utf-8"))
        provenance.pop("command", None)
        path.write_text(_json(provenance), encoding="utf-8")


def _json(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"


def _die_with_the_parent() -> None:
    """Ends this process when the other end of its standard input closes, however the runner ended, kill -9 included."""

    def watch() -> None:
        os.read(0, 1)  # not sys.stdin, whose lock a thread may not hold when the interpreter ends
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    main()
