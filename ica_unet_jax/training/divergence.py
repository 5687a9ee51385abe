"""What ends a training that no longer learns: values that are not finite, validation that stays as bad as chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ica_unet_jax.config import TrainConfig
from ica_unet_jax.errors import Diverged
from ica_unet_jax.labels import NUM_CLASSES
from ica_unet_jax.runs.checkpoints import State

CHANCE = math.log(NUM_CLASSES)  # cross-entropy of equal probabilities


def check_terms(steps: Mapping[int, Mapping[str, float]], folder: Path) -> None:
    """Raises `Diverged`, naming the first of the steps with a term that is not finite, and these terms."""
    for step, terms in steps.items():
        bad = [name for name, value in terms.items() if not np.isfinite(value)]
        if bad:
            raise Diverged(step, f"{', '.join(bad)} not finite", _kept(folder))


@jax.jit
def _finite(state: State) -> State:
    return jax.tree.map(lambda leaf: jnp.all(jnp.isfinite(leaf)), state)


def check_state(state: State, folder: Path) -> None:
    """Raises `Diverged`, naming the first value of a state that is not finite; so it is never saved."""
    for path, finite in jax.tree_util.tree_leaves_with_path(jax.device_get(_finite(state))):
        if not finite:
            raise Diverged(int(state.step), f"{jax.tree_util.keystr(path)[1:]} not finite", _kept(folder))


def _kept(folder: Path) -> str:
    kept = f"the last good state is kept in {folder}" if any(folder.glob("checkpoints/[0-9]*")) else "nothing was saved yet"
    return f"; {kept}: lower --learning_rate or --clip_norm."


def check_learning(lines: Sequence[dict[str, Any]], config: TrainConfig, warmup: int) -> None:
    """Raises `Diverged` where the last validations after the warm-up, --chance_validations in a row, are at chance."""
    key, count = "validation_cross_entropy", config.chance_validations
    recent = [line for line in lines if key in line and line["step"] > warmup][-count:]
    if count and len(recent) == count and not any(line[key] <= CHANCE for line in recent):
        what = f"validation cross-entropy above ln {NUM_CLASSES}, which is chance, {count} times in a row"
        raise Diverged(recent[-1]["step"], what, ": lower --learning_rate, or --chance_validations=0 to go on.")
