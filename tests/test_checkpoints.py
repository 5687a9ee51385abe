"""The two latest states and the best one are kept, whole."""

import jax.numpy as jnp
import numpy as np
import pytest

from ica_unet_jax import checkpoints
from ica_unet_jax.checkpoints import Checkpoints, State
from ica_unet_jax.errors import UserError


def state(step):
    value = jnp.full(3, step, jnp.float32)
    return State(jnp.int32(step), {"w": value}, {"w": value / 4}, {"mean": value / 8}, ({"count": jnp.int32(step)},))


@pytest.fixture
def saved(tmp_path):
    kept = Checkpoints(tmp_path)
    for step, dice in ((10, 0.1), (20, 0.9), (30, 0.2), (40, 0.3), (50, 0.1)):
        kept.save(state(step), dice)
    yield kept
    kept.close()


def steps(folder):
    return {int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit()}


def test_the_latest_two_and_the_best_are_kept(saved, tmp_path):
    assert steps(tmp_path) == {20, 40, 50}
    assert (saved.latest_step(), saved.best_step()) == (50, 20)


def test_a_state_comes_back_whole(saved, tmp_path):
    back = saved.restore(state(0))
    assert isinstance(back, State) and int(back.step) == 50
    np.testing.assert_array_equal(back.params["w"], [50, 50, 50])
    np.testing.assert_array_equal(back.opt_state[0]["count"], 50)
    for which, step in (("latest", 50), ("best", 20)):
        plain = checkpoints.restore(tmp_path, which)
        assert int(plain.step) == step
        np.testing.assert_array_equal(plain.variables["params"]["w"], np.full(3, step / 4, np.float32))
        np.testing.assert_array_equal(plain.variables["batch_stats"]["mean"], np.full(3, step / 8, np.float32))


def test_a_process_that_goes_on_keeps_what_the_one_before_it_kept(saved, tmp_path):
    saved.close()
    again = Checkpoints(tmp_path)
    again.save(state(60), 0.5)
    assert steps(tmp_path) == {20, 50, 60} and again.best_step() == 20
    again.save(state(70), 0.95)
    assert steps(tmp_path) == {60, 70} and again.best_step() == 70
    again.close()


def test_a_half_written_checkpoint_is_none(saved, tmp_path):
    saved.close()
    (tmp_path / "checkpoints" / "60.orbax-checkpoint-tmp").mkdir()
    assert int(checkpoints.restore(tmp_path).step) == 50


def test_what_holds_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no checkpoints: name the --workdir of a training."):
        checkpoints.restore(tmp_path)
    Checkpoints(tmp_path).close()
    with pytest.raises(UserError, match="holds no finished checkpoint: train there first"):
        checkpoints.restore(tmp_path)
