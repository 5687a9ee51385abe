"""Checkpoints of a run: the latest and the best ones, with digests of their files. The only file that knows orbax."""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from flax import struct

from ica_unet_jax.errors import UserError
from ica_unet_jax.runtime.files import write_json

_policies = ocp.checkpoint_managers
DIGESTS = "digests.json"  # in the folder of a checkpoint
Tree = Any


class State(struct.PyTreeNode):
    """All that training carries from step to step."""

    step: Any
    params: Tree
    averaged: Tree  # exponential moving average of the parameters: what is evaluated
    batch_stats: Tree
    opt_state: Tree

    @property
    def variables(self) -> dict[str, Tree]:
        """What a model is applied with outside training."""
        return {"params": self.averaged, "batch_stats": self.batch_stats}


class Damaged(ValueError):
    """A checkpoint that cannot be read, or whose files are not those that were saved."""


class AllDamaged(UserError):
    """There are checkpoints, and none of them can be read."""


class Checkpoints:
    """`RUN/checkpoints`: the two latest states (one to fall back on) and the one with the best validation Dice.

    Reading leaves alone what a training may be writing there at the same time.
    """

    def __init__(self, run_dir: str | Path):
        self.run_dir = Path(run_dir)
        self.folder = self.run_dir.absolute() / "checkpoints"

    @functools.cached_property
    def _manager(self) -> ocp.CheckpointManager:
        def dice(about: dict[str, Any]) -> float:
            return about.get("dice", -1.0)

        best = _policies.BestN(get_metric_fn=dice, reverse=False, n=1, keep_checkpoints_without_metrics=False)
        return ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                create=False,
                multiprocessing_options=_by_itself(),
                save_interval_steps=1,
                preservation_policy=_policies.AnyPreservationPolicy([_policies.LatestN(2), best]),
                best_fn=dice,
                best_mode="max",
                enable_async_checkpointing=False,
                cleanup_tmp_directories=True,
            ),
        )

    def save(self, state: State, dice: float | None = None, *, judged: bool = False) -> None:
        """Writes the state of its step under a temporary name, then renames it.

        Args:
          dice: of the validation; None without any.
          judged: its validation is over, though there may be nobody who validates.

        Raises:
          UserError: it cannot be written, on a full disk for example. Earlier checkpoints stay.
        """
        step = int(state.step)
        target = self.folder / str(step)
        about = ({"judged": True} if judged else {}) | ({} if dice is None else {"dice": float(dice)})
        try:
            self._make_sure_of_room(state)
            if target.is_dir():  # saved when an interruption cut its validation short
                self._manager.delete(step)
            # As arrays of the host: they come from any number of devices, and go to any.
            self._manager.save(step, args=ocp.args.StandardSave(jax.device_get(state)), metrics=about, force=True)
            self._manager.wait_until_finished()
            write_json(target / DIGESTS, _digests(target))
        except (OSError, ValueError) as error:  # ValueError: tensorstore's for whatever the disk refuses
            for unfinished in self.folder.glob(f"{step}.orbax-checkpoint-tmp*"):
                shutil.rmtree(unfinished, ignore_errors=True)
            kept = f"the one of step {self.steps()[-1]} is kept" if self.steps() else "there is none before it"
            raise UserError(
                f"the checkpoint of step {step} cannot be written to {self.folder} ({_reason(error)}): make room; {kept}."
            ) from error

    def _make_sure_of_room(self, state: State) -> None:
        """Raises OSError where the disk is too full: orbax, when it finds out, leaves a mess of tracebacks on stderr."""
        self.folder.mkdir(parents=True, exist_ok=True)
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + 2**19  # half a MB for what describes them
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            text = f"{needed / 2**20:.1f} MB are needed, {free / 2**20:.1f} are free"
            raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {text}")

    def steps(self) -> list[int]:
        """The steps that have a whole checkpoint, in order."""
        return sorted(int(path.name) for path in self.folder.glob("*") if path.name.isdigit())

    def latest_step(self) -> int | None:
        return max(self.steps(), default=None)

    def validated(self, step: int) -> bool:
        """Whether the checkpoint of a step was saved after its validation."""
        about = self._about(step) or {}
        return about.get("judged", False) or "dice" in about  # earlier versions tell no more

    def best_step(self) -> int | None:
        """The first of the steps with the best validation Dice."""
        dice = {step: about["dice"] for step in self.steps() if "dice" in (about := self._about(step) or {})}
        return max(dice, key=dice.get, default=None)

    def restore(self, template: State | None = None, which: str = "latest") -> State:
        """The latest or the best state, arrays of the host; with a template, of its structure and types.

        A latest checkpoint that is damaged is named on stderr, and the one before it is taken.

        Raises:
          UserError: there is no checkpoint yet, or none that was validated.
          AllDamaged: none can be read, or not the best.
        """
        best = self.best_step()
        if which == "best" and best is None and self.steps():
            raise UserError(f"--checkpoint=best: no checkpoint of {self.run_dir} tells of a validation; take the last by --checkpoint=latest.")
        steps = self.steps()[::-1] if which == "latest" else [] if best is None else [best]
        if not steps:
            raise UserError(f"{self.run_dir} holds no finished checkpoint: train there first, or name another run folder.")
        for step in steps:
            try:
                return self._load(step, template)
            except Damaged as error:
                then = ": going back to the one before" if step != steps[-1] else ""
                print(f"{self.folder / str(step)} is damaged ({error}){then}.", file=sys.stderr)
        if which == "best":
            raise AllDamaged(f"the best checkpoint of {self.run_dir} cannot be read: take the last by --checkpoint=latest.")
        raise AllDamaged(f"{self.run_dir} holds no checkpoint that can be read: train there again, or name another run folder.")

    def set_aside_damaged(self, restored: int) -> list[int]:
        """Renames what `restore` has passed over on its way to step `restored`, and others that are damaged.

        They are found in RUN/damaged_checkpoint_STEP; returns these steps.
        """
        damaged = [step for step in self.steps() if step > restored or self._damage(step)]
        for step in damaged:
            aside = self.run_dir / f"damaged_checkpoint_{step}"
            shutil.rmtree(aside, ignore_errors=True)
            (self.folder / str(step)).rename(aside)
        return damaged

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        if "_manager" in self.__dict__:
            self._manager.close()

    def _load(self, step: int, template: State | None) -> State:
        if damage := self._damage(step):
            raise Damaged(damage)
        arguments = ocp.args.StandardRestore(*([] if template is None else [jax.device_get(template)]))
        options = _by_itself()
        reader = ocp.Checkpointer(ocp.StandardCheckpointHandler(multiprocessing_options=options), multiprocessing_options=options)
        try:
            found = reader.restore(self.folder / str(step) / "default", args=arguments)
            return found if template is not None else State(**found)
        except Exception as error:  # orbax raises whatever its many readers do
            raise Damaged(_reason(error)) from error
        finally:
            reader.close()

    def _damage(self, step: int) -> str:
        """What is wrong with the files of a checkpoint, or ""; they are read whole, before orbax sees them.

        A checkpoint without digests, whose training was killed right after it, is only asked for what is said of it.
        """
        folder = self.folder / str(step)
        try:
            saved = json.loads((folder / DIGESTS).read_text(encoding="utf-8")) if (folder / DIGESTS).exists() else None
            if saved is None:
                return "" if self._about(step) is not None else "its metrics cannot be read"
            changed = sorted(set(saved.items()) ^ set(_digests(folder).items()))
        except (OSError, ValueError, AttributeError, TypeError) as error:  # the last two: JSON of another kind
            return f"its digests cannot be compared: {_reason(error)}"
        return f"{changed[0][0]} is not what was saved" if changed else ""

    def _about(self, step: int) -> dict[str, Any] | None:
        """{"dice": of its validation, "judged": whether that is over}, {} where neither is; None where this cannot be read."""
        path = self.folder / str(step) / "metrics" / "metrics"  # orbax's place for the metrics of `save`
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError):
            return None
        well_formed = isinstance(about, dict) and isinstance(about.get("dice", 0.0), float | int)
        return about if well_formed else None


def _by_itself() -> ocp.options.MultiprocessingOptions:
    """This process reads and writes without waiting for others."""
    process = jax.process_index()
    return ocp.options.MultiprocessingOptions(primary_host=process, active_processes={process})


def _digests(folder: Path) -> dict[str, str]:
    """{file: SHA-256} of all files of a checkpoint but the digests themselves."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and DIGESTS not in path.name:
            with path.open("rb") as file:
                found[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _reason(error: Exception) -> str:
    """The gist of an error of orbax, in which whole tracebacks may stand."""
    text = " ".join(str(error).split()) or type(error).__name__
    full = os.strerror(errno.ENOSPC)
    return full if full in text and not isinstance(error, OSError) else text.split(". See full")[0][:160]


def restore(run_dir: str | Path, which: str = "latest") -> State:
    """The latest or best state of a run folder, as plain arrays; `.params` are its parameters.

    Raises:
      UserError: no checkpoint is there, or none that can be read.
    """
    return Checkpoints(run_dir).restore(which=which)
