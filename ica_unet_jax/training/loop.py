"""Training: from the data or a checkpoint to the last step. Nothing here reads a flag."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ica_unet_jax.config import Config, TrainConfig
from ica_unet_jax.data import orientation
from ica_unet_jax.data.batches import Batches
from ica_unet_jax.data.case import Cine
from ica_unet_jax.data.learning_frame import LearningFrame
from ica_unet_jax.errors import Interrupted, UserError
from ica_unet_jax.inference.segmenters import Segmenter, segmenter_of
from ica_unet_jax.labels import STRUCTURES
from ica_unet_jax.models import fastica
from ica_unet_jax.models.networks import method, same_shapes
from ica_unet_jax.runs import checkpoints, provenance, run_folder, tensorboard
from ica_unet_jax.runs.checkpoints import Checkpoints, State
from ica_unet_jax.runs.log import Log, Metrics
from ica_unet_jax.runs.trained import find
from ica_unet_jax.runtime import processes
from ica_unet_jax.runtime.interruption import Interruption
from ica_unet_jax.runtime.progress import Progress
from ica_unet_jax.training import distillation, divergence
from ica_unet_jax.training.loading import load, orientation_of
from ica_unet_jax.training.optimizers import warmup_steps
from ica_unet_jax.training.stepping import init_state, make_step, recalibrated
from ica_unet_jax.training.validation import Validation

_SAVED = "the state is saved after this step, or where the compiler ends"
Draw = Callable[[Path, Sequence[Cine], Segmenter], None]


def train(config: Config, *, draw: Draw | None = None) -> State:
    """Trains to `config.train.steps` in `config.train.workdir`, going on from its latest checkpoint if there is one.

    `draw` is called after each validation with the run folder, the validation patients and a segmenter of the averaged parameters.

    Raises:
      UserError: bad data (all of it at once), a run folder of another configuration, or one that cannot be written.
      Diverged: a loss, gradient or value of the state is not finite, or validation stays at chance.
      Interrupted: SIGINT or SIGTERM; the state of the current step is saved.

    A student that has been given no teacher trains its own first, in `teacher` below its folder.
    """
    if config.train.tensorboard:
        tensorboard.require()
    processes.Devices(config.train)  # refuses what does not go before the data are read
    goes_on = run_folder.refuse_changes(config)
    if config.model.has_bases and config.model.bases_from == "fastica" and not (goes_on or config.train.init_from):
        fastica.require()
    samples, cines, split, left_out = load(config)
    teacher = distillation.given_teacher(config, split)
    lie = orientation_of(config)
    told = "" if config.data.any_orientation else orientation.remark(lie, config.data.reorient)
    if processes.is_first() and told:
        print(f"note: {told}", file=sys.stderr)
    folder = run_folder.open_run(config, split, left_out, lie)
    if own := distillation.own_teacher(config):
        if processes.is_first():
            print(f"the teacher first ({own.train.workdir})", file=sys.stderr)
        teacher = jax.device_get(processes.own(train(own, draw=draw).variables))
    with run_folder.held(folder), Checkpoints(folder) as saved:
        return _go_on(config, folder, saved, samples, cines, draw, teacher)


def _go_on(
    config: Config, folder: Path, saved: Checkpoints, samples: list[LearningFrame], cines: list[Cine],
    draw: Draw | None, teacher: distillation.Variables | None,
) -> State:  # fmt: skip
    """From the latest checkpoint, or the beginning, to the last step."""
    devices, first_process = processes.Devices(config.train), processes.is_first()
    depth, size, seed = config.model.crop[0], config.train.batch_size, config.train.seed
    batches = Batches(samples, depth, size, seed, devices.rows, config.train.unlabelled)
    validate = Validation(cines, segmenter_of(config))
    state, pending, damaged = begin(config, saved, samples)
    state, step, first = devices.replicate(state), make_step(config), int(state.step)
    teacher = devices.replicate(teacher) if teacher else None
    metrics = Metrics(folder, first, pending=pending, tensorboard=config.train.tensorboard)
    # Alone it stops at once; several do where they are at the same step and wait for the devices anyway, to write a line.
    alone = processes.is_alone()
    with Progress(config.train.steps, first, quiet=not first_process) as progress, metrics, Interruption() as asked:
        log = Log(folder, progress.note)
        if damaged:
            anew = "" if first else "; none is left, so training begins anew"
            log(f"damaged checkpoints were set aside: of step {', '.join(map(str, damaged))}{anew}")
        if devices.idle:
            log(f"--batch_size={config.train.batch_size} does not go round: {devices.idle} devices of each process stay idle")
        if 0 < first < config.train.steps:
            log(f"going on from step {first} ({provenance.in_a_line()})")

        def judge(state: State, number: int) -> State:
            """Validates, where somebody does, saves and draws; returns the state, of the last step with statistics of the averaged parameters."""
            if number == config.train.steps and config.train.recalibration:
                state = recalibrated(config, state, batches.iterate(number, number + config.train.recalibration))
            scores = validate(state, asked.to_stop if alone else lambda: None)
            if scores:
                metrics.write(step=number, **scores)
                log(f"step {number}: validation Dice " + ", ".join(f"{name} {scores[f'dice_{name}']:.3f}" for name in (*STRUCTURES, "mean")))
            if first_process:
                saved.save(state, scores.get("dice_mean"), judged=True)
            if first_process and draw:
                draw(folder, validate.cines, validate.segmenter)
            divergence.check_learning(metrics.lines, config.train, warmup_steps(config.train))
            return state

        recent = {}  # terms of the steps since the last line, by step
        try:
            if pending or not alone:
                asked.hold(_SAVED)
            if pending:
                state = judge(state, first)
            # What ended it before still holds, also where it had come to its last step.
            divergence.check_learning(metrics.lines, config.train, warmup_steps(config.train))
            asked.to_stop(processes.any_signal)
            started, since = time.perf_counter(), first
            for number, batch in enumerate(batches.iterate(first, config.train.steps), start=first + 1):
                state, recent[number] = step(state, devices.divide(batch), teacher)
                asked.hold(_SAVED)  # not before the first step, which compiles for a long time: nothing is lost until it ends
                judged = due(number, config.train)
                reported = judged or number % config.train.log_every == 0 or number == first + 1
                if reported:
                    values = take(recent, folder)
                    # The first step compiles; its time is kept apart.
                    seconds = (time.perf_counter() - started) / (number - since)
                    metrics.write(step=number, seconds_per_step=seconds, compiled=number == first + 1, **values)
                    started, since = time.perf_counter(), number
                    progress.update(number, values["loss"])
                if judged:
                    divergence.check_state(state, folder)
                    state = judge(state, number)
                    started, since = time.perf_counter(), number
                if alone or reported:
                    asked.to_stop(processes.any_signal)
        except Interrupted as stop:
            reached = first
            if asked.waits_for:
                reached = int(state.step)
                take(recent, folder)
                divergence.check_state(state, folder)
                if first_process and reached > (saved.latest_step() or 0):
                    saved.save(state)
            kept = f"the state is saved in {folder}; the same command goes on from there" if reached else "nothing is lost"
            raise Interrupted(stop.number, f" at step {reached}: {kept}") from None
    return state


def begin(config: Config, saved: Checkpoints, samples: Sequence[LearningFrame]) -> tuple[State, bool, list[int]]:
    """The state to begin with, the same in all processes, though the first alone reads checkpoints.

    A network that learns something from the labelled frames before its training, as a shape prior, has done so. With it,
    whether it is still to be validated, and the steps of damaged checkpoints, which are set aside.
    """
    state, damaged = init_state(config), []
    if processes.is_first() and saved.steps():
        with contextlib.suppress(checkpoints.AllDamaged):  # then from the beginning
            state = saved.restore(state)
        damaged = saved.set_aside_damaged(int(state.step))
    if processes.is_first() and not int(state.step):
        if config.train.init_from:
            state = start_from(config.train.init_from, state)
        else:
            labelled, prepare = [sample for sample in samples if sample.labelled], method(config.model.model).prepare
            state = state.replace(batch_stats=prepare(state.batch_stats, labelled, config.model.crop))
    step = int(state.step)
    pending = due(step, config.train) and not saved.validated(step)  # the end came during its validation
    state, pending = processes.from_first((state, np.bool_(pending)))
    return state, bool(pending), damaged


def due(step: int, config: TrainConfig) -> bool:
    """Whether a step ends with a validation and a checkpoint."""
    return step == config.steps or (step > 0 and step % config.evaluate_every == 0)


def take(recent: dict[int, dict[str, jax.Array]], folder: Path) -> dict[str, float]:
    """Empties `recent`; the terms of its last step. Raises Diverged where one of any step is not finite."""
    steps = {number: {name: float(x) for name, x in terms.items()} for number, terms in jax.device_get(recent).items()}
    recent.clear()
    divergence.check_terms(steps, folder)
    return steps[max(steps)] if steps else {}


def start_from(network: str, state: State) -> State:
    """`state` with the parameters of a trained network, for fine-tuning.

    Raises:
      UserError: its network has other parameters.
    """
    variables, _ = find(network).variables()
    if not same_shapes(variables, {"params": state.params, "batch_stats": state.batch_stats}):
        raise UserError(f"--init_from={network} is a different network: give the model flags that it was trained with.")
    params, stats = (jax.tree.map(jnp.asarray, variables[part]) for part in ("params", "batch_stats"))
    return state.replace(params=params, averaged=jax.tree.map(jnp.copy, params), batch_stats=stats)
