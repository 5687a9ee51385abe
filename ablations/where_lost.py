"""Where a network loses its Dice, on patients to choose on and on those it has learned from: for docs/results/where_lost.md.

  python -m ica_unet_jax.evaluate --workdir=RUN --split=val
  python -m ica_unet_jax.evaluate --workdir=RUN --split=val --nsd_mm=1
  python -m ica_unet_jax.evaluate --workdir=RUN --split=val --window=follow
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

GRID = "Dice of the truth itself, put on the model's grid and back, validation patients"
FOLLOW = "Dice, validation patients, with `--window=follow`"
SPLITS = {"val": "validation patients", "train": "patients that it learned from"}


def main() -> None:
    from ica_unet_jax.runtime import files

    given = flags.FLAGS
    files.check_place(given.json)
    files.write_json(given.json, of_runs([Path(run) for run in given.runs]))


def of_runs(runs: Sequence[Path]) -> dict[str, Any]:
    """The mean of what `of_run` says of each. Raises UserError where these are not trainings of one network on the same patients."""
    from ica_unet_jax.errors import UserError

    found = [of_run(run) for run in runs]
    for run, one in zip(runs, found, strict=True):
        for name in ("trained_at", "steps", "patients"):
            if one[name] != found[0][name]:
                raise UserError(f"--runs: {run} has {name} {one[name]}, {runs[0]} has {found[0][name]}: give runs that differ in their seed alone.")
    return mean(found) | {"runs": len(runs)}


def of_run(run: Path) -> dict[str, Any]:
    """What four evaluations of a run say. Raises UserError where one is missing."""
    from ica_unet_jax.errors import UserError
    from ica_unet_jax.evaluation import where_lost

    close, follow, *folders = (run / f"evaluation_{name}" for name in ("val_nsd_1mm", "val_follow", *SPLITS))
    summaries = {split: _summary(folder) for split, folder in zip(SPLITS, folders, strict=True)}
    whole = {f"Dice, {words}": summaries[split]["dice"] for split, words in SPLITS.items()}
    whole |= {
        FOLLOW: _summary(follow)["dice"],
        GRID: summaries["val"]["grid_dice"],
        "NSD at 2 mm, validation patients": summaries["val"]["nsd"],
        "NSD at 1 mm, validation patients": _summary(close)["nsd"],
    }
    told = [name for name, values in whole.items() if not values]
    if told:
        raise UserError(f"--runs: the evaluations of {run} lack {', '.join(told)}: a network that answers snippets has none of it.")
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
        raise UserError(f"--runs: {folder} is no evaluation ({error}): make the four that `python ablations/where_lost.py --help` names.") from error


def mean(found: Sequence[Any]) -> Any:
    """The mean of results of one form: of their numbers, None where one has none; what else they hold is the same in all."""
    first = found[0]
    if isinstance(first, dict):
        return {name: mean([one[name] for one in found]) for name in first}
    if isinstance(first, list):
        return [mean(parts) for parts in zip(*found, strict=True)]
    if isinstance(first, float):
        value = float(np.mean(found))
        return value if np.isfinite(value) else None
    return first


def whole_table(result: dict[str, Any]) -> str:
    rows = [[name, *(number(value, 3) for value in [*values.values(), np.mean(list(values.values()))])] for name, values in result["whole"]]
    return plain_table(["", *STRUCTURES, "mean"], rows, [False, True, True, True, True])


def answer(found: dict[str, Any]) -> str:
    """The sentences that follow from what `of_runs` found."""
    from ica_unet_jax.evaluation import where_lost

    whole, kinds = dict(found["whole"]), dict(found["val"]["kinds"])
    val, train, grid = (whole[name] for name in (*(f"Dice, {words}" for words in SPLITS.values()), GRID))
    missing = [1 - sum(values.values()) / len(values) for values in (val, train, grid)]
    gap = {name: train[name] - val[name] for name in val}
    most, least = max(gap, key=gap.__getitem__), min(gap, key=gap.__getitem__)
    lines = [
        f"**On new patients {missing[0]:.3f} of the mean Dice are missing, on those that it learned from {missing[1]:.3f}. An error-free mask on this grid would miss {missing[2]:.3f}.** "
        f"New patients cost the {most} most ({gap[most]:.3f}), the {least} least ({gap[least]:.3f})."
    ]
    for name in val:
        phase, place, dice = min(found["val"]["places"], key=lambda row: row[2][name])
        kind = max(kinds, key=lambda kind: kinds[kind][name])
        lines.append(f"The {name} is worst at {phase} in the slices of the {place} ({dice[name]:.3f}); to mend {where_lost.MENDED[kind]} would gain most ({kinds[kind][name]:+.3f}).")
    return " ".join(lines)


def by_window(found: dict[str, Any]) -> float:
    """What a window that follows the heart adds to the mean Dice of the same networks."""
    whole = dict(found["whole"])
    before, after = (whole[name] for name in (f"Dice, {SPLITS['val']}", FOLLOW))
    return sum(after.values()) / len(after) - sum(before.values()) / len(before)


def made(found: dict[str, Any]) -> str:
    """Of what its figures are."""
    patients = found["patients"]
    return (
        f"Means of {found['runs']} trainings with different seeds, {found['steps']} steps on the {patients['train']} patients of ACDC-100 outside the choosing fold, judged on the "
        f"{patients['val']} in it, at ED and ES (commit {found['trained_at'][:12]})."
    )


if __name__ == "__main__":
    flags.DEFINE_list("runs", None, "Run folders with these four evaluations.", required=True)
    flags.DEFINE_string("json", None, "File for the result.", required=True)
    launcher.run(main)
