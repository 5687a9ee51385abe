"""Cross-validation: a run folder for each fold, and the scores of all patients, each judged by a network that never saw it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ica_unet_jax.config import Config
from ica_unet_jax.data import splits
from ica_unet_jax.errors import Diverged, UserError
from ica_unet_jax.evaluation import pages
from ica_unet_jax.labels import STRUCTURES
from ica_unet_jax.metrics import cases
from ica_unet_jax.reporting.markup import number, plain_table
from ica_unet_jax.runs import status
from ica_unet_jax.runtime.files import write_json, write_text
from ica_unet_jax.sweeps.trials import Trial, run_missing


def run(config: Config, only_fold: int | None = None) -> list[int]:
    """Runs what is missing of all folds, or of one, in WORKDIR/fold0, WORKDIR/fold1, ...; returns the folds still missing.

    When none is missing, `pool` writes the result. A fold that diverges does not keep the others from running, and is not
    trained again.

    Raises:
      UserError: as `experiment.run` does; a split file, of which there are no folds; a fold that does not exist.
      Diverged: at the end, where a fold has, now or before.
    """
    for flag, given in (("--split_file", config.data.split_file), (f"--split_by={config.data.split_by}", config.data.split_by != splits.FOLDS)):
        if given:
            raise UserError(f"{flag} is one split and no folds: leave it out, or use ica_unet_jax.train.")
    count = config.data.folds
    if only_fold is not None and not 0 <= only_fold < count:
        raise UserError(f"--only_fold={only_fold} does not exist: folds are 0 to {count - 1} (--folds={count}).")
    folds = [Trial(f"fold {fold}", of_fold(config, fold), reported=True) for fold in range(count)]
    chosen = folds if only_fold is None else [folds[only_fold]]
    run_missing(
        chosen,
        on_begin=lambda trial: print(f"{trial.title} of {count} ({trial.folder})", file=sys.stderr),
        on_end=lambda trial: print(f"{trial.title}: {trial.status()}", file=sys.stderr),
    )
    for trial in chosen:
        if trial.status() == status.DIVERGED:
            told = status.read(trial.folder)
            raise Diverged(told["step"], told["message"], f" in {trial.folder}: remove it to train that fold again.")
    missing = [fold for fold, trial in enumerate(folds) if trial.status() != status.DONE]
    if not missing:
        pool(config)
    return missing


def of_fold(config: Config, fold: int) -> Config:
    """The configuration of a fold's run: an ordinary one."""
    workdir = Path(config.train.workdir) / f"fold{fold}"
    teacher = config.train.teacher and str(Path(config.train.teacher) / workdir.name)  # a cross-validation as well
    return config.replace(fold=fold, workdir=str(workdir), teacher=teacher, final_evaluation=True)


def pool(config: Config) -> None:
    """Writes cases.csv, table.md and summary.json of all patients, each judged by the fold that never saw them.

    Raises:
      UserError: a patient stands in two folds, or folds were judged by different versions of the metrics.
    """
    workdir = Path(config.train.workdir)
    folders = [workdir / f"fold{fold}" for fold in range(config.data.folds)]
    parts = [cases.read_cases_csv(folder / "evaluation_val" / "cases.csv") for folder in folders]
    summaries = [json.loads((folder / "evaluation_val" / "summary.json").read_text(encoding="utf-8")) for folder in folders]
    if len({summary["metrics_version"] for summary in summaries}) > 1:
        raise UserError(f"{workdir}: the folds were judged by different versions: delete their evaluation_val folders.")
    names = [name for part in parts for name in {row["patient"] for row in part}]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{workdir}: {twice[0]} was judged in two folds: the data have changed; choose another --workdir.")
    rows = sorted((row for part in parts for row in part), key=lambda row: (row["patient"], row["frame"]))
    left_out: dict[str, Any] = {}
    for folder in folders:
        path = folder / "left_out.json"
        left_out |= json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    about = {"folds": len(folders), "metrics_version": summaries[0]["metrics_version"], "left_out": left_out}
    cases.write_cases_csv(workdir / "cases.csv", rows)
    write_text(workdir / "table.md", page(workdir.resolve().name, rows, parts, sorted(left_out)))
    write_json(workdir / "summary.json", about | cases.summarize(rows))


def page(name: str, rows: list[cases.Row], parts: list[list[cases.Row]], left_out: list[str]) -> str:
    """The Markdown page: all patients by group and phase, and each fold."""
    total = cases.summarize(rows)
    lines = [
        f"# {name}: {total['n_patients']} patients out of fold, {total['n_cases']} frames, {len(parts)} folds",
        "",
        "Each patient was judged by the network of the fold that never saw it, at its last checkpoint. Mean ± SD over "
        f"patients. Labelled voxels outside the window, counted as missed: {total['labelled_voxels_outside']} of "
        f"{total['labelled_voxels']}.",
        *([f"\n**Note:** bad cases were left out: {', '.join(left_out)}."] if left_out else []),
        "",
        pages.cases_table(rows),
    ]
    columns = (*STRUCTURES, "mean")
    folds = [(str(fold), cases.summarize(part)) for fold, part in enumerate(parts)] + [("all", total)]
    table = [
        (fold, summary["n_patients"], *(_plus_minus(summary["dice"][key], summary["dice_sd"][key]) for key in columns))
        for fold, summary in folds
    ]
    lines.append(plain_table(("Fold", "n", *(f"Dice {key}" for key in columns)), table))
    return "\n".join(lines) + "\n"


def _plus_minus(mean: float | None, sd: float | None) -> str:
    return f"{number(mean, 3)} ± {number(sd, 3)}"
