"""Where a network loses its Dice, on patients to choose on and on those it has learned from: for docs/results/where_lost.md.

  python -m ica_unet_jax.evaluate --workdir=RUN --split=val
  python -m ica_unet_jax.evaluate --workdir=RUN --split=val --nsd_mm=1
  python -m ica_unet_jax.evaluate --workdir=RUN --split=train
  python ablations/where_lost.py --runs=RUN,RUN2 --json=ablations/results/where_lost/acdc_causal.json

Figures are means over the runs: trainings of one network with other seeds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # not this folder, whose modules would hide the standard library's

from absl import flags  # noqa: E402

from ica_unet_jax import launcher  # noqa: E402
from ica_unet_jax.labels import STRUCTURES  # noqa: E402
from ica_unet_jax.reporting.markup import number, plain_table  # noqa: E402

SPLITS = {"val": "validation patients", "train": "patients that it learned from"}


def main() -> None:
    from ica_unet_jax.runtime import files

    given = flags.FLAGS
    files.check_place(given.json)
    files.write_json(given.json, joined([of_run(Path(run)) for run in given.runs]) | {"runs": len(given.runs)})


def of_run(run: Path) -> dict[str, Any]:
    """What three evaluations of a run say. Raises UserError where one is missing."""
    from ica_unet_jax.evaluation import where_lost

    close, *folders = (run / f"evaluation_{name}" for name in ("val_nsd_1mm", *SPLITS))
    summaries = {split: _summary(folder) for split, folder in zip(SPLITS, folders, strict=True)}
    whole = {f"Dice, {words}": summaries[split]["dice"] for split, words in SPLITS.items()}
    whole |= {
        "Dice of the truth on the model's grid and back": summaries["val"]["grid_dice"],
        "NSD at 2 mm, validation patients": summaries["val"]["nsd"],
        "NSD at 1 mm, validation patients": _summary(close)["nsd"],
    }
    return {
        "trained_at": summaries["val"]["provenance"]["training"]["commit"],
        "steps": summaries["val"]["checkpoint_step"],
        "patients": {split: len(summary["patients"]) for split, summary in summaries.items()},
        "whole": [[name, {structure: values[structure] for structure in STRUCTURES}] for name, values in whole.items()],
        **{split: where_lost.figures(where_lost.read_csv(folder / "faults.csv")) for split, folder in zip(SPLITS, folders, strict=True)},
    }


def _summary(folder: Path) -> dict[str, Any]:
    from ica_unet_jax.errors import UserError

    try:
        return json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"--runs: {folder} is no evaluation ({error}): make the three that `python ablations/where_lost.py --help` names.") from error


def joined(found: Sequence[Any]) -> Any:
    """The mean of results of one form: of their numbers; what else they hold has to be the same."""
    first = found[0]
    if isinstance(first, dict):
        return {name: joined([one[name] for one in found]) for name in first}
    if isinstance(first, list):
        return [joined(parts) for parts in zip(*found, strict=True)]
    if isinstance(first, float):
        return float(np.mean(found))
    assert all(one == first for one in found), f"runs that differ in more than their seed: {found}"
    return first


def whole_table(result: dict[str, Any]) -> str:
    rows = [[name, *(number(value, 3) for value in [*values.values(), np.mean(list(values.values()))])] for name, values in result["whole"]]
    return plain_table(["", *STRUCTURES, "mean"], rows, [False, True, True, True, True])


if __name__ == "__main__":
    flags.DEFINE_list("runs", None, "Run folders with these three evaluations.", required=True)
    flags.DEFINE_string("json", None, "File for the result.", required=True)
    launcher.run(main)
