"""Times, trains and judges the systems of the paper's tables, each in a run folder of its own; what is there is kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import jax

from ica_unet_jax.benchmarking import measuring
from ica_unet_jax.benchmarking.measuring import Row
from ica_unet_jax.config import Config
from ica_unet_jax.errors import Diverged, UserError
from ica_unet_jax.evaluation import judging
from ica_unet_jax.runs import run_folder
from ica_unet_jax.runtime.files import write_text
from ica_unet_jax.sweeps import paper_tables
from ica_unet_jax.sweeps.system_results import DIVERGED
from ica_unet_jax.sweeps.systems import SYSTEMS, System, network_name, widths
from ica_unet_jax.training import loop


def compare(
    reference: Config, *, only: Sequence[str] = (), split: str = "val", seconds: float = 3.0, timed: bool = True
) -> Path:
    """Times, trains and judges what is missing below `reference.train.workdir`, and writes the tables there.

    All are timed first, one right after the other, so that their ratios are of one machine in one state. The tables are
    rewritten after every system. One whose training diverges is a row that says so; one that does not fit the reference's
    grid is left out, and the tables say why.

    Args:
      reference: data, grid, steps and the settings of ICA-UNet; each system changes what is its own.
      only: systems whose name contains one of these; empty: all.
      split: patients that are judged.
      seconds: for each timing.
      timed: False leaves timings out.

    Returns:
      The folder with tables.md, table_1, table_1_ratios and table_2 as .csv and .tex, and, of what is timed and judged, tables.png.

    Raises:
      UserError: bad data, a word of `only` that fits no system, or a folder that holds a run of other settings.
    """
    folder = Path(reference.train.workdir)
    configs, left_out = fitting(reference)
    todo = []
    for system in chosen(only):
        if system.name in configs:
            run_folder.refuse_changes(configs[system.name])
            todo.append((system, configs[system.name], folder / system.name))
        else:
            print(left_out[system.title])
    unfinished = [(system, config, run) for system, config, run in todo if not is_finished(config, run, system, split)]
    for _, config, _ in unfinished[:1]:
        loop.load(config)  # bad data are refused before minutes of timing
    for _, config, run in todo if timed else ():
        time_system(config, run, seconds)
        paper_tables.write(folder, split, left_out)
        jax.clear_caches()  # the next system has functions of its own
    for system, config, run in unfinished:
        try:
            train_system(config, run, system, split)
        except Diverged as error:
            write_text(run / DIVERGED, f"diverged at step {error.step} ({error.what})\n")
        paper_tables.write(folder, split, left_out)
        jax.clear_caches()
    paper_tables.write(folder, split, left_out)  # also where nothing was left to do
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


def is_finished(config: Config, run: Path, system: System, split: str) -> bool:
    """Whether a system is trained to its last step and judged as the tables judge it, or diverged, as it would again."""
    path = run / f"evaluation_{split}" / "summary.json"
    summary = json.loads(path.read_text()) if path.is_file() else {}
    expected = dict(checkpoint_step=config.train.steps, mirror=system.cleaned, largest_component=system.cleaned)
    return (run / DIVERGED).is_file() or all(summary.get(name) == value for name, value in expected.items())


def train_system(config: Config, run: Path, system: System, split: str) -> None:
    """Trains to the last step and judges."""
    loop.train(config)
    cleaning = dict(largest_component=system.cleaned, mirror=system.cleaned)
    options = dict(out=run / f"evaluation_{split}", cines=0, pictures=False, skip_bad_cases=config.data.skip_bad_cases)
    judging.evaluate(run, split=split, **options, **cleaning)


def time_system(config: Config, run: Path, seconds: float) -> None:
    """Writes timing.json, the benchmark's result: the network untrained, at full width and at its own, on its own grid.

    What is there is kept if it is of the same networks.
    """
    path, model = run / "timing.json", config.model
    rows = [
        Row(network_name(run.name, width), config.replace(width_multiplier=width), model.crop)
        for width in widths(model.model, model.width_multiplier)
    ]
    timed = json.loads(path.read_text())["rows"] if path.is_file() else {}
    if any(timed.get(row.name, {}).get("model") != measuring.described_model(row) for row in rows):
        measuring.benchmark(rows, seconds=seconds, json_file=path)
