"""A run folder explains itself: configuration, split, versions, commit, command, metrics."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import importlib.metadata
import json
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

import ica_unet_jax
from ica_unet_jax.config import Config
from ica_unet_jax.errors import UserError
from ica_unet_jax.runs.tensorboard import Events
from ica_unet_jax.runtime import processes
from ica_unet_jax.runtime.compilation import threads
from ica_unet_jax.runtime.files import append_line, write_json, write_text, writing

PACKAGES = ("ica-unet-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy", "nibabel")
# Where a run lies and what it shows of itself change nothing of what it computes.
MAY_CHANGE = {
    "workdir", "data_dir", "cache_dir", "phantom_dir", "log_every", "split_file", "init_from", "final_evaluation",
    "chance_validations", "tensorboard", "skip_bad_cases", "devices", "teacher",
}  # fmt: skip
Split = dict[str, list[str]]


def essential_changes(config: Config, before: Config) -> dict[str, Any]:
    """{knob: value in `config`} of all that differs and may not."""
    return {name: value for name, value in config.diff(before).items() if name not in MAY_CHANGE}


def open_run(config: Config, split: Split, left_out: Mapping[str, Sequence[str]] | None = None) -> Path:
    """The folder `config.train.workdir` with `config.json`, `split.json` and `provenance.json`; the first process makes them.

    `left_out`, what is wrong with the cases that were left out, goes into `left_out.json` where there are any.

    Raises:
      UserError: the folder holds a run of another configuration or split.
    """
    folder = Path(config.train.workdir)
    if refuse_changes(config):
        if read_split(folder) != split:
            raise UserError(_refusal(folder, "split as in split.json -> other patients"))
        return folder
    if not processes.is_first():
        return folder
    write_json(folder / "split.json", split)
    write_json(folder / "provenance.json", provenance())
    if left_out:
        write_json(folder / "left_out.json", left_out)
    write_text(folder / "config.json", config.to_json())
    return folder


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keeps a second training out of a run folder while the block runs; the end of the process frees it too.

    Raises:
      UserError: another one has it.
    """
    if not processes.is_first():
        yield
        return
    with writing(folder):
        file = (folder / "lock").open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"--workdir={folder} is in use by another training: let it end, or choose another --workdir.") from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):  # file systems that have no locks
                raise
        yield


def refuse_changes(config: Config) -> bool:
    """Whether `config.train.workdir` holds a run; UserError, with the difference, where it is one of other settings."""
    folder = Path(config.train.workdir)
    if not (folder / "config.json").is_file():
        return False
    before = read_config(folder)
    if changed := essential_changes(config, before):
        was = before.flat()
        raise UserError(_refusal(folder, ", ".join(f"{k} {was[k]} -> {v}" for k, v in changed.items())))
    return True


def _refusal(folder: Path, difference: str) -> str:
    return (
        f"--workdir={folder} holds a run with other settings ({difference}): choose another --workdir, or the settings of "
        "before."
    )


def read_config(run_dir: str | Path) -> Config:
    """The configuration of a run. Raises UserError where it is not there, or not one of this version."""
    path = Path(run_dir) / "config.json"
    values = _read_object(path)
    try:
        return Config.recorded(values)
    except (TypeError, ValueError) as error:  # TypeError: a value of another type
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{path} describes no run of this version ({reason}): name the --workdir of a training.") from error


def read_split(run_dir: str | Path) -> Split:
    """The patients of a run: {"train": names, "val": names}, "test" perhaps. Raises UserError where it cannot be read."""
    split = _read_object(Path(run_dir) / "split.json")
    if not {"train", "val"} <= set(split) or not all(isinstance(names, list) for names in split.values()):
        raise UserError(f"{run_dir}/split.json is not {{\"train\": [names], \"val\": [names]}}: name the --workdir of a training.")
    return split


def read_provenance(run_dir: str | Path) -> dict[str, Any]:
    """What `provenance` said when the run began. Raises UserError where it cannot be read."""
    return _read_object(Path(run_dir) / "provenance.json")


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}): name the --workdir of a training.") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON object: name the --workdir of a training.")
    return value


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
        "processes": jax.process_count(),
        "cores": threads(),  # that the process may use
        "machine": processor(),
    }


def processor() -> str:
    """The name of the processor, as far as the system tells it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def this_process() -> str:
    """Command, commit, jax and device of this process in a line, for the log."""
    known = provenance()
    return f"{shlex.join(known['command'])}; commit {known['commit'] or '?'}; jax {jax.__version__}; {known['device']}"


@functools.cache  # of the code as it was loaded: results that are written into the checkout make it no other
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
    """`metrics.jsonl`, one JSON object a line; with `tensorboard` as events too.

    Lines beyond the step `first` that a run resumes from are dropped; its validation too where that is still `pending`.
    All processes know the `lines`, the first writes them.
    """

    def __init__(self, folder: Path, first: int, *, pending: bool = False, tensorboard: bool = False):
        self.path = folder / "metrics.jsonl"
        self.lines = [line for line in read_metrics(folder) if line["step"] <= first]
        if pending:
            self.lines = [line for line in self.lines if line["step"] < first or "dice_mean" not in line]
        self.writes = processes.is_first()
        if self.writes:
            write_text(self.path, "".join(json.dumps(line) + "\n" for line in self.lines))
        self.events = Events(folder / "tensorboard", first) if tensorboard and self.writes else None

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, *_) -> None:
        if self.events:
            with writing(self.path.parent):
                self.events.close()

    def write(self, **values: Any) -> None:
        """Adds a line. Raises UserError on a full disk."""
        self.lines.append(values)
        if self.writes:
            append_line(self.path, json.dumps(values))
        if self.events:
            with writing(self.path.parent):
                self.events.write(**values)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl; a last line cut off by a kill is left out. Raises UserError for another."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return []
    found = []
    for number, line in enumerate(path.read_text(errors="replace").splitlines(keepends=True), start=1):
        if not line.endswith("\n"):
            break
        try:
            found.append(json.loads(line))
        except ValueError as error:
            raise UserError(f"{path}, line {number}, is no JSON: remove the line.") from error
    return found


class Log:
    """`training.log`: what happened to a run, a line each with the date and the time; `say` shows it as well.

    The first process speaks for all.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]):
        self.path, self.say = folder / "training.log", say

    def __call__(self, text: str) -> None:
        if not processes.is_first():
            return
        self.say(text)
        append_line(self.path, f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}")
