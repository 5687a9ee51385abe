"""The step and the loop: compiled once, the same bytes, and a stopped run that goes on as if it had not been."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import SMALL, assert_same_bytes, copy, folder, lines

from ica_unet_jax.config import Config
from ica_unet_jax.data import cache, reading
from ica_unet_jax.data.batches import Batches
from ica_unet_jax.errors import UserError
from ica_unet_jax.evaluation import judging
from ica_unet_jax.runs import checkpoints
from ica_unet_jax.training import experiment, loop, stepping
from ica_unet_jax.training.optimizers import make_optimizer

pytestmark = pytest.mark.usefixtures("compiled_once")

STEADY = dict(schedule="constant", warmup_steps=0, steps=30, learning_rate=0.01, devices=1)


# --- the step ---


@pytest.fixture(scope="module")
def steps(cohort, tmp_path_factory):
    """The network's own step with augmentation: its traces, and a start and a batch for it."""
    config = Config.make(**SMALL | STEADY | dict(batch_size=2))
    case = reading.find_cases(str(cohort), "")[0]
    samples = cache.preprocessed(case, crop=config.model.crop, spacing=1.5, cache_dir=tmp_path_factory.mktemp("cache"))
    batch = Batches(samples, 2, 2, 0)[0]
    traces, augment = [], stepping.augment
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stepping, "augment", lambda *args: traces.append(1) or augment(*args))
        yield stepping.make_step(config), stepping.init_state(config), batch, traces


def test_the_step_learns_is_traced_once_and_repeats_itself(steps):
    step, start, batch, traces = steps
    state, losses = copy(start), []
    for number in range(30):
        state, terms = step(state, batch)
        assert int(state.step) == number + 1
        losses.append({name: float(value) for name, value in terms.items()})
    assert np.mean([t["loss"] for t in losses[-5:]]) < 0.8 * losses[0]["loss"]
    assert {"cross_entropy_1", "cross_entropy_2", "sparsity", "gradient_norm", "loss"} <= set(losses[0])
    again = copy(start)
    for expected in losses[:3]:
        again, terms = step(again, batch)
        assert {name: float(value) for name, value in terms.items()} == expected
    assert len(traces) == 1


def test_the_average_lies_between_old_and_new_parameters(steps):
    step, start, batch, _ = steps
    assert_same_bytes(start.averaged, start.params)
    state, _ = step(copy(start), batch)
    trees = start.params, state.params, state.averaged
    old, new, averaged = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]) for tree in trees)
    share = np.dot(averaged - old, new - old) / np.dot(new - old, new - old)
    assert 0.5 < share < 1  # it follows closely in the beginning
    np.testing.assert_allclose(averaged, old + share * (new - old), atol=1e-6)
    assert not any(jax.tree.leaves(jax.tree.map(np.array_equal, state.batch_stats, start.batch_stats)))


def test_every_step_draws_its_own_augmentation(steps):
    step, start, batch, _ = steps
    losses = {float(step(copy(start).replace(step=jnp.int32(number)), batch)[1]["loss"]) for number in (0, 1, 7)}
    assert len(losses) == 3


def test_statistics_are_made_anew_for_the_averaged_parameters(make, cohort, tmp_path):
    """A long series of batches leaves no trace of the statistics before, and looks at the averaged parameters alone."""
    config = make("statistics")
    case = reading.find_cases(str(cohort), "")[0]
    samples = cache.preprocessed(case, crop=config.model.crop, spacing=1.5, cache_dir=tmp_path)
    batches = [Batches(samples, 2, 1, 0)[step] for step in range(2)] * 60
    state = stepping.init_state(config)
    state = state.replace(params=jax.tree.map(lambda x: x + 1, state.params))
    odd = state.replace(batch_stats=jax.tree.map(lambda x: x + 3, state.batch_stats))
    found, same = (stepping.recalibrated(config, start, iter(batches)) for start in (state, odd))
    for a, b, before in zip(*(jax.tree.leaves(x.batch_stats) for x in (found, same, state)), strict=True):
        np.testing.assert_allclose(a, b, atol=3 * 0.95**120 * 1.01 + 1e-5)
        assert not np.allclose(a, before, atol=1e-3)
    assert_same_bytes(found.replace(batch_stats=state.batch_stats), state)
    moved = stepping.recalibrated(config, state.replace(averaged=state.params), iter(batches))
    assert not np.allclose(*(np.concatenate(list(map(np.ravel, jax.tree.leaves(x.batch_stats)))) for x in (found, moved)))


def test_a_large_gradient_is_clipped():
    config = Config.make(optimizer="sgd", clip_norm=1.0, **STEADY).train
    optimizer = make_optimizer(config)
    params = {"w": jnp.zeros(2)}
    large, unit = ({"w": jnp.array([0.6, 0.8]) * size} for size in (1e6, 1))
    updates = [optimizer.update(g, optimizer.init(params), params)[0]["w"] for g in (large, unit)]
    np.testing.assert_allclose(*updates, rtol=1e-6)
    free = make_optimizer(Config.make(optimizer="sgd", clip_norm=0.0, **STEADY).train)
    np.testing.assert_allclose(free.update(large, free.init(params), params)[0]["w"], 1e6 * updates[1], rtol=1e-6)


@pytest.mark.parametrize("schedule", ["cosine", "constant", "polynomial", "exponential"])
@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_every_optimizer_and_schedule_warms_up_and_descends(optimizer, schedule):
    config = Config.make(optimizer=optimizer, schedule=schedule, steps=40, warmup_steps=3, learning_rate=0.05).train
    transform = make_optimizer(config)
    w, state, path = {"w": jnp.array([1.0])}, transform.init({"w": jnp.array([1.0])}), []
    for _ in range(40):
        updates, state = transform.update({"w": w["w"]}, state, w)
        w = optax.apply_updates(w, updates)
        path.append(w["w"].item())
    assert path[0] == 1  # the warm-up starts from 0
    assert abs(path[-1]) < 0.7 and np.all(np.isfinite(path))


# --- the loop ---


def test_a_run_leaves_a_folder_that_explains_itself(whole):
    config, state = whole
    assert Config.from_json((folder(config) / "config.json").read_text()) == config
    split = json.loads((folder(config) / "split.json").read_text())
    assert len(split["train"]) == len(split["val"]) == 2
    assert json.loads((folder(config) / "orientation.json").read_text()) == {"codes": {"RAS": 2}, "scaled": True}  # as the phantom is written
    assert [line["step"] for line in lines(config) if "loss" in line] == [1, 2, 3, 4]
    assert [line["step"] for line in lines(config) if "dice_mean" in line] == [2, 4]
    assert_same_bytes(checkpoints.restore(folder(config)).averaged, jax.tree.map(np.asarray, state.averaged))


def test_two_trainings_give_the_same_bytes(whole, make):
    config = make("twin")
    assert_same_bytes(loop.train(config), whole[1])
    assert lines(config) == lines(whole[0])


def test_resumed_is_uninterrupted(whole, make, monkeypatch):
    class Killed(BaseException):
        pass

    config, update = make("resumed"), loop.Progress.update

    def kill(self, done, loss=None):
        if self.unit == "step" and done == 3:
            raise Killed  # step 3 is logged, step 2 is kept
        update(self, done, loss)

    monkeypatch.setattr(loop.Progress, "update", kill)
    with pytest.raises(Killed):
        loop.train(config)
    assert lines(config)[-1]["step"] == 3
    monkeypatch.undo()
    read = []
    iterate = Batches.iterate
    monkeypatch.setattr(loop.Batches, "iterate", lambda self, *span: read.append(span) or iterate(self, *span))
    assert_same_bytes(loop.train(config), whole[1])
    assert read == [(2, 4)]
    assert lines(config) == lines(whole[0])


def test_the_last_checkpoint_has_the_recalibrated_statistics(whole, make):
    config, plain = whole
    again = make("recalibrated", recalibration=3)
    state = loop.train(again)
    assert_same_bytes(state.averaged, plain.averaged)
    assert not all(jax.tree.leaves(jax.tree.map(np.array_equal, state.batch_stats, plain.batch_stats)))
    assert_same_bytes(checkpoints.restore(again.train.workdir).batch_stats, jax.device_get(state.batch_stats))
    assert_same_bytes(loop.train(again), state)  # not once more


def test_a_finished_run_is_left_as_it_is(whole):
    config, state = whole
    before = lines(config)
    assert_same_bytes(loop.train(config), state)
    assert lines(config) == before


def test_all_train_and_nobody_validates(make):
    config = make("everybody", split_by="none", recalibration=2)
    experiment.run(config)
    state = checkpoints.restore(folder(config))
    split = json.loads((folder(config) / "split.json").read_text())
    assert len(split["train"]) == 4 and split["val"] == [] and int(state.step) == 4
    assert not any("dice_mean" in line for line in lines(config))
    assert "unsure" in json.loads((folder(config) / "doubts.json").read_text())
    assert "4 train; 0 val" in (folder(config) / "report.md").read_text()
    before = (folder(config) / "metrics.jsonl").read_bytes()
    assert_same_bytes(loop.train(config).variables, state.variables)  # finished: statistics are not made once more
    assert (folder(config) / "metrics.jsonl").read_bytes() == before
    with pytest.raises(UserError, match="--split=val: in this training nobody validated; give --split=test"):
        judging.evaluate(folder(config))
    with pytest.raises(UserError, match="--checkpoint=best: no checkpoint of .* tells of a validation"):
        checkpoints.restore(folder(config), "best")


def test_another_seed_starts_from_other_kernels(make):
    one, other = (stepping.init_state(make("seed", seed=seed)).params for seed in (0, 1))
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(other), strict=True):
        assert np.array_equal(a, b) != (path[-1].key == "kernel")


def test_fine_tuning_starts_from_the_averaged_parameters(whole, make):
    config, trained = whole
    fresh = stepping.init_state(make("tuned"))
    state = loop.start_from(config.train.workdir, copy(fresh))
    assert int(state.step) == 0
    for part in (state.params, state.averaged):
        assert_same_bytes(part, trained.averaged)
    assert_same_bytes(state.batch_stats, trained.batch_stats)
    assert_same_bytes(state.opt_state, fresh.opt_state)
    state.params["Conv_0"] = {}
    with pytest.raises(UserError, match="is a different network: give the model flags that it was trained with."):
        loop.start_from(config.train.workdir, state)
