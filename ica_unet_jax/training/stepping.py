"""The state of a training and the compiled step that moves it on."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import optax

from ica_unet_jax.config import Config
from ica_unet_jax.data.augmentation import Batch, augment
from ica_unet_jax.labels import UNLABELLED
from ica_unet_jax.models import losses
from ica_unet_jax.models.networks import build_model, init_variables, make_loss
from ica_unet_jax.runs.checkpoints import State, Tree
from ica_unet_jax.runtime import processes
from ica_unet_jax.training import distillation
from ica_unet_jax.training.optimizers import make_optimizer


def init_state(config: Config) -> State:
    """A fresh state on each device; the same configuration and seed give the same bytes."""
    optimizer = make_optimizer(config.train)

    def init(key: jax.Array) -> State:
        variables = init_variables(config.model, key)
        params, stats = variables["params"], variables["batch_stats"]
        return State(jnp.zeros((), jnp.int32), params, jax.tree.map(jnp.copy, params), stats, optimizer.init(params))

    state = jax.jit(init)(jax.random.key(config.train.seed))
    return processes.Devices(config.train).replicate(state)


def make_step(config: Config) -> Callable[..., tuple[State, dict[str, jax.Array]]]:
    """The compiled training step: state, batch and, where there is one, the teacher's variables -> state, terms of the loss.

    The state's buffers are donated. Randomness comes from (seed, step) alone.

    It sees the whole batch, also where that is divided over several devices: batch statistics, losses and gradients are
    those of one. The seed is an argument of what is compiled, so that trainings that differ in it alone share one entry of a
    persistent compilation cache.
    """
    model, optimizer, devices = build_model(config.model), make_optimizer(config.train), processes.Devices(config.train)
    loss_function, distill = make_loss(config), distillation.make_loss(config)

    def step(
        state: State, batch: Batch, key: jax.Array, teacher: distillation.Variables | None
    ) -> tuple[State, dict[str, jax.Array]]:
        rngs = _network_keys(config, key, state.step)
        previous, current, following, valid = batch.parts(config.model.reach)
        known = valid * (batch.labels != UNLABELLED)[..., None] if config.train.unlabelled else valid

        def loss_of(params):
            variables = {"params": params, "batch_stats": state.batch_stats}
            (logits, aux), updates = model.apply(
                variables, previous, current, following, valid, True, mutable=["batch_stats"], rngs=rngs
            )
            with jax.named_scope("loss"):
                loss, terms = loss_function(logits, aux, batch.labels, current, known, config.loss)
            if distill:
                terms["distillation"] = distill(logits[-1], batch, teacher)
                terms["loss"] = loss = loss + config.loss.distillation_weight * terms["distillation"]
            if config.train.separate_ica_steps:
                ica = sum(weight * terms[name] for name, weight in losses.weights(config.loss).items())
                terms["loss"] = loss = jnp.where(state.step < config.train.separate_ica_steps, ica, loss - ica)
            return loss, (terms, updates.get("batch_stats", {}))

        (_, (terms, batch_stats)), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        with jax.named_scope("optimizer"):
            updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
            if config.train.separate_ica_steps:
                updates = _of_one_part(updates, state.step < config.train.separate_ica_steps)
            params = optax.apply_updates(state.params, updates)
            # Early on the average follows closely, so that it holds no trace of the initial values.
            decay = jnp.minimum(config.train.ema_decay, (1 + state.step) / (10 + state.step))
            averaged = optax.incremental_update(params, state.averaged, 1 - decay)
        terms |= {"gradient_norm": optax.tree.norm(gradients), "parameter_norm": optax.tree.norm(params)}
        return State(state.step + 1, params, averaged, batch_stats, opt_state), terms

    everywhere, divided = devices.everywhere, devices.divided
    compiled = jax.jit(step, in_shardings=(everywhere, divided, everywhere, everywhere), out_shardings=everywhere, donate_argnums=0)
    augmented, key = _augmentation(config, devices)
    return lambda state, batch, teacher=None: compiled(state, augmented(batch, state.step, key), key, teacher)


def _of_one_part(updates: Tree, encoder: jax.Array) -> Tree:
    """The updates of the ICA-encoder alone, or of all others alone."""
    return {name: jax.tree.map(lambda x, learns=encoder == (name == "encoder"): jnp.where(learns, x, jnp.zeros_like(x)), part) for name, part in updates.items()}


def recalibrated(config: Config, state: State, batches: Iterable[Batch]) -> State:
    """The state with batch statistics of its averaged parameters, which were never trained with; those of training are of other ones.

    Each of the batches, augmented as in training, moves the statistics on as a step does, so that a hundred leave nothing of the former.
    """
    model, devices = build_model(config.model), processes.Devices(config.train)

    def move(averaged: Tree, stats: Tree, batch: Batch, key: jax.Array, number: jax.Array) -> Tree:
        variables, parts = {"params": averaged, "batch_stats": stats}, batch.parts(config.model.reach)
        _, updates = model.apply(variables, *parts, True, mutable=["batch_stats"], rngs=_network_keys(config, key, number))
        return updates.get("batch_stats", {})

    everywhere, divided = devices.everywhere, devices.divided
    compiled = jax.jit(move, in_shardings=(everywhere, everywhere, divided, everywhere, everywhere), out_shardings=everywhere)
    (augmented, key), stats = _augmentation(config, devices), state.batch_stats
    for number, batch in enumerate(batches):
        number = jnp.asarray(config.train.steps + number, jnp.int32)  # no step had these draws
        stats = compiled(state.averaged, stats, augmented(devices.divide(batch), number, key), key, number)
    return state.replace(batch_stats=stats)


def _augmentation(config: Config, devices: processes.Devices) -> tuple[Callable[[Batch, jax.Array, jax.Array], Batch], jax.Array]:
    """(batch, number of the step, key) -> the augmented batch, compiled; and the key of a training."""

    def augmented(batch: Batch, step: jax.Array, key: jax.Array) -> Batch:
        with jax.named_scope("augmentation"):
            return augment(jax.random.fold_in(key, step), batch, config.model.crop, config.data)

    everywhere, divided = devices.everywhere, devices.divided
    # Apart, as XLA would fuse the warp of a frame into all that reads it, and warp anew for each.
    compiled = jax.jit(augmented, in_shardings=(divided, everywhere, everywhere), out_shardings=divided)
    return compiled, jax.jit(lambda: jax.random.key(config.train.seed + 1), out_shardings=everywhere)()


def _network_keys(config: Config, key: jax.Array, step: jax.Array) -> dict[str, jax.Array]:
    """What a network draws from in a step: `augment` splits the step's key for the samples of the batch, the number behind them is this."""
    return {"dropout": jax.random.fold_in(jax.random.fold_in(key, step), config.train.batch_size)}
