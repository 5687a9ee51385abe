"""A run folder: it belongs to one configuration and one split, and one training at a time may hold it."""

from __future__ import annotations

import contextlib
import errno
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ica_unet_jax.config import Config, unread
from ica_unet_jax.data.orientation import Cohort, is_codes
from ica_unet_jax.data.splits import Split
from ica_unet_jax.errors import UserError
from ica_unet_jax.metrics import doubts
from ica_unet_jax.runs import provenance
from ica_unet_jax.runtime import processes
from ica_unet_jax.runtime.files import read_object, write_json, write_text, writing

# Where a run lies and what it shows of itself change nothing of what it computes.
MAY_CHANGE = {
    "workdir", "data_dir", "cache_dir", "phantom_dir", "log_every", "split_file", "init_from", "final_evaluation",
    "chance_validations", "tensorboard", "skip_bad_cases", "devices", "teacher", "reader", "cohort_csv", "split_by", "workers", "cache_gb",
}  # fmt: skip
ORIENTATION = '{"codes": {"LPS": 80}, "scaled": true}'  # what `orientation.json` is like
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP)  # of file systems without locks, some of networks
_ADVICE = "name the --workdir of a training"


def essential_changes(config: Config, before: Config) -> dict[str, Any]:
    """{knob: value in `config`} of all that differs and may not. What the network does not read may: older versions recorded it."""
    return {name: value for name, value in config.diff(before).items() if name not in MAY_CHANGE | unread(config.flat())}


def open_run(
    config: Config, split: Split, left_out: Mapping[str, Sequence[str]] | None = None, lie: Cohort | None = None
) -> Path:
    """The folder `config.train.workdir` with `config.json`, `split.json` and `provenance.json`; the first process makes them.

    `left_out`, what is wrong with the cases that were left out, goes into `left_out.json` where there are any; `lie`, how the training
    patients lie, into `orientation.json`.

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
    write_json(folder / "provenance.json", provenance.this_process())
    if left_out:
        write_json(folder / "left_out.json", left_out)
    if lie:
        write_json(folder / "orientation.json", lie._asdict())
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
    lock = FileLock(folder / "lock")  # the system's own, so a killed process leaves none behind
    with writing(folder):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(f"--workdir={folder} is in use by another training: let it end, or choose another --workdir.") from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            print(f"{folder} cannot be locked ({error.strerror}): see to it that no other training runs there.", file=sys.stderr)
    try:
        yield
    finally:
        lock.release()


def refuse_changes(config: Config, folder: Path | None = None) -> bool:
    """Whether `folder`, or else `config.train.workdir`, holds a run; UserError, with the difference, where it is one of other settings."""
    folder = folder or Path(config.train.workdir)
    if not (folder / "config.json").is_file():
        return False
    before = read_config(folder)
    if changed := essential_changes(config, before):
        was = before.flat()
        more = f" To train its network further, name a new --workdir and --init_from={folder}." if changed.get("steps", 0) > was["steps"] else ""
        raise UserError(_refusal(folder, ", ".join(f"{k} {was[k]} -> {v}" for k, v in changed.items())) + more)
    return True


def _refusal(folder: Path, difference: str) -> str:
    return (
        f"--workdir={folder} holds a run with other settings ({difference}): choose another --workdir, or the settings of "
        "before."
    )


def read_config(run_dir: str | Path) -> Config:
    """The configuration of a run. Raises UserError where it is not there, or not one of this version."""
    path = Path(run_dir) / "config.json"
    values = read_object(path, _ADVICE)
    try:
        return Config.recorded(values)
    except (TypeError, ValueError) as error:  # TypeError: a value of another type
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{path} describes no run of this version ({reason}): {_ADVICE}.") from error


def read_orientation(run_dir: str | Path) -> Cohort:
    """How the training patients of a run lie; without any letters where it does not say.

    Raises UserError where what it says cannot be.
    """
    path = Path(run_dir) / "orientation.json"
    if not path.is_file():
        return Cohort({}, True)
    known = read_object(path, _ADVICE)
    codes, scaled = known.get("codes"), known.get("scaled")
    well_formed = isinstance(codes, dict) and isinstance(scaled, bool) and all(
        (letters == "" or is_codes(letters)) and isinstance(number, int) for letters, number in codes.items())
    if not well_formed:
        raise UserError(f"{path} must be as {ORIENTATION}, how many training patients have these axis letters: correct or remove it.")
    return Cohort(codes, scaled)


def read_doubts(run_dir: str | Path) -> dict[str, float]:
    """The limits that a run's network has of its own, for `metrics.doubts`; none where it has learned none. UserError where they cannot be."""
    path = Path(run_dir) / "doubts.json"
    if not path.is_file():
        return {}
    known = read_object(path, _ADVICE)
    if not doubts.are_own(known):
        raise UserError(f'{path} must be as {{"unsure": 0.4}}, a limit for each of {", ".join(doubts.OWN)}: correct or remove it.')
    return known


def began_in(run_dir: str | Path) -> Path | None:
    """The folder in which a run's training was started, which its relative paths are of; None where that is not known.

    It is known as long as the run folder lies where it was.
    """
    recorded, lies = Path(read_config(run_dir).train.workdir), Path(run_dir).resolve()
    count = len(recorded.parts)
    return None if recorded.is_absolute() or lies.parts[-count:] != recorded.parts else Path(*lies.parts[:-count])


def read_split(run_dir: str | Path) -> Split:
    """The patients of a run: {"train": names, "val": names}, "test" perhaps. Raises UserError where it cannot be read."""
    split = read_object(Path(run_dir) / "split.json", _ADVICE)
    if not {"train", "val"} <= set(split) or not all(isinstance(names, list) for names in split.values()):
        raise UserError(f"{run_dir}/split.json is not {{\"train\": [names], \"val\": [names]}}: {_ADVICE}.")
    return split
