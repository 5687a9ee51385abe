"""The ablations: `python ablations/run_all.py` trains what its studies ask for and writes their tables.

Without flags: the two main studies on the embedded phantom. The flags of `ica_unet_jax.train` set the reference cell.

  python ablations/run_all.py --flagfile=launch/ablations_acdc_mini.flags --data_dir=ACDC --workdir=runs/ablations_acdc
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # not this folder, whose modules would hide the standard library's

from absl import flags  # noqa: E402

from ica_unet_jax import launcher  # noqa: E402
from ica_unet_jax.config import Config, fields  # noqa: E402
from ica_unet_jax.errors import UserError  # noqa: E402
from ica_unet_jax.runs.provenance import commit, processor  # noqa: E402

# A preset is what a flag has where it is not given; "" is none.
PRESETS: dict[str, dict[str, Any]] = {
    "": {},
    "phantom": dict(
        phantom_patients=36, phantom_shape=(4, 96, 96), crop=(4, 64, 64), spacing=2.25, contracting_blocks=2, bases=32,
        stream_width=4, encoder_width=12, steps=400, learning_rate=4e-3, warmup_steps=40, ema_decay=0.98,
        dice_weight=0.5, rotation=60.0, shift=4.0, evaluate_every=200,
        folds=3,
    ),
    "smoke": dict(
        phantom_patients=6, phantom_shape=(2, 64, 64), crop=(2, 64, 64), contracting_blocks=2, bases=3, stream_width=2,
        projection_width=2, encoder_width=4, encoder_convs=1, decoder_width=4, steps=4, batch_size=1, evaluate_every=4,
        studies="supervision", folds=2,
    ),
}  # fmt: skip

_PRESET = flags.DEFINE_enum(
    "preset", None, list(PRESETS), "Values of the flags that are not given: phantom, the default without --data_dir, or smoke, to try out."
)
_STUDIES = flags.DEFINE_string("studies", "loss_terms,basis_dimension", "Which studies, separated by commas, or all.")
_FOLDS = flags.DEFINE_integer(
    "folds", 1, "Folds; fold k is trained with the seed --seed + k, and judged on patients that it never saw. 1: one split.", lower_bound=1
)
_ONLY_FOLDS = flags.DEFINE_list("only_folds", [], "Of these, which are run, as 0,1,2; all by default.")
_SEEDS = flags.DEFINE_integer("seeds", 1, "Trainings of each cell and fold; further ones have seeds that no fold has.", lower_bound=1)
_WORKDIR = flags.DEFINE_string("workdir", "runs/ablations", "Folder of the sweep, anywhere; the same command again goes on.")
_JOBS = flags.DEFINE_integer("jobs", 0, "Runs at a time; 0: one for each GPU, or for each core, or for each --threads cores.", lower_bound=0)
_THREADS = flags.DEFINE_integer(
    "threads", 0, "Cores of each run, part of what makes results repeat to the byte; 0: all cores, divided by --jobs.", lower_bound=0
)
_EXECUTOR = flags.DEFINE_enum("executor", "local", ["local", "slurm"], "This machine, or array jobs of a SLURM cluster.")
_SLURM = flags.DEFINE_list("slurm", [], "With --executor=slurm: submitit's parameters, as timeout_min=240,slurm_partition=gpu.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the plan with its minutes, by runs that have finished or by measuring, and run nothing.")
_MEASURE = flags.DEFINE_bool(
    "measure", True, "Before it begins, measure the networks of which no finished run tells how long they take; --nomeasure begins at once."
)
_TABLES_ONLY = flags.DEFINE_bool(
    "tables_only", False, "Write the tables from what is finished in --workdir, or without that in all of ablations/results, and run nothing."
)
_COMPACT = flags.DEFINE_bool(
    "compact", False, "Keep what is finished in --workdir, or without that in all of ablations/results, in a few CSV files instead of "
    "a folder for each run, write the tables, and run nothing."
)  # fmt: skip
_DELTA = flags.DEFINE_float("delta", 0.01, "Differences of Dice below this are as good as none, in the tables.", lower_bound=0.0)


def main() -> None:
    workdir = Path(_WORKDIR.value)
    if _TABLES_ONLY.value or _COMPACT.value:
        from ica_unet_jax.sweeps import records

        for folder in [workdir] if _WORKDIR.present else committed():
            if _COMPACT.value:
                records.compact(folder)
            write_tables(folder)
        return
    from ablations.studies import choose
    from ica_unet_jax.sweeps import cost, runner
    from ica_unet_jax.sweeps.plan import Sweep

    config, preset = reference()

    def chosen(flag: flags.FlagHolder) -> Any:
        return flag.value if flag.present else preset.get(flag.name, flag.value)

    only = launcher.integers("only_folds", _ONLY_FOLDS.value)
    sweep = Sweep(workdir, config, choose(chosen(_STUDIES)), chosen(_FOLDS), only, chosen(_SEEDS))
    runs = list(sweep.runs())
    left = runner.missing(workdir, runs)
    shares = [runner.Slot(threads=_THREADS.value or 1)] * max(1, _JOBS.value)
    if _EXECUTOR.value == "local":
        shares = runner.slots(_JOBS.value, _THREADS.value)
    estimate = cost.Estimate(workdir, sweep, shares)
    prepare(config, sweep)
    if _DRY_RUN.value:
        estimate.measure(left, say)
        print(cost.report(sweep, runs, left, estimate))
        return

    describe(workdir, sweep)
    failed = follow(workdir, runs, left, estimate)
    unmix(workdir, sweep)
    write_tables(workdir)
    if failed:
        print(f"{failed} of {len(runs)} runs failed; see {workdir / 'index.md'}", file=sys.stderr)
        sys.exit(1)


def say(text: str) -> None:
    """A line of what happens, with the time of day."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")  # at once: several threads have something to say
    sys.stderr.flush()


def committed() -> list[Path]:
    """The folders of the sweeps whose results came with this code."""
    return sorted(path.parent for path in (ROOT / "ablations" / "results").glob("*/sweep.json"))


def write_tables(workdir: Path) -> None:
    from ablations.studies import KNOWN
    from ica_unet_jax.sweeps import tables

    tables.write_all(workdir, KNOWN, _DELTA.value)
    print(workdir / "index.md")


def reference() -> tuple[Config, dict[str, Any]]:
    """The configuration of the reference cell, and the preset that it was made from."""
    given = {field.name for _, field in fields() if field.name in launcher.FLAGS and launcher.FLAGS[field.name].present}
    name = _PRESET.value if _PRESET.value is not None else ("" if given & {"data_dir", "crop", "phantom_patients"} else "phantom")
    preset = PRESETS[name]
    # --folds and --workdir are the sweep's here.
    flagged = launcher.config(without=("folds", "workdir"), several_networks=True)
    return flagged.replace(**{k: v for k, v in preset.items() if k in flagged.flat() and k not in given}), preset


def prepare(config: Config, sweep) -> None:
    """Data once, before several processes want them: the phantom cohort; a folder or split that does not do ends here."""
    from ica_unet_jax.data import cohort

    cases = cohort.open_cohort(config.data)
    for _, fold in sweep.blocks():
        cohort.choose_split(sweep.reference.replace(fold=fold).data, cases)


def describe(workdir: Path, sweep) -> None:
    """`sweep.json`: the studies with their cells and runs, for the tables; what earlier commands ran in this folder stays."""
    from ica_unet_jax.runtime.files import write_json
    from ica_unet_jax.sweeps.plan import joined, portable

    path = workdir / "sweep.json"
    new = sweep.description()
    if path.is_file():
        new = joined(json.loads(path.read_text(encoding="utf-8")), new, workdir)
    facts = {
        "command": shlex.join(["python", *map(portable, sys.orig_argv[1:])]),
        "commit": commit(),
        "hardware": {"cores": os.cpu_count(), "machine": processor()},
    }
    write_json(path, facts | new)


def follow(workdir: Path, runs: list, left: list, estimate) -> int:
    """Runs what is left, tells how far it is, and rewrites the tables after every run; returns how many have failed."""
    from ablations.studies import KNOWN
    from ica_unet_jax.sweeps import cost, runner, slurm, tables

    local, waiting = _EXECUTOR.value == "local", list(left)

    def told() -> str:
        estimate.look()
        seconds, unknown = estimate.left(waiting)
        time_left = f", about {cost.duration(seconds, unknown)}" if seconds else ""
        return f"{len(runs) - len(waiting)} of {len(runs)} runs done, {len(waiting)} left{time_left}"

    def on_begin(run) -> None:
        say(f"begins: {estimate.titles[run.cell]}, {run.name}")

    def on_end(run, status: str) -> None:
        waiting.remove(run)
        say(f"{status}: {estimate.titles[run.cell]}, {run.name}; {told()}")
        try:
            tables.write_all(workdir, KNOWN, _DELTA.value)
        except UserError as error:  # told again at the end; hours of training need not stop for it
            say(f"no tables: {error}")

    if local:
        if _MEASURE.value and any(run.config.train.steps >= cost.WORTH for run in left):
            estimate.measure(left, say)
        say(told())
        runner.run_all(workdir, left, estimate.shares, on_end, on_begin)
    else:
        say(told())
        slurm.run_all(workdir, left, on_end, jobs=_JOBS.value, threads=_THREADS.value or 1, parameters=slurm_parameters())
    return sum(runner.status(workdir, run) != "done" for run in runs)


def unmix(workdir: Path, sweep) -> None:
    """FastICA at every number of bases of the sweep, on the frames that the cells were judged on."""
    from ica_unet_jax.data import cohort, splits
    from ica_unet_jax.evaluation.decomposition import write_csv
    from ica_unet_jax.sweeps import fastica, records

    configs = {config.model.bases: config for config in sweep.cells().values() if config.model.has_bases}
    cases, known = cohort.open_cohort(sweep.base.data), records.peers(workdir)
    for m, config in configs.items():
        for fold in sorted({fold for _, fold in sweep.blocks()}):
            if (m, fold) in known:
                continue
            split = cohort.choose_split(config.replace(fold=fold).data, cases)
            try:
                rows, reason = fastica.quality(config, splits.select(split, cases, "val"))
            except UserError as error:
                print(f"no rows of FastICA: {error}", file=sys.stderr)
                return
            if rows:
                write_csv(workdir / "peers" / f"fastica_m{m}_fold{fold}.csv", rows)
            else:
                print(f"no rows of FastICA at m = {m}: {reason}", file=sys.stderr)


def slurm_parameters() -> dict[str, Any]:
    """--slurm as a dict, numbers as numbers."""
    pairs = [entry.partition("=") for entry in _SLURM.value]
    if any(not separator for _, separator, _ in pairs):
        raise UserError(f"--slurm={','.join(_SLURM.value)} must be name=value pairs, as timeout_min=240,slurm_partition=gpu.")
    return {name: int(value) if value.isdigit() else value for name, _, value in pairs}


if __name__ == "__main__":
    launcher.define({field.name for _, field in fields()} - {"workdir", "folds"})
    launcher.run(main)
