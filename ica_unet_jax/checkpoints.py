"""Checkpoints of a run: the latest and the best one. The only file that knows orbax."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from flax import struct

from ica_unet_jax.errors import UserError

_policies = ocp.checkpoint_managers
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


class Checkpoints:
    """`RUN/checkpoints`: the two latest states (one to fall back on) and the one with the best validation Dice.

    `read_only` leaves alone what a training may be writing there at the same time.
    """

    def __init__(self, run_dir: str | Path, *, read_only: bool = False):
        self.folder = Path(run_dir).absolute() / "checkpoints"
        policy = _policies.AnyPreservationPolicy(
            [
                _policies.LatestN(2),
                _policies.BestN(get_metric_fn=lambda metrics: metrics["dice"], reverse=False, n=1, keep_checkpoints_without_metrics=False),
            ]
        )
        self.manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                read_only=read_only,
                create=not read_only,
                save_interval_steps=0 if read_only else 1,
                preservation_policy=None if read_only else policy,
                best_fn=lambda metrics: metrics["dice"],
                best_mode="max",
                enable_async_checkpointing=False,
                cleanup_tmp_directories=not read_only,
            ),
        )

    def save(self, state: State, dice: float) -> None:
        """Writes the state of its step under a temporary name, then renames it."""
        step = int(state.step)
        self.manager.save(step, args=ocp.args.StandardSave(state), metrics={"dice": float(dice)}, force=True)
        self.manager.wait_until_finished()

    def latest_step(self) -> int | None:
        return self.manager.latest_step()

    def best_step(self) -> int | None:
        return self.manager.best_step()

    def restore(self, template: State | None = None, which: str = "latest") -> State:
        """The latest or the best state; with a template, on its devices and with its types.

        Raises:
          UserError: there is no checkpoint yet.
        """
        step = self.latest_step() if which == "latest" else self.best_step()
        if step is None:
            raise UserError(f"{self.folder.parent} holds no finished checkpoint: train there first, or name another run folder.")
        if template is not None:
            return self.manager.restore(step, args=ocp.args.StandardRestore(template))
        return State(**self.manager.restore(step, args=ocp.args.StandardRestore()))

    def close(self) -> None:
        self.manager.close()


def restore(run_dir: str | Path, which: str = "latest") -> State:
    """The latest or best state of a run folder, as plain arrays; `.params` are its parameters.

    Raises:
      UserError: no run folder, or no checkpoint in it.
    """
    if not (Path(run_dir) / "checkpoints").is_dir():
        raise UserError(f"{run_dir} holds no checkpoints: name the --workdir of a training.")
    checkpoints = Checkpoints(run_dir, read_only=True)
    try:
        return checkpoints.restore(which=which)
    finally:
        checkpoints.close()
