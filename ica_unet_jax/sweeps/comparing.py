"""Times, trains and judges the systems of the paper's tables, each in its own run folder; what is finished is kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from ica_unet_jax.benchmarking import measuring
from ica_unet_jax.benchmarking.rows import Row
from ica_unet_jax.benchmarking.systems import SYSTEMS, System, network_name, widths
from ica_unet_jax.config import Config
from ica_unet_jax.data import splits
from ica_unet_jax.errors import UserError
from ica_unet_jax.portable import runtimes
from ica_unet_jax.portable.runtimes import JAX
from ica_unet_jax.runtime.files import write_json
from ica_unet_jax.sweeps import paper_tables, system_results
from ica_unet_jax.sweeps.trials import LEFT, Trial, run_missing
from ica_unet_jax.training import loop


def compare(
    reference: Config, *, only: Sequence[str] = (), split: str = "val", seconds: float = 3.0, timed: bool = True, runtime: str = JAX
) -> Path:
    """Times, trains and judges what is missing below `reference.train.workdir`, and writes the tables there.

    All are timed first, in turn, so that their ratios are of one machine in one state. The tables are
    rewritten after every system. One whose training diverges is a row that says so; one that does not fit the reference's
    grid is left out, and the tables say why.

    Args:
      reference: data, grid, steps and the settings of ICA-UNet; each system changes what is its own.
      only: systems whose name contains one of these; empty: all.
      split: patients that are judged.
      seconds: for each timing.
      timed: False leaves timings out.
      runtime: one of `runtimes.RUNTIMES`, which the timings are of.

    Returns:
      The folder with tables.md, table_1, table_1_ratios and table_2 as .csv and .tex, and, of what is timed and judged, tables.png.

    Raises:
      UserError: bad data, a word of `only` that fits no system, or a folder that holds a run of other settings.
    """
    if reference.data.split_by == splits.NONE and not reference.data.split_file and split == "val":
        raise UserError(f"--split_by={splits.NONE}: nobody validates, so nothing can be compared; leave it out, or give --split=test.")
    folder = Path(reference.train.workdir)
    configs, left_out = fitting(reference)
    trials = []
    for system in chosen(only):
        if system.name in configs:
            trials.append(Trial(system.title, configs[system.name], split))
        else:
            print(left_out[system.title])
    unfinished = [trial for trial in trials if trial.status() in LEFT]
    for trial in unfinished[:1]:
        loop.load(trial.config)  # bad data are refused before minutes of timing
    if timed:
        time_systems({trial.folder: trial.config for trial in trials}, seconds, runtimes.choose(runtime))
        paper_tables.write(folder, split, left_out)
        jax.clear_caches()  # a training has functions of its own
    run_missing(unfinished, on_end=lambda trial: paper_tables.write(folder, split, left_out))
    paper_tables.write(folder, split, left_out)  # also where nothing was left to do
    return folder


def compare_folds(reference: Config, folds: Sequence[int], *, split: str = "val", timed: bool = True, **how: Any) -> Path:
    """`compare` of each fold, in WORKDIR/foldK with the seed --seed + K, and in WORKDIR the tables of all patients, each judged out of fold.

    All are timed once, with the first fold. `how` is as in `compare`.

    Raises:
      UserError: as `compare`; or a fold that is none; or patients that are not divided into folds, whom each fold would judge again.
    """
    data = reference.data
    for flag, given in (("split", split != "val" and split), ("split_file", data.split_file), ("split_by", data.split_by != splits.FOLDS and data.split_by)):
        if given:
            raise UserError(f"--only_folds with --{flag}={given}: these are the same patients for all folds; leave one of the two out.")
    folder, (_, left_out) = Path(reference.train.workdir), fitting(reference)
    places = {fold: str(folder / f"{system_results.FOLD}{fold}") for fold in folds}
    configs = [reference.replace(fold=fold, seed=reference.train.seed + fold, workdir=place) for fold, place in places.items()]
    for number, config in enumerate(configs):
        compare(config, split=split, timed=timed and not number, **how)
        paper_tables.write(folder, split, left_out)
    return folder


def fitting(reference: Config) -> tuple[dict[str, Config], dict[str, str]]:
    """{name: configuration} of the systems that fit the reference's grid, {title: a sentence} of those that do not."""
    configs, left_out = {}, {}
    for system in SYSTEMS:
        try:
            configs[system.name] = system.config(reference).replace(workdir=str(Path(reference.train.workdir) / system.name))
        except UserError as error:
            left_out[system.title] = f"{system.title} is left out: {error}"
    return configs, left_out


def chosen(only: Sequence[str]) -> list[System]:
    """The systems whose name contains one of `only`; all without any. Raises UserError where a word fits none."""
    for word in only:
        if not any(word in system.name for system in SYSTEMS):
            raise UserError(f"--only={word} fits no system: give parts of {', '.join(system.name for system in SYSTEMS)}.")
    return [system for system in SYSTEMS if not only or any(word in system.name for word in only)]


def time_systems(configs: dict[Path, Config], seconds: float, runtime: str) -> None:
    """Writes timing.json into each run folder, the benchmark's result: the network untrained, at full width and at its own, on its own grid.

    All in turn, or nothing where each folder's is of the same networks and this runtime; a network that it cannot run is timed in JAX.
    """
    rows = {
        run: [
            Row(network_name(run.name, width), config.replace(width_multiplier=width), config.model.crop, group="tables",
                runtime=runtime if config.model.portable else JAX)
            for width in widths(config.model.model, config.model.width_multiplier)
        ]
        for run, config in configs.items()
    }  # fmt: skip
    if all(_timed(run / "timing.json", row) for run, networks in rows.items() for row in networks):
        return
    result = measuring.benchmark([row for networks in rows.values() for row in networks], seconds=seconds)
    for run, networks in rows.items():
        write_json(run / "timing.json", result | {"rows": {row.name: result["rows"][row.name] for row in networks}})


def _timed(path: Path, row: Row) -> bool:
    known = json.loads(path.read_text(encoding="utf-8"))["rows"].get(row.name, {}) if path.is_file() else {}
    return (known.get("model"), known.get("runtime", JAX)) == (measuring.described_model(row), row.runtime)
