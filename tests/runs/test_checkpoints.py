"""The two latest states and the best one are kept, whole."""

import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ica_unet_jax.errors import UserError
from ica_unet_jax.runs import checkpoints
from ica_unet_jax.runs.checkpoints import Checkpoints, State


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
    with pytest.raises(UserError, match="holds no finished checkpoint: train there first, or name another run folder."):
        checkpoints.restore(tmp_path)
    (tmp_path / "checkpoints" / "60.orbax-checkpoint-tmp").mkdir(parents=True)
    with pytest.raises(UserError, match="holds no finished checkpoint"):
        checkpoints.restore(tmp_path)


def test_a_state_without_validation_is_kept_as_the_latest_and_never_best(saved, tmp_path):
    saved.save(state(60))
    assert steps(tmp_path) == {20, 50, 60} and (saved.latest_step(), saved.best_step()) == (60, 20)
    assert saved.validated(50) and not saved.validated(60)
    saved.save(state(60), 0.95)  # its validation came later
    assert saved.validated(60) and saved.best_step() == 60
    assert int(saved.restore(state(0)).step) == 60


def files_of(folder, step):
    return sorted(path for path in (folder / "checkpoints" / str(step)).rglob("*") if path.is_file())


def test_a_damaged_checkpoint_is_passed_over_whatever_the_damage(saved, tmp_path, capfd):
    """A bit flipped, cut, emptied or gone, in any of its files: the values of step 40, and a sentence, no traceback."""
    saved.close()
    rng = random.Random(0)
    files = [path for path in files_of(tmp_path, 50) if path.stat().st_size]
    for path in files:
        whole = path.read_bytes()
        bit = bytearray(whole)
        bit[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        gone = [] if path.name == checkpoints.DIGESTS else [None]  # without digests: the next test
        for damaged in [bytes(bit), whole[: len(whole) // 2], b"", *gone]:
            path.unlink() if damaged is None else path.write_bytes(damaged)
            back = Checkpoints(tmp_path).restore(state(0))
            told = capfd.readouterr().err
            assert told.startswith(f"{tmp_path}/checkpoints/50 is damaged (") and told.count("\n") == 1
            assert int(back.step) == 40
            np.testing.assert_array_equal(back.params["w"], state(40).params["w"])
            path.write_bytes(whole)
    assert len(files) > 5


def test_without_digests_orbax_has_the_last_word(saved, tmp_path, capfd):
    """Killed between the renaming of a checkpoint and its digests; and damaged as well."""
    saved.close()
    (tmp_path / "checkpoints" / "50" / checkpoints.DIGESTS).unlink()
    assert int(checkpoints.restore(tmp_path).step) == 50
    ruin(tmp_path, 50)
    assert int(checkpoints.restore(tmp_path).step) == 40
    assert "checkpoints/50 is damaged (" in capfd.readouterr().err


def ruin(folder, step, name="manifest.ocdbt"):
    for path in files_of(folder, step):
        if path.name == name:
            path.write_bytes(b"")


def test_a_training_sets_damaged_ones_aside_and_goes_on(saved, tmp_path):
    saved.close()
    ruin(tmp_path, 50)
    ruin(tmp_path, 20, "metrics")  # orbax reads those of all steps before it saves
    again = Checkpoints(tmp_path)
    back = again.restore(state(0))
    assert int(back.step) == 40 and again.set_aside_damaged(40) == [20, 50]
    assert steps(tmp_path) == {40} and (tmp_path / "damaged_checkpoint_50").is_dir()
    again.save(state(50), 0.4)
    assert steps(tmp_path) == {40, 50} and int(again.restore(state(0)).step) == 50
    again.close()


def test_where_none_can_be_read_a_sentence_says_so(saved, tmp_path):
    saved.close()
    for step in (20, 40, 50):
        ruin(tmp_path, step)
    with pytest.raises(UserError, match="holds no checkpoint that can be read: train there again, or name another run folder."):
        checkpoints.restore(tmp_path)


def test_a_damaged_best_sends_to_the_latest(saved, tmp_path, capfd):
    saved.close()
    ruin(tmp_path, 20)
    with pytest.raises(UserError, match="the best checkpoint of .* cannot be read: take the last by --checkpoint=latest."):
        checkpoints.restore(tmp_path, "best")
    assert "going back" not in capfd.readouterr().err
    assert int(checkpoints.restore(tmp_path).step) == 50


def large(step):
    """2 MB that do not compress."""
    value = jax.random.normal(jax.random.key(step), (500, 1000))
    return State(jnp.int32(step), {"w": value}, {"w": value[:1]}, {}, ())


@pytest.mark.parametrize("foreseen", [True, False])
def test_a_full_disk_is_a_sentence_and_the_checkpoints_before_it_stay(small_disk, monkeypatch, foreseen):
    if not foreseen:  # as with a quota
        monkeypatch.setattr(Checkpoints, "_make_sure_of_room", lambda self, state: None)
    kept = Checkpoints(small_disk)
    kept.save(large(1), 0.1)
    kept.save(large(2), 0.1)
    with pytest.raises(UserError, match=r"checkpoint of step 3 cannot be written to .*No space left on device.*\): make room; the one of step 2 is kept."):
        kept.save(large(3), 0.1)
    assert {path.name for path in (small_disk / "checkpoints").iterdir()} == {"1", "2"}  # no remains take up room
    back = Checkpoints(small_disk).restore(large(0))
    np.testing.assert_array_equal(back.params["w"], large(2).params["w"])
