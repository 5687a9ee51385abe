"""A run folder explains itself: configuration, split, versions, commit, command, metrics."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax

import ica_unet_jax
from ica_unet_jax.config import Config
from ica_unet_jax.errors import UserError
from ica_unet_jax.files import write_text

PACKAGES = ("ica-unet-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy", "nibabel")
# Where a run lies and how often it looks up change nothing of what it computes.
MAY_CHANGE = {"workdir", "data_dir", "cache_dir", "phantom_dir", "log_every", "split_file", "init_from", "final_evaluation", "chance_validations"}


def essential_changes(config: Config, before: Config) -> dict[str, Any]:
    """{knob: value in `config`} of all that differs and may not."""
    return {name: value for name, value in config.diff(before).items() if name not in MAY_CHANGE}


def open_run(config: Config, split: dict[str, list[str]]) -> Path:
    """The folder `config.train.workdir`, made if need be, with `config.json`, `split.json` and `provenance.json`.

    Raises:
      UserError: the folder holds a run of another configuration or split.
    """
    folder = Path(config.train.workdir)
    path = folder / "config.json"
    if path.is_file():
        before = Config.from_json(path.read_text())
        changed = essential_changes(config, before)
        if json.loads((folder / "split.json").read_text()) != split:
            changed["split"] = "other patients"
        if changed:
            was = before.flat()
            difference = ", ".join(f"{k} {was.get(k, 'as in split.json')} -> {v}" for k, v in changed.items())
            raise UserError(f"--workdir={folder} holds a run with other settings ({difference}): choose another --workdir, or the settings of before.")
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "split.json", json.dumps(split, indent=2) + "\n")
    write_text(folder / "provenance.json", json.dumps(provenance(), indent=2) + "\n")
    write_text(path, config.to_json())
    return folder


def provenance() -> dict[str, Any]:
    """Versions, commit, device and command of this process."""
    installed = {d.metadata["Name"] for d in importlib.metadata.distributions()}
    return {
        "command": ["python", *sys.orig_argv[1:]],  # as it was typed; where the interpreter lies says nothing
        "commit": commit(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES if name in installed},
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
    }


def commit() -> str:
    """The commit of the checkout that runs, "-dirty" behind it with local changes; "" when installed as a wheel."""
    root = Path(ica_unet_jax.__file__).parent.parent
    if not (root / ".git").exists():
        return ""
    try:
        output = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True
        )
    except FileNotFoundError:  # no git on this machine
        return ""
    return output.stdout.strip()


class Metrics:
    """`metrics.jsonl`, one JSON object a line. Lines beyond the step that a run resumes from are dropped."""

    def __init__(self, folder: Path, first: int):
        self.path = folder / "metrics.jsonl"
        kept = [line for line in read_metrics(folder) if line["step"] <= first]
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))

    def write(self, **values: Any) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(values) + "\n")


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl; a last line cut off by a kill is left out."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
