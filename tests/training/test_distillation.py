"""A student learns what its teacher makes of a frame, and no teacher has learnt from those who judge its student."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import entr
from tiny import LOOP, SMALL, assert_same_bytes, copy, folder, lines, normal, variables

from ica_unet_jax.config import Config
from ica_unet_jax.data.augmentation import Batch
from ica_unet_jax.errors import UserError
from ica_unet_jax.labels import UNLABELLED
from ica_unet_jax.models.networks import build_model, init_variables
from ica_unet_jax.runs import run_folder
from ica_unet_jax.sweeps import cross_validation
from ica_unet_jax.training import distillation, loop, stepping

STUDENT = dict(distillation_weight=1.0, neighbours="past")


def batch_of(config, count=2, reach=1):
    """Frames of noise, without ground truth, the last columns padding."""
    valid = np.ones((count, *config.model.crop), np.float32)
    valid[..., -9:] = 0
    return Batch(normal(0, count, 2 * reach + 1, *config.model.crop), jnp.full(valid.shape, UNLABELLED, jnp.uint8), jnp.asarray(valid))


def test_the_best_a_student_can_do_is_to_agree():
    config = Config.make(**SMALL | STUDENT)
    teacher = distillation.own_teacher(config).model
    assert teacher.frames == (-1, 1) and config.model.frames == (-1,)
    values, batch = jax.jit(lambda key: init_variables(teacher, key))(jax.random.key(0)), batch_of(config, reach=2)  # wider than the teacher looks
    outputs, _ = jax.jit(build_model(teacher).apply)(values, *batch.parts(1))
    loss = jax.jit(jax.value_and_grad(distillation.make_loss(config)))
    least, gradient = loss(outputs[-1], batch, values)
    chances = np.asarray(jax.nn.softmax(outputs[-1]), np.float64)[..., :-9, :]
    assert float(least) == pytest.approx(entr(chances).sum(-1).mean(), rel=1e-5)  # its entropy, inside
    np.testing.assert_allclose(gradient, 0, atol=1e-7)
    assert float(loss(outputs[-1] + normal(3, *outputs[-1].shape), batch, values)[0]) > float(least)


def test_without_ground_truth_the_teacher_alone_is_learnt():
    config = Config.make(**LOOP | STUDENT | dict(unet_width=2, batch_size=2, unlabelled=1, schedule="constant", warmup_steps=0))
    batch = batch_of(config)
    step, start = stepping.make_step(config), stepping.init_state(config)
    taught = variables(distillation.own_teacher(config).model)
    after, terms = step(copy(start), batch, taught)
    assert float(terms["cross_entropy_1"]) == 0 and float(terms["loss"]) == pytest.approx(float(terms["distillation"]), rel=1e-6)
    other, _ = step(copy(start), batch, variables(distillation.own_teacher(config).model, seed=1))
    kernels = [np.concatenate([np.ravel(x) for x in jax.tree.leaves(state.params)]) for state in (start, after, other)]
    assert np.any(kernels[0] != kernels[1]) and np.any(kernels[1] != kernels[2])


@pytest.fixture(scope="module")
def student(make, compiled_once):
    """A student of a teacher of its own, of all frames of its patients."""
    config = make("student", **STUDENT, batch_size=2, unlabelled=1)
    return config, loop.train(config)


def test_a_student_trains_its_teacher_first_and_both_only_once(student, make):
    config, state = student
    teacher = run_folder.read_config(folder(config) / "teacher")
    assert teacher.diff(config) == dict(
        neighbours="both", distillation_weight=0.0, unlabelled=0, workdir=str(folder(config) / "teacher"), final_evaluation=False
    )
    plain = make("plain", batch_size=2)
    assert_same_bytes(loop.train(plain).averaged, loop.train(teacher).averaged)
    before = lines(config)
    assert all("distillation" in line for line in before if "loss" in line)
    assert_same_bytes(loop.train(config), state)
    assert lines(config) == before


def test_a_given_teacher_is_the_same_teacher(student, make):
    config, state = student
    given = make("given", **STUDENT, batch_size=2, unlabelled=1, teacher=str(folder(config) / "teacher"))
    assert_same_bytes(loop.train(given), state)
    assert not (folder(given) / "teacher").exists()


def test_a_teacher_has_not_learnt_from_those_who_judge(student, make):
    config, _ = student
    other = make("other", **STUDENT, fold=1, batch_size=2, teacher=str(folder(config) / "teacher"))
    with pytest.raises(UserError, match=r"--teacher=.*teacher has learnt from patient00\d, which is to judge"):
        loop.train(other)
    assert not folder(other).exists()


def test_folds_have_teachers_of_the_same_fold(make):
    config = make("cv", **STUDENT, teacher="teachers")
    assert [cross_validation.of_fold(config, fold).train.teacher for fold in (0, 1)] == ["teachers/fold0", "teachers/fold1"]
    assert cross_validation.of_fold(config.replace(teacher=""), 1).train.teacher == ""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(unlabelled=1), "--unlabelled=1 needs a teacher"),
        (STUDENT | dict(unlabelled=4, batch_size=4), "--unlabelled=4 leaves no labelled frame in --batch_size=4"),
        (STUDENT | dict(model="msu_net", crop=(2, 32, 32)), "--distillation_weight with --model=msu_net"),
    ],
)
def test_what_cannot_be_learnt_so_is_refused(changes, said):
    with pytest.raises(UserError, match=said):
        Config.make(**changes)


def test_a_teacher_of_another_grid_is_refused(student):
    config, _ = student
    given = config.replace(teacher=str(folder(config) / "teacher"), crop=(2, 64, 64), spacing=2.0)
    with pytest.raises(UserError, match="was trained with --crop=2,32,32: give the student the same, not 2,64,64"):
        distillation.teacher_config(given)
    with pytest.raises(UserError, match="--spacing=1.5"):
        distillation.teacher_config(given.replace(crop=(2, 32, 32)))


def test_a_cohort_with_all_frames_labelled_has_none_to_add(make, tmp_path):
    from ica_unet_jax.data.phantom.beating_heart import write_cohort

    write_cohort(tmp_path / "all", patients=4, shape=(2, 64, 64), frames=3, label_every=True)
    with pytest.raises(UserError, match="--unlabelled=1: all frames of the training patients have a ground truth"):
        loop.train(make("all", **STUDENT, batch_size=2, unlabelled=1, data_dir=str(tmp_path / "all")))
