"""Training: the state, the compiled step, and the loop. Nothing here reads a flag."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.special import logsumexp

from ica_unet_jax import checkpoints, evaluation, run_folder
from ica_unet_jax.checkpoints import Checkpoints, State
from ica_unet_jax.config import NUM_CLASSES, Config, TrainConfig
from ica_unet_jax.data import acdc, cache, cohort, splits
from ica_unet_jax.data.augmentation import Batch, augment
from ica_unet_jax.data.batches import Batches
from ica_unet_jax.data.geometry import argmax_labels
from ica_unet_jax.errors import Diverged, UserError
from ica_unet_jax.inference import Segmenter, segmenter_of
from ica_unet_jax.metrics import STRUCTURES
from ica_unet_jax.metrics.overlap import structure_dice
from ica_unet_jax.models import METHODS, build_model, init_variables, same_shapes
from ica_unet_jax.progress import Progress

CHANCE = math.log(NUM_CLASSES)  # cross-entropy of equal probabilities


def warmup_steps(config: TrainConfig) -> int:
    """Steps of warm-up: a tenth of a short training at most."""
    return min(config.warmup_steps, config.steps // 10)


def make_optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """Clipping, then the optimizer with its schedule over `config.steps`."""
    warmup, decay = warmup_steps(config), config.steps
    if config.schedule == "cosine":
        rate = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, warmup, decay, 0.01 * config.learning_rate)
    else:
        after = {
            "constant": optax.constant_schedule(config.learning_rate),
            "polynomial": optax.polynomial_schedule(config.learning_rate, 0.0, 0.9, decay - warmup),
            "exponential": optax.exponential_decay(config.learning_rate, decay - warmup, 0.01),
        }[config.schedule]
        rate = optax.join_schedules([optax.linear_schedule(0.0, config.learning_rate, warmup), after], [warmup])
    optimizer = {
        "adamw": lambda: optax.adamw(rate, weight_decay=config.weight_decay),
        "adam": lambda: optax.adam(rate),
        "sgd": lambda: optax.sgd(rate, momentum=config.momentum, nesterov=True),
    }[config.optimizer]()
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    return optax.chain(clip, optimizer)


def init_state(config: Config) -> State:
    """A fresh state; the same configuration and seed give the same bytes."""
    optimizer = make_optimizer(config.train)

    def init(key: jax.Array) -> State:
        variables = init_variables(config.model, key)
        params, stats = variables["params"], variables["batch_stats"]
        return State(jnp.zeros((), jnp.int32), params, jax.tree.map(jnp.copy, params), stats, optimizer.init(params))

    return jax.jit(init)(jax.random.key(config.train.seed))


def window_of(batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What stands before the labelled frames, these, and what follows, each (B, d, h, w, number of frames)."""
    middle = batch.frames.shape[1] // 2
    frames = [batch.frames[:, i, ..., None] for i in range(batch.frames.shape[1])]
    return tuple(jnp.concatenate(part, axis=-1) for part in (frames[:middle], frames[middle : middle + 1], frames[middle + 1 :]))


def make_step(config: Config) -> Callable[[State, Batch], tuple[State, dict[str, jax.Array]]]:
    """The compiled training step; the state's buffers are donated. Randomness comes from (seed, step) alone.

    The seed is an argument of what is compiled, so that trainings that differ in it alone share one entry of a
    persistent compilation cache.
    """
    model, optimizer = build_model(config.model), make_optimizer(config.train)
    loss_function = METHODS[config.model.model].loss

    def step(state: State, batch: Batch, key: jax.Array) -> tuple[State, dict[str, jax.Array]]:
        key = jax.random.fold_in(key, state.step)
        # `augment` splits its key for the samples of the batch; the number behind them is the network's.
        rngs = {"dropout": jax.random.fold_in(key, config.train.batch_size)}
        batch = augment(key, batch, config.model.crop, config.data)
        previous, current, following = window_of(batch)
        valid = batch.valid[..., None]

        def loss_of(params):
            variables = {"params": params, "batch_stats": state.batch_stats}
            (logits, aux), updates = model.apply(
                variables, previous, current, following, valid, True, mutable=["batch_stats"], rngs=rngs
            )
            loss, terms = loss_function(logits, aux, batch.labels, current, valid, config.loss)
            return loss, (terms, updates.get("batch_stats", {}))

        (_, (terms, batch_stats)), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        # Early on the average follows closely, so that it holds no trace of the initial values.
        decay = jnp.minimum(config.train.ema_decay, (1 + state.step) / (10 + state.step))
        averaged = optax.incremental_update(params, state.averaged, 1 - decay)
        terms |= {"gradient_norm": optax.tree.norm(gradients), "parameter_norm": optax.tree.norm(params)}
        return State(state.step + 1, params, averaged, batch_stats, opt_state), terms

    compiled, key = jax.jit(step, donate_argnums=0), jax.random.key(config.train.seed + 1)
    return lambda state, batch: compiled(state, batch, key)


@dataclasses.dataclass
class Validation:
    """Scores on the native grid of the validation patients' labelled frames."""

    cines: list[acdc.Cine]
    segmenter: Segmenter

    def __call__(self, state: State) -> dict[str, float]:
        """{"dice_RV", "dice_MYO", "dice_LV", "dice_mean", "validation_cross_entropy" (nats, inside the window)}.

        Frames are averaged within a patient, then patients.
        """
        self.segmenter.variables = state.variables
        patients = []
        for cine in self.cines:
            inside, scores = self.segmenter.place(cine.frames.shape[1:], cine.spacing).inside, []
            for time_, logits in evaluation.logits(self.segmenter, cine, sorted(cine.labels)):
                truth = cine.labels[time_]
                dice = structure_dice(argmax_labels(logits), truth)
                scores.append([*dice.values(), cross_entropy(logits[inside], truth[inside])])
            patients.append(np.mean(scores, axis=0))
        *dice, entropy = np.mean(patients, axis=0).tolist()
        names = [f"dice_{name}" for name in STRUCTURES]
        return dict(zip(names, dice, strict=True)) | {
            "dice_mean": float(np.mean(dice)),
            "validation_cross_entropy": entropy,
        }


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean over voxels, in nats, of logits (n, classes) and labels (n,)."""
    chosen = np.take_along_axis(logits, labels[:, None].astype(np.intp), axis=1)[:, 0]
    return float(np.mean(logsumexp(logits, axis=1) - chosen))


def train(config: Config, *, pictures: bool = True) -> State:
    """Trains to `config.train.steps` in `config.train.workdir`, going on from its latest checkpoint if there is one.

    Raises:
      UserError: bad data, or a run folder of another configuration.
      Diverged: a loss, gradient or parameter is not finite, or validation stays at chance.
    """
    cases = cohort.open_cohort(config.data)
    split = cohort.choose_split(config.data, cases)
    chosen = {part: splits.select(split, cases, part) for part in ("train", "val")}
    folder = run_folder.open_run(config, split)
    options = {name: getattr(config.data, name) for name in ("spacing", "label_map", "cyclic", "cache_dir")}
    samples = cache.load_cases(chosen["train"], crop=config.model.crop, reach=config.model.reach, **options)
    batches = Batches(samples, config.model.crop[0], config.train.batch_size, config.train.seed)
    cines = [acdc.read(case, config.data.label_map) for case in chosen["val"]]
    validate = Validation([c for c in cines if c.labels], segmenter_of(config))

    saved = Checkpoints(folder)
    state = init_state(config)
    if saved.latest_step() is not None:
        state = saved.restore(state)
    elif config.train.init_from:
        state = start_from(config.train.init_from, state)
    else:
        prepare = METHODS[config.model.model].prepare
        state = state.replace(batch_stats=prepare(state.batch_stats, samples, config.model.crop))
    step = make_step(config)
    first = int(state.step)
    log = run_folder.Metrics(folder, first)
    with Progress(config.train.steps, first) as progress:
        started, since = time.perf_counter(), first
        for number, batch in enumerate(batches.iterate(first, config.train.steps), start=first + 1):
            state, terms = step(state, batch)
            last = number == config.train.steps
            judged = last or number % config.train.evaluate_every == 0
            if judged or number % config.train.log_every == 0 or number == first + 1:
                values = {name: float(value) for name, value in terms.items()}
                check_finite(values, number, folder)
                # The first step compiles; its time is kept apart.
                seconds = (time.perf_counter() - started) / (number - since)
                log.write(step=number, seconds_per_step=seconds, compiled=number == first + 1, **values)
                started, since = time.perf_counter(), number
                progress.update(number, values["loss"])
            if judged:
                scores = validate(state)
                log.write(step=number, **scores)
                dice = {name: scores[f"dice_{name}"] for name in (*STRUCTURES, "mean")}
                progress.note(f"step {number}: validation Dice " + ", ".join(f"{k} {v:.3f}" for k, v in dice.items()))
                saved.save(state, dice["mean"])
                if pictures:
                    evaluation.training_report(folder, validate.cines, validate.segmenter)
                check_learning(run_folder.read_metrics(folder), config.train)
                started, since = time.perf_counter(), number
    saved.close()
    return state


def start_from(run_dir: str, state: State) -> State:
    """`state` with the parameters of another run, for fine-tuning.

    Raises:
      UserError: its network has other parameters.
    """
    other = checkpoints.restore(run_dir)
    if not same_shapes(other.averaged, state.params):
        raise UserError(f"--init_from={run_dir} is a different network: give the model flags that it was trained with.")
    params = jax.tree.map(jnp.asarray, other.averaged)
    stats = jax.tree.map(jnp.asarray, other.batch_stats)
    return state.replace(params=params, averaged=jax.tree.map(jnp.copy, params), batch_stats=stats)


def check_finite(values: dict[str, float], step: int, folder: Path) -> None:
    """Raises `Diverged`, naming step and term, where a term is not finite."""
    bad = [name for name, value in values.items() if not np.isfinite(value)]
    if bad:
        advice = f"; the last good state is kept in {folder}: lower --learning_rate or --clip_norm."
        raise Diverged(step, f"{', '.join(bad)} not finite", advice)


def check_learning(lines: Sequence[dict[str, float]], config: TrainConfig) -> None:
    """Raises `Diverged` where the last validations after the warm-up, --chance_validations in a row, are at chance."""
    key, count = "validation_cross_entropy", config.chance_validations
    recent = [line for line in lines if key in line and line["step"] > warmup_steps(config)][-count:]
    if count and len(recent) == count and not any(line[key] <= CHANCE for line in recent):
        what = f"validation cross-entropy above ln {NUM_CLASSES}, which is chance, {count} times in a row"
        raise Diverged(recent[-1]["step"], what, ": lower --learning_rate, or --chance_validations=0 to go on.")
