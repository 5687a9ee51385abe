"""Whether a run is finished, failed or unfinished: the one place that knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ica_unet_jax.config import Config
from ica_unet_jax.runs import run_folder
from ica_unet_jax.runtime.files import read_object, write_json

DONE, DIVERGED, CRASHED, OPEN = "done", "diverged", "crashed", ""
_NOTE = "done.json"
_NOTE_BEFORE = "diverged.txt"  # a sentence, in run folders of paper tables made by older versions


def of(config: Config, folder: Path | None = None, split: str = "val", **judged_by: Any) -> str:
    """One of DONE, trained to the last step and judged there, DIVERGED, CRASHED, and OPEN, where there is something left to do.

    Args:
      config: of the run.
      folder: where it lies, by default `config.train.workdir`.
      split: patients that must have been judged.
      judged_by: what must stand in the summary of that evaluation besides, as `mirror=True`.

    Raises:
      UserError: the folder holds a run of other settings.
    """
    folder = folder or Path(config.train.workdir)
    if not run_folder.refuse_changes(config, folder):
        return OPEN
    if told := read(folder):
        return told["status"]
    return DONE if judged(folder, config.train.steps, split, **judged_by) else OPEN


def judged(folder: Path, step: int, split: str = "val", **judged_by: Any) -> bool:
    """Whether the state of that step has been judged, as the last one of its training, on those patients and in that way."""
    path = folder / f"evaluation_{split}" / "summary.json"
    summary = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    expected = {"checkpoint": "latest", "checkpoint_step": step} | judged_by
    return all(summary.get(name) == value for name, value in expected.items())


def note(folder: Path, status: str, message: str, step: int, **more: Any) -> None:
    """Writes down how a run ended at that step, where it was not judged or its evaluation is not kept."""
    write_json(folder / _NOTE, {"status": status, "message": message, "step": step} | more)


def read(folder: Path) -> dict[str, Any]:
    """What was noted: status, message, step and what else was said; {} where nothing was. Raises UserError where it cannot be read."""
    if (folder / _NOTE).is_file():
        return read_object(folder / _NOTE, "remove it, and the run is judged anew")
    if (folder / _NOTE_BEFORE).is_file():
        return {"status": DIVERGED, "message": (folder / _NOTE_BEFORE).read_text(encoding="utf-8").strip()}
    return {}
