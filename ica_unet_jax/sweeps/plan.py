"""The plan of a sweep: the cells of its studies, and the trainings (cell x seed x fold) that fill them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ica_unet_jax.benchmarking import work
from ica_unet_jax.config import Config
from ica_unet_jax.data import splits
from ica_unet_jax.errors import UserError
from ica_unet_jax.runs.run_folder import MAY_CHANGE
from ica_unet_jax.runtime.paths import ROOT
from ica_unet_jax.sweeps import records
from ica_unet_jax.sweeps.study import Study, label

ONE_SPLIT = 3  # without folds a third of the patients validates


@dataclasses.dataclass(frozen=True)
class Run:
    """One training: a process and a folder of its own."""

    cell: str
    config: Config  # with its seed and fold; `workdir` is where it runs

    @property
    def name(self) -> str:
        return records.name(self.config.train.seed, self.config.data.fold)


@dataclasses.dataclass(frozen=True)
class Sweep:
    """`studies` round `base`; a cell that several studies share is one.

    Fold k is trained with the seed of `base` + k, so that no two folds share one. Further trainings of a fold have seeds that
    no fold has: + k + folds, + k + 2 folds and so on.
    """

    workdir: Path
    base: Config
    studies: Sequence[Study]
    folds: int  # 1: one split
    only_folds: Sequence[int] = ()  # of these, which are run; none: all
    seeds: int = 1  # trainings of each fold

    def __post_init__(self):
        if self.folds > 1 and self.base.data.split_file:
            raise UserError(f"--folds={self.folds} with --split_file: a file has one split; drop one of the two.")
        by = self.base.data.split_by
        if by == splits.NONE and not self.base.data.split_file:
            raise UserError(f"--split_by={by}: nobody validates, so nothing can be compared; leave it out.")
        if self.folds > 1 and by != splits.FOLDS:
            raise UserError(f"--split_by={by}: this is one split, and no {self.folds} folds; leave it out, or give --folds=1.")
        if unknown := sorted(set(self.only_folds) - set(range(self.folds))):
            known = f"folds are 0 to {self.folds - 1}" if self.folds > 1 else "the one split is 0"
            raise UserError(f"--only_folds={','.join(map(str, unknown))} with --folds={self.folds}: {known}.")

    @property
    def reference(self) -> Config:
        """The base, with what all runs of the sweep share."""
        data = dict(fold=0, folds=self.folds) if self.folds > 1 else dict(folds=ONE_SPLIT)
        return self.base.replace(seed=0, final_evaluation=False, **data)

    def blocks(self) -> list[tuple[int, int]]:
        """(seed, fold) of every training of a cell, all folds before the next seeds."""
        first, fold = self.base.train.seed, self.reference.data.fold
        numbers = [(k, k) for k in sorted(set(self.only_folds)) or range(self.folds)] if self.folds > 1 else [(0, fold)]
        return [(first + k + self.folds * further, fold) for further in range(self.seeds) for k, fold in numbers]

    def cells(self) -> dict[str, Config]:
        """{name of its folder: configuration} of every cell, references first."""
        configs = [study.configs(self.reference) for study in self.studies]
        ordered = [*(found[0] for found in configs), *(config for found in configs for config in found[1:])]
        return {cell_name(config, self.reference): config for config in ordered}

    def titles_of(self, study: Study) -> dict[str, str]:
        """{name of its folder: title} of every cell of a study."""
        return {cell_name(config, self.reference): title for title, config in study.titled(self.reference).items()}

    def titles(self) -> dict[str, str]:
        """The same of all studies; a cell of several has the title of the first."""
        return {cell: title for study in reversed(self.studies) for cell, title in self.titles_of(study).items()}

    def runs(self) -> Iterator[Run]:
        """All runs, block by block, so that early tables have whole columns."""
        cells = self.cells()
        for seed, fold in self.blocks():
            for cell, config in cells.items():
                run = Run(cell, config.replace(seed=seed, fold=fold))
                yield Run(cell, run.config.replace(workdir=str(self.workdir / "running" / cell / run.name)))

    def description(self) -> dict[str, Any]:
        """What the tables need beside the cells: `sweep.json`."""
        studies = [describe_study(study, self.reference, self.reference) for study in self.studies]
        runs = of_runs(self.blocks())
        return {"fold_count": self.folds} | runs | {"studies": [study | {"runs": runs["runs"]} for study in studies]}


def of_runs(blocks: Iterable[Sequence[int]]) -> dict[str, Any]:
    """The trainings of a cell as `sweep.json` names them: (seed, fold) each, and which seeds and folds there are."""
    runs = sorted({(seed, fold) for seed, fold in blocks})
    seeds, folds = (sorted({run[place] for run in runs}) for place in (0, 1))
    return {"seeds": seeds, "folds": folds, "runs": [list(run) for run in runs]}


def joined(old: dict[str, Any], new: dict[str, Any], workdir: Path) -> dict[str, Any]:
    """The description of what an earlier command ran in a folder and of what a new one runs there.

    A study of both has the new one's cells, and the runs of both where it has the same reference. What a compacted sweep keeps
    there of its runs stays.

    Raises:
      UserError: they divide the patients into different folds.
    """
    before = old.get("fold_count", len(old["folds"]))
    if before != new["fold_count"]:
        raise UserError(f"--workdir={workdir} holds a sweep of other folds (--folds={before}): choose another folder, or its folds.")
    everything = [[seed, fold] for seed in old["seeds"] for fold in old["folds"]]  # in files of earlier versions
    studies = {study["name"]: study | {"runs": study.get("runs", old.get("runs", everything))} for study in old["studies"]}
    for study in new["studies"]:
        known = studies.pop(study["name"], None)
        same = known is not None and known["reference"] == study["reference"]
        runs = [*study["runs"], *(known["runs"] if same else [])]
        studies[study["name"]] = study | {"runs": of_runs(runs)["runs"]}
    kept = {part: old[part] for part in records.KEPT if part in old}
    return new | of_runs(run for study in studies.values() for run in study["runs"]) | {"studies": list(studies.values())} | kept


def portable(argument: str) -> str:
    """An argument without the folders of this machine: of a path in this checkout the rest, of another its last name."""
    flag, equals, value = argument.rpartition("=")
    path = Path(value)
    if path.is_absolute():
        value = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name
    return flag + equals + value


def describe_study(study: Study, base: Config, reference: Config) -> dict[str, Any]:
    """A study as `sweep.json` has it, round `base`; cells are named by what differs from the sweep's `reference`.

    Raises:
      UserError: two cells have one title, or its pages would have the name of another file of a sweep.
    """
    if study.name in (*records.FILES, "timings", "index"):
        raise UserError(f"Study {study.name}: a sweep has a file of that name; give the study another one.")
    titled = study.titled(base)
    first = next(iter(titled.values()))
    cells = [
        {
            "cell": cell_name(config, reference),
            "title": title,
            "label": label(config, first),
            "parameters": work.parameters(config.model),
            "gflop": round(work.total(work.streamed(config.model)).flops / 1e9, 4),
        }
        for title, config in titled.items()
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
            kept["split"] = Path(config.data.split_file).read_text(encoding="utf-8")
        except OSError as error:
            raise UserError(f"--split_file={config.data.split_file} cannot be read ({error.strerror}); correct it.") from error
    digest = hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:10]
    readable = re.sub(r"[^\w=.-]+", "_", label(config, reference))[:80]
    return f"{readable}-{digest}"
