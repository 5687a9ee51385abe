"""Training: the state, the compiled step, and the loop. Nothing here reads a flag."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ica_unet_jax import checkpoints, evaluation, run_folder
from ica_unet_jax.checkpoints import Checkpoints, State
from ica_unet_jax.config import Config, TrainConfig
from ica_unet_jax.data import acdc, cache, cohort, splits
from ica_unet_jax.data.augmentation import Batch, augment
from ica_unet_jax.data.batches import Batches
from ica_unet_jax.errors import UserError
from ica_unet_jax.inference import Segmenter
from ica_unet_jax.losses import total_loss
from ica_unet_jax.metrics.overlap import structure_dice
from ica_unet_jax.models import build_model, init_variables, same_shapes
from ica_unet_jax.progress import Progress


def make_optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """Clipping, then the optimizer with its schedule over `config.steps`."""
    warmup, decay = min(config.warmup_steps, config.steps // 10), config.steps
    if config.schedule == "cosine":
        rate = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, warmup, decay, 0.01 * config.learning_rate)
    else:
        after = {
            "constant": optax.constant_schedule(config.learning_rate),
            "polynomial": optax.polynomial_schedule(config.learning_rate, 0.0, 0.9, decay - warmup),
        }[config.schedule]
        rate = optax.join_schedules([optax.linear_schedule(0.0, config.learning_rate, warmup), after], [warmup])
    optimizer = {
        "adamw": lambda: optax.adamw(rate, weight_decay=config.weight_decay),
        "adam": lambda: optax.adam(rate),
        "sgd": lambda: optax.sgd(rate, momentum=0.9, nesterov=True),
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


def make_step(config: Config) -> Callable[[State, Batch], tuple[State, dict[str, jax.Array]]]:
    """The compiled training step; the state's buffers are donated. Randomness comes from (seed, step) alone."""
    model, optimizer = build_model(config.model), make_optimizer(config.train)

    def step(state: State, batch: Batch) -> tuple[State, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(config.train.seed + 1), state.step)
        batch = augment(key, batch, config.model.crop, config.data)
        previous, current, following = (batch.frames[:, i, ..., None] for i in range(3))
        valid = batch.valid[..., None]

        def loss_of(params):
            variables = {"params": params, "batch_stats": state.batch_stats}
            (logits, aux), updates = model.apply(
                variables, previous, current, following, valid, True, mutable=["batch_stats"]
            )
            loss, terms = total_loss(logits, aux, batch.labels, current, valid, config.loss)
            return loss, (terms, updates.get("batch_stats", {}))

        (_, (terms, batch_stats)), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        # Early on the average follows closely, so that it holds no trace of the initial values.
        decay = jnp.minimum(config.train.ema_decay, (1 + state.step) / (10 + state.step))
        averaged = optax.incremental_update(params, state.averaged, 1 - decay)
        terms["gradient_norm"] = optax.tree.norm(gradients)
        return State(state.step + 1, params, averaged, batch_stats, opt_state), terms

    return jax.jit(step, donate_argnums=0)


@dataclasses.dataclass
class Validation:
    """Dice on the native grid of the validation patients' labelled frames."""

    cines: list[acdc.Cine]
    segmenter: Segmenter

    def __call__(self, state: State) -> dict[str, float]:
        """{"RV": .., "MYO": .., "LV": .., "mean": ..}: frames averaged within a patient, then patients."""
        self.segmenter.variables = state.variables
        patients = []
        for cine in self.cines:
            labels = evaluation.segment(self.segmenter, cine, sorted(cine.labels))
            scores = [structure_dice(labels[t], truth) for t, truth in cine.labels.items()]
            patients.append({name: np.mean([s[name] for s in scores]) for name in scores[0]})
        dice = {name: float(np.mean([p[name] for p in patients])) for name in patients[0]}
        return dice | {"mean": float(np.mean(list(dice.values())))}


def train(config: Config, command: list[str] | None = None) -> State:
    """Trains to `config.train.steps` in `config.train.workdir`, going on from its latest checkpoint if there is one.

    Raises:
      UserError: bad data, a run folder of another configuration, or a loss that is no longer finite.
    """
    cases = cohort.open_cohort(config.data)
    split = cohort.choose_split(config.data, cases)
    chosen = {part: splits.select(split, cases, part) for part in ("train", "val")}
    folder = run_folder.open_run(config, split, command)
    options = {name: getattr(config.data, name) for name in ("spacing", "label_map", "cyclic", "cache_dir")}
    samples = cache.load_cases(chosen["train"], crop=config.model.crop, **options)
    batches = Batches(samples, config.model.crop[0], config.train.batch_size, config.train.seed)
    cines = [acdc.read(case, config.data.label_map) for case in chosen["val"]]
    validate = Validation([c for c in cines if c.labels], Segmenter(config))

    saved = Checkpoints(folder)
    state = init_state(config)
    if saved.latest_step() is not None:
        state = saved.restore(state)
    elif config.train.init_from:
        state = start_from(config.train.init_from, state)
    step = make_step(config)
    first = int(state.step)
    log = run_folder.Metrics(folder, first)
    with Progress(config.train.steps, first) as progress:
        started, since = time.perf_counter(), first
        for number, batch in enumerate(batches.iterate(first, config.train.steps), start=first + 1):
            state, terms = step(state, batch)
            last = number == config.train.steps
            if number % config.train.log_every == 0 or last or number == first + 1:
                values = {name: float(value) for name, value in terms.items()}
                check_finite(values, number, folder)
                # The first step compiles; its time is kept apart.
                seconds = (time.perf_counter() - started) / (number - since)
                log.write(step=number, seconds_per_step=seconds, compiled=number == first + 1, **values)
                started, since = time.perf_counter(), number
                progress.update(number, values["loss"])
            if number % config.train.evaluate_every == 0 or last:
                dice = validate(state)
                log.write(step=number, **{f"dice_{name}": value for name, value in dice.items()})
                progress.note(f"step {number}: validation Dice " + ", ".join(f"{k} {v:.3f}" for k, v in dice.items()))
                saved.save(state, dice["mean"])
                evaluation.training_report(folder, validate.cines, validate.segmenter)
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
    """UserError naming step and term where a term is not finite."""
    bad = [name for name, value in values.items() if not np.isfinite(value)]
    if bad:
        raise UserError(
            f"training diverged at step {step} ({', '.join(bad)} not finite); the last good state is kept in {folder}: "
            "lower --learning_rate or --clip_norm."
        )

