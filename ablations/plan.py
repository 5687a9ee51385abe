"""A sweep on paper: which cells its studies ask for, and the runs, cell x seed x fold, that fill them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ablations.studies import Study, label
from ica_unet_jax import flops
from ica_unet_jax.config import Config
from ica_unet_jax.errors import UserError
from ica_unet_jax.run_folder import MAY_CHANGE

ONE_SPLIT = 3  # without folds a third of the patients validates


@dataclasses.dataclass(frozen=True)
class Run:
    """One training: a process and a folder of its own."""

    cell: str
    config: Config  # with its seed and fold; `workdir` is where it runs

    @property
    def name(self) -> str:
        return f"seed{self.config.train.seed}_fold{self.config.data.fold}"


@dataclasses.dataclass(frozen=True)
class Sweep:
    """`studies` round `base`, with `seeds` and `folds` each; a cell that several studies share is one."""

    workdir: Path
    base: Config
    studies: Sequence[Study]
    seeds: Sequence[int]
    folds: int  # 1: one split

    def __post_init__(self):
        if self.folds > 1 and self.base.data.split_file:
            raise UserError(f"--folds={self.folds} with --split_file: a file has one split; drop one of the two.")

    @property
    def reference(self) -> Config:
        """The base, with what all runs of the sweep share."""
        data = dict(fold=0, folds=self.folds) if self.folds > 1 else dict(folds=ONE_SPLIT)
        return self.base.replace(seed=0, final_evaluation=False, **data)

    def cells(self) -> dict[str, Config]:
        """{name of its folder: configuration} of every cell, references first."""
        configs = [study.configs(self.reference) for study in self.studies]
        ordered = [*(found[0] for found in configs), *(config for found in configs for config in found[1:])]
        return {cell_name(config, self.reference): config for config in ordered}

    def runs(self) -> Iterator[Run]:
        """All runs, seed by seed and fold by fold, so that early tables have whole columns."""
        cells = self.cells()
        for seed in self.seeds:
            for fold in range(self.folds) if self.folds > 1 else [self.reference.data.fold]:
                for cell, config in cells.items():
                    run = Run(cell, config.replace(seed=seed, fold=fold))
                    yield Run(cell, run.config.replace(workdir=str(self.workdir / "running" / cell / run.name)))

    def description(self) -> dict[str, Any]:
        """What the tables need beside the cells: `sweep.json`."""
        return {
            "seeds": list(self.seeds),
            "folds": list(range(self.folds)) if self.folds > 1 else [self.reference.data.fold],
            "studies": [describe_study(study, self.reference, self.reference) for study in self.studies],
        }


def describe_study(study: Study, base: Config, reference: Config) -> dict[str, Any]:
    """A study as `sweep.json` has it, round `base`; cells are named by what differs from the sweep's `reference`."""
    configs = study.configs(base)
    cells = [
        {
            "cell": cell_name(config, reference),
            "label": label(config, configs[0]),
            "parameters": flops.parameters(config.model),
            "gflop": round(flops.total(flops.streamed(config.model)).flops / 1e9, 4),
        }
        for config in configs
    ]
    return {
        "name": study.name,
        "question": study.question,
        "section": study.section,
        "reference": cells[0]["cell"],
        "cells": cells,
    }


def cell_name(config: Config, reference: Config) -> str:
    """A folder's name: what is changed, to read, and a hash of all knobs that are not at their defaults, to be sure.

    A knob that a later version adds leaves the names as they are, and a sweep goes on; a default that it changes is
    found out by `runner.status`.
    """
    same = reference.flat()
    config = config.replace(**{name: same[name] for name in {*MAY_CHANGE, "seed", "fold"} - {"split_file"}})
    kept = {k: v for k, v in config.diff(Config()).items() if k not in {*MAY_CHANGE, "seed", "fold"}}
    if config.data.split_file:
        try:
            kept["split"] = Path(config.data.split_file).read_text()
        except OSError as error:
            raise UserError(f"--split_file={config.data.split_file} cannot be read ({error.strerror}); correct it.") from error
    digest = hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:10]
    readable = re.sub(r"[^\w=.-]+", "_", label(config, reference))[:80]
    return f"{readable}-{digest}"
