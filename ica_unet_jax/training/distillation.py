"""Distillation (ours): a causal student learns also what a teacher, which sees frame t+1, makes of each frame.

Hinton et al., arXiv 1503.02531, at temperature 1: the cross-entropy of the student's finest output against the teacher's
probabilities. It needs no ground truth, so that all frames of a cine can be learnt from (`--unlabelled`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from ica_unet_jax.config import Config
from ica_unet_jax.data.augmentation import Batch
from ica_unet_jax.errors import UserError
from ica_unet_jax.models.losses import cross_entropy
from ica_unet_jax.models.networks import build_model
from ica_unet_jax.runs import run_folder
from ica_unet_jax.runs.trained import find

Variables = dict[str, Any]


def own_teacher(config: Config) -> Config | None:
    """The run of the teacher that a student's run trains for itself; None where it needs none or has been given one."""
    if not config.loss.distillation_weight or config.train.teacher:
        return None
    workdir = str(Path(config.train.workdir) / "teacher")
    return config.replace(neighbours="both", distillation_weight=0.0, unlabelled=0, workdir=workdir, final_evaluation=False)


def teacher_config(config: Config) -> Config | None:
    """The configuration of the teacher, its own or the given one; None without distillation.

    Raises:
      UserError: a given teacher sees another grid, or answers snippets.
    """
    if not config.loss.distillation_weight or not config.train.teacher:
        return own_teacher(config)
    given = find(config.train.teacher).config
    for name in ("crop", "spacing"):
        if given.flat()[name] != config.flat()[name]:
            raise UserError(
                f"--teacher={config.train.teacher} was trained with --{name}={_text(given.flat()[name])}: give the student "
                f"the same, not {_text(config.flat()[name])}."
            )
    if given.model.answered > 1:
        raise UserError(f"--teacher={config.train.teacher} is a {given.model.model}, which answers snippets: take another.")
    return given


def given_teacher(config: Config, split: run_folder.Split) -> Variables | None:
    """The variables of the teacher that the student has been given, arrays of the host; None where it was given none.

    Raises:
      UserError: it has no checkpoint, or has learnt from patients that are to judge the student.
    """
    if not config.loss.distillation_weight or not config.train.teacher:
        return None
    teacher = find(config.train.teacher)
    learnt = set(teacher.split["train"])
    if not learnt:
        raise UserError(f"--teacher={teacher.name} does not tell on whom it was trained: take a run folder, or weights exported with --keep_identifiers.")
    if seen := sorted(learnt & set(split["val"])):
        raise UserError(f"--teacher={teacher.name} has learnt from {seen[0]}, which is to judge its student: take a teacher of the same split.")
    return teacher.variables()[0]


def make_loss(config: Config) -> Callable[[jax.Array, Batch, Variables], jax.Array] | None:
    """loss(logits, batch, variables of the teacher) of a student's logits (B, d, h, w, 4); None without distillation."""
    teacher = teacher_config(config)
    if teacher is None:
        return None
    model = build_model(teacher.model)

    def loss(logits: jax.Array, batch: Batch, variables: Variables) -> jax.Array:
        outputs, _ = model.apply(variables, *batch.parts(teacher.model.reach))
        return cross_entropy(logits, jax.lax.stop_gradient(jax.nn.softmax(outputs[-1])), batch.valid)

    return loss


def reach(config: Config) -> int:
    """Frames before and after each that a training sample needs, for the student and for its teacher."""
    teacher = teacher_config(config)
    return max(config.model.reach, teacher.model.reach if teacher else 0)


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
