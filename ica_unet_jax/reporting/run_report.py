"""report.md: a run folder in one page, made from what lies in it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from ica_unet_jax.config import Config
from ica_unet_jax.reporting.markup import plain_table
from ica_unet_jax.runs import provenance, run_folder
from ica_unet_jax.runs.log import read_metrics
from ica_unet_jax.runtime.files import write_text


def write(run_dir: str | Path) -> Path:
    """Writes RUN/report.md: settings, patients, curves, validation, pictures, provenance. Returns its path.

    Raises UserError where the folder is no run.
    """
    folder = Path(run_dir)
    config, split = run_folder.read_config(folder), run_folder.read_split(folder)
    sections = [
        f"# {folder.resolve().name}\n\n{_progress(folder, config)}",
        f"## Settings\n\n{_settings(config)}",
        f"## Patients\n\n{_patients(folder, split)}",
        *_validation(folder),
        *_pictures(folder),
        f"## Provenance\n\n{_provenance(folder)}",
    ]
    write_text(folder / "report.md", "\n\n".join(sections) + "\n")
    return folder / "report.md"


def _progress(folder: Path, config: Config) -> str:
    lines = read_metrics(folder)
    text = f"{max((line['step'] for line in lines), default=0)} of {config.train.steps} steps."
    if scores := [line for line in lines if "dice_mean" in line]:
        text += f" Validation Dice at step {scores[-1]['step']}: {scores[-1]['dice_mean']:.3f}."
    return text


def _settings(config: Config) -> str:
    """What differs from the defaults."""
    defaults = Config().flat()
    rows = [(f"`--{name}`", _text(value), _text(defaults[name])) for name, value in config.diff(Config()).items()]
    return plain_table(("Setting", "here", "default"), rows) + "\n\nAll others are the defaults; `config.json` holds all."


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _patients(folder: Path, split: run_folder.Split) -> str:
    """The sizes of the parts, and who was left out."""
    parts = "; ".join(f"{len(names)} {part}" for part, names in split.items())
    path = folder / "left_out.json"
    if not path.is_file():
        return f"{parts} (`split.json`)."
    left_out = json.loads(path.read_text(encoding="utf-8"))
    listed = "\n".join(f"- {name}: {' '.join(problems)}" for name, problems in left_out.items())
    return f"{parts} (`split.json`). {len(left_out)} left out as bad:\n\n{listed}"


def _validation(folder: Path) -> list[str]:
    """The learning curves, and the evaluation of the validation patients below its own title."""
    found = []
    if (folder / "curves.png").is_file():
        found.append("## Curves\n\n![learning curves](curves.png)")
    page = folder / "evaluation_val" / "table.md"
    if page.is_file():
        _, _, below = page.read_text(encoding="utf-8").partition("\n")
        found.append(f"## Validation patients\n\n{below.strip()}")
    return found


def _pictures(folder: Path) -> list[str]:
    pictures = sorted((folder / "evaluation_val" / "pictures").glob("*.png")) or sorted(folder.glob("validation/*.png"))
    if not pictures:
        return []
    return ["## Pictures\n\n" + "\n\n".join(f"![{path.stem}]({path.relative_to(folder).as_posix()})" for path in pictures)]


def _provenance(folder: Path) -> str:
    """Command, commit, versions and machine; what happened afterwards."""
    known = provenance.read(folder)
    versions = ", ".join(f"{name} {version}" for name, version in known["versions"].items())
    text = (
        f"```\n{shlex.join(known['command'])}\n```\n\n"
        f"Commit {known['commit'] or 'unknown (installed as a wheel)'}; Python {known['python']}; {versions}; "
        f"{known['devices']} x {known['device']}, {known['cores']} cores, {known['machine']}."
    )
    log = folder / "training.log"
    return text + (f"\n\nLog:\n\n```\n{log.read_text(encoding='utf-8').strip()}\n```" if log.is_file() else "")
