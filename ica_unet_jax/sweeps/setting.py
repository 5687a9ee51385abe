"""What a table is about, in one line from the reference's configuration: data, grid, network, training, loss."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ica_unet_jax.config import Config, LossConfig, fields, unread
from ica_unet_jax.reporting.markup import NONE, counted
from ica_unet_jax.runs.run_folder import MAY_CHANGE
from ica_unet_jax.runtime import launch_files
from ica_unet_jax.runtime.paths import ROOT
from ica_unet_jax.sweeps.titles import text

LAUNCH = ROOT / "launch" / "acdc.flags"
_TERMS = {"sparsity_weight": "sparsity", "independence_weight": "independence", "reconstruction_weight": "reconstruction"}


def recorded(values: Mapping[str, Any]) -> Config:
    """A run's configuration, whatever version wrote it: what that lacked is as it was then, what this one lacks is left out."""
    names = {field.name for _, field in fields()}
    return Config.recorded({name: value for name, value in values.items() if name in names})


def turned(config: Config, reference: Config) -> dict[str, Any]:
    """The knobs in which a cell differs from its reference, whatever its seed, its fold and its folders."""
    return {knob: value for knob, value in config.diff(reference).items() if knob not in {*MAY_CHANGE, "seed", "fold"}}


def noun(config: Config | None) -> str:
    """What a validation case is called."""
    return "simulated heart" if config and config.data.phantom_patients else "patient"


def opening(config: Config | None, command: str, patients: int) -> str:
    """The line; `config` is the reference's, None while there is none, `command` the sweep's, which names the data."""
    cases = counted(patients, noun(config)) if patients else f"no {noun(config)} yet"
    if config is None:
        return f"Data: {cases}."
    simulated = config.data.phantom_patients
    data = f"{cases} of a phantom cohort of {simulated}" if simulated else ", ".join(filter(None, [_folder(command), cases]))
    model, train = config.model, config.train
    where = ", round the heart" if config.data.train_window == "heart" else ""
    parts = [f"grid {'x'.join(map(str, model.crop))} at {config.data.spacing:g} mm{where}"]
    if model.model == "ica_unet":
        sizes = dict(n=model.contracting_blocks, m=model.bases, u=model.projection_width, p=model.stream_width)
        parts.append(", ".join(f"{symbol} = {value}" for symbol, value in sizes.items()))
    else:
        parts.append(model.model)
    parts += [f"{train.steps} steps of {counted(train.batch_size, 'frame')}", f"loss: {loss(config.loss, model.has_bases)}"]
    return f"Data: {data}. Reference: {'; '.join(parts)}{_unlike(config)}."


def loss(config: LossConfig, has_bases: bool = True) -> str:
    """The loss as a sum."""
    terms = ["cross-entropy"]
    if config.dice_weight:
        terms.append(f"{config.dice_weight:g} soft Dice")
    ica = [f"{'' if weight == 1 else f'{weight:g} '}{_term(config, name)}" for name in _TERMS if (weight := getattr(config, name))]
    if config.ica_weight and ica and has_bases:
        terms.append(f"{config.ica_weight:g} ({' + '.join(ica)})")
    if config.distillation_weight:
        terms.append(f"{config.distillation_weight:g} cross-entropy to a teacher")
    return " + ".join(terms)


def _term(config: LossConfig, name: str) -> str:
    return "negentropy" if name == "independence_weight" and config.independence == "negentropy" else _TERMS[name]


def _unlike(config: Config) -> str:
    """In which settings of network and loss the reference differs from the launch file for ACDC, where that is there."""
    idle = {"crop"} | unread(config.flat())
    if not LAUNCH.is_file():
        return ""
    theirs = Config.make(**launch_files.read(LAUNCH)).flat()
    parts = {field.name: part for part, field in fields()}
    changes = [
        f"{knob}={text(value)} (there {text(theirs[knob])})"
        for knob, value in config.flat().items()
        if parts[knob] in ("model", "loss") and knob not in idle and value != theirs[knob]
    ]
    return f"; unlike launch/{LAUNCH.name}: {', '.join(changes)}" if changes else f"; network and loss of launch/{LAUNCH.name}"


def _folder(command: str) -> str:
    """The name of the data's folder, where the command has it."""
    words = shlex.split(command)
    given = [word.partition("=")[2] for word in words if word.startswith("--data_dir=")]
    return Path(given[-1]).name if given else ""


def commits(counts: Mapping[str, int]) -> str:
    """The commits of a table's runs, in words."""
    dirty = " (with changes that were not committed)"
    marked = (f"{commit or 'unknown'}{dirty * commit.endswith('-dirty')}: {counted(n, 'run')}" for commit, n in sorted(counts.items()))
    return f"Commits: {', '.join(marked) or NONE}."
