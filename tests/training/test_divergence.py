"""A training that no longer learns is stopped, told by step and term, and nothing of it is kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import folder

from ica_unet_jax.config import Config
from ica_unet_jax.errors import Diverged
from ica_unet_jax.runs import checkpoints
from ica_unet_jax.runs.checkpoints import Checkpoints, State
from ica_unet_jax.training import divergence, loop


def test_the_first_step_with_a_term_that_is_not_finite_is_named(tmp_path):
    nan, inf = float("nan"), float("inf")
    divergence.check_terms({6: {"loss": 1.0}, 7: {"loss": 2.0}}, tmp_path)
    with pytest.raises(Diverged, match=r"diverged at step 7 \(sparsity, loss not finite\).*lower --learning_rate"):
        divergence.check_terms({6: {"loss": 1.0}, 7: {"sparsity": nan, "dice": 1.0, "loss": inf}, 8: {"loss": nan}}, tmp_path)


@pytest.mark.parametrize("part", ["params", "averaged", "batch_stats", "opt_state"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_every_part_of_the_state_is_looked_at(tmp_path, part, value):
    sound = State(jnp.int32(9), {"w": jnp.ones(3)}, {"w": jnp.ones(3)}, {"mean": jnp.ones(2)}, ({"nu": jnp.ones(2)},))
    divergence.check_state(sound, tmp_path)
    tree = getattr(sound, part)
    bad = ({"nu": jnp.array([1, value])},) if part == "opt_state" else {next(iter(tree)): jnp.array([1, value])}
    with pytest.raises(Diverged, match=rf"diverged at step 9 \({part}.* not finite\); nothing was saved yet"):
        divergence.check_state(sound.replace(**{part: bad}), tmp_path)


def test_validation_at_chance_stops_after_so_many_in_a_row_past_the_warm_up():
    def check(entropies, warmup=0, **changes):
        lines = [{"step": 10 * i, "validation_cross_entropy": x} for i, x in enumerate(entropies, start=1)]
        lines.append({"step": 1000, "loss": 9.0})
        divergence.check_learning(lines, Config.make(**dict(chance_validations=2) | changes).train, warmup)

    assert divergence.CHANCE == np.log(4)
    high, low = np.log(4) + 1e-3, np.log(4) - 1e-3
    check([high])
    check([high, low])
    check([high, high, low, high])
    check([high, high], warmup=10)
    check([high, high], chance_validations=0)
    for bad in ([low, high, high], [high, np.nan]):
        with pytest.raises(Diverged, match=r"diverged at step \d0 \(validation cross-entropy above ln 4.* 2 times in a row\)"):
            check(bad)


@pytest.mark.parametrize("stopped", ["at a checkpoint", "by a signal"])
def test_nothing_that_is_not_finite_gets_into_a_checkpoint(make, compiled_once, monkeypatch, stopped):
    """Parameters become NaN at step 3, between two lines of the log; a checkpoint is due at 4, or asked for at 3."""
    config = make(f"nan {stopped}", log_every=1000)
    make_step = loop.make_step

    def spoiled(config):
        step = make_step(config)

        def run(state, *inputs):
            state, terms = step(state, *inputs)
            if int(state.step) == 3:
                state = state.replace(params=jax.tree.map(lambda leaf: leaf * jnp.nan, state.params))
                if stopped == "by a signal":
                    monkeypatch.setattr(loop.Interruption, "to_stop", to_stop)
            return state, terms

        return run

    def to_stop(self, *_):
        raise loop.Interrupted(15)

    monkeypatch.setattr(loop, "make_step", spoiled)
    with pytest.raises(Diverged) as error:
        loop.train(config)
    assert error.value.step == (4 if stopped == "at a checkpoint" else 3) and "not finite" in error.value.what
    assert Checkpoints(folder(config)).steps() == [2]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(checkpoints.restore(folder(config))))


def test_a_training_at_chance_in_the_end_has_diverged_however_often_it_is_started(make, compiled_once, monkeypatch):
    config = make("chance", chance_validations=1)
    monkeypatch.setattr(divergence, "CHANCE", 0.0)
    for _ in range(2):
        with pytest.raises(Diverged, match="step 2 "):
            loop.train(config)
    monkeypatch.setattr(divergence, "CHANCE", 100.0)
    loop.train(config)
    monkeypatch.setattr(divergence, "CHANCE", 0.0)
    with pytest.raises(Diverged, match="step 4 "):
        loop.train(config)
