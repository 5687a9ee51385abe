"""The networks by name: what the launch files say, what the controls are, and runs that were made before."""

import csv
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from places import ROOT
from tiny import frames, normal, tiny, variables

from ica_unet_jax.benchmarking import work
from ica_unet_jax.config import Config, LossConfig, ModelConfig, unread
from ica_unet_jax.data.phantom import beating_heart
from ica_unet_jax.evaluation import judging
from ica_unet_jax.inference import segmenters
from ica_unet_jax.labels import STRUCTURES
from ica_unet_jax.models.ica import local_windows
from ica_unet_jax.models.layers import Upsample3d, coarser
from ica_unet_jax.models.mixing import mix
from ica_unet_jax.models.networks import build_model
from ica_unet_jax.runs import run_folder
from ica_unet_jax.runtime import launch_files
from ica_unet_jax.training.optimizers import kernels

LAUNCH, OLD = ROOT / "launch", ROOT / "tests" / "old_runs"


def launched(*names):
    settings = {}
    for name in names:
        settings |= launch_files.read(LAUNCH / f"{name}.flags")
    return Config.make(**settings)


# --- launch files ---

@pytest.mark.parametrize("name", ["acdc", "paper_n4", "paper_n3"])
def test_every_setting_of_network_and_loss_stands_under_printed_or_ours(name):
    text = (LAUNCH / f"{name}.flags").read_text()
    printed, *ours = text.split("# Ours")
    assert "# Printed in the paper." in printed and ours
    named = launch_files.read(LAUNCH / f"{name}.flags")
    known = {*ModelConfig.__dataclass_fields__, *LossConfig.__dataclass_fields__} - unread(Config().flat())
    assert not known - set(named)
    assert text.count("--ica_weight=") == 1  # once each
    values = dict(bases=32, projection_width=4, alpha=0.75, ica_weight=0.2, auxiliary_weight=0.1, norm="batch", neighbours="both")
    assert {key: named[key] for key in values} == values
    assert all(f"--{key}=" in printed for key in values)


def test_the_literal_network_has_none_of_our_departures():
    config = launched("paper_n4")
    model, loss = config.model, config.loss
    assert model.bases_from == "frame" and model.decoder_size == "full" and model.concatenation_over == "all"
    assert not (model.mixing_scale or model.upsample_norm or model.concatenation_skip or model.expanding_convs or model.signed_coefficients)
    assert loss.dice_weight == 0 and model.neighbour_gradients
    assert launched("paper_n3").diff(config) == {"contracting_blocks": 3, "learning_rate": 4e-3}


@pytest.mark.parametrize("control", ["no_ica", "no_mixing"])
def test_a_control_has_as_many_parameters_and_no_ica_loss(control):
    config = launched("acdc", control)
    assert work.parameters(config.model) == pytest.approx(work.parameters(launched("acdc").model), rel=2e-3)
    assert config.loss.ica_weight == 0 and not config.model.has_bases


RIVALS = sorted(path.stem for path in (LAUNCH / "baselines").glob("*.flags"))


@pytest.mark.parametrize("rival", RIVALS)
def test_a_rival_differs_from_acdc_in_network_width_and_learning_rate_alone(rival):
    changed = set(launched("acdc", f"baselines/{rival}").diff(launched("acdc")))
    assert changed <= {"model", "width_multiplier", "unet_width", "span", "learning_rate"} and "model" in changed


# --- controls ---


def test_upsampling_by_one_kernel_is_mixing_with_bases_that_do_not_overlap():
    a = normal(0, 1, 2, 16, 16, 3)
    module = Upsample3d(2, (2, 4))
    params = module.init(jax.random.key(0), a)
    kernel = params["params"]["kernel"].reshape(3, 2, 4, 4, 2)  # basis, 2x4x4 voxels, channel
    d = 4  # a patch of h/16 = 4 rows is as large as the voxels of a coefficient; in depth it is longer
    bases = jnp.zeros((1, d, 4, 4, 2, 3)).at[0, d // 2 - 1 : d // 2 + 1].set(kernel.transpose(1, 2, 3, 4, 0))
    np.testing.assert_allclose(module.apply(params, a), mix(a, bases), atol=1e-5)


def test_without_mixing_the_decoders_see_frame_and_correlations_alone():
    config = tiny(mixing="none", decoder_frame=True, neighbour_gradients=True)
    model, values = build_model(config), variables(config)
    assert not any(part in values["params"].get("backbone", {}) for part in ("expand_1", "join_1"))
    before, frame, after, valid = frames(config)

    def finest(before):
        return model.apply(values, before, frame, after, valid)[0][-1].sum()

    assert np.any(jax.jit(jax.grad(finest))(before) != 0)  # through the correlations


def test_the_decoder_sees_the_frame_itself():
    config = tiny(mixing="upsampled", decoder_frame=True, neighbours="none")
    model, values = build_model(config), variables(config)
    before, frame, after, valid = frames(config)
    features = model.apply(values, frame, valid, method=model.encode)
    logits, _ = model.apply(values, {}, features, method=model.decode)
    other, _ = model.apply(values, {}, features._replace(frame=features.frame + 1), method=model.decode)
    assert np.abs(logits[-1] - other[-1]).max() > 1e-3
    streamed, _ = model.apply(values, before, frame, after, valid)
    np.testing.assert_allclose(streamed[-1], logits[-1], atol=1e-5)


# --- what a training begins with, and what decays ---


def test_64_bases_begin_with_as_many_patterns():
    windows = np.asarray(local_windows(jax.random.key(0), (8, 8, 8, 1, 64), True)).reshape(-1, 64)
    windows = windows / np.linalg.norm(windows, axis=0)
    assert np.linalg.matrix_rank(windows, tol=1e-3) == 64
    assert np.abs(windows.T @ windows - np.eye(64)).max() < 0.95  # none is nearly another


def test_32_bases_begin_with_the_cosine_transform_of_a_coefficients_voxels():
    """Triangles twice as wide as the 2x4x4 voxels, times the cosines of whole frequencies, the slowest first."""
    drawn = np.asarray(local_windows(jax.random.key(0), (8, 8, 8, 1, 32), True))[:, :, :, 0]
    blocks = (2, 4, 4)
    order = sorted(np.ndindex(blocks), key=lambda f: (sum((i / n) ** 2 for i, n in zip(f, blocks, strict=True)), f))
    x = np.arange(8) - 3.5
    for b, frequencies in enumerate(order):
        axes = [np.clip(1 - np.abs(x) / n, 0, None) * np.cos(np.pi * f * (x + n / 2) / n) for f, n in zip(frequencies, blocks, strict=True)]
        pattern = np.einsum("z,y,x->zyx", *axes)
        size = (drawn[..., b] * pattern).sum() / np.square(pattern).sum()
        assert size != 0
        np.testing.assert_allclose(drawn[..., b], size * pattern, atol=1e-6)


def test_kernels_alone_decay():
    tree = {"params": {"conv": {"kernel": 1, "bias": 1}, "norm": {"scale": 1}, "dictionary": {"bases": 1}, "frame_scale": 1}}
    decayed = {"params": {"conv": {"kernel": True, "bias": False}, "norm": {"scale": False}, "dictionary": {"bases": False}, "frame_scale": False}}
    assert kernels(tree) == decayed
    network = kernels(variables(tiny())["params"])
    assert not network["encoder"]["frame_scale"] and not network["encoder"]["dictionary"]["bases"]
    assert any(jax.tree.leaves(network))


def test_a_cell_of_a_coarser_mask_is_valid_where_any_voxel_is():
    valid = jnp.zeros((1, 4, 4, 4, 1)).at[0, 3, 0, 3].set(1)
    np.testing.assert_array_equal(coarser(valid, (2, 2, 2))[0, ..., 0], [[[0, 0], [0, 0]], [[0, 1], [0, 0]]])


# --- runs of an earlier version, whose config.json lacks what came later ---


@pytest.mark.parametrize("name", ["ica_unet", "unet3d", "ensemble_unet"])
def test_an_old_run_evaluates_and_predicts_as_it_did(name, tmp_path):
    """Checkpoints, config and cases.csv of an earlier version: the same labels."""
    run = tmp_path / name
    shutil.copytree(OLD / name, run)
    before = json.loads((run / "config.json").read_text())
    assert "masked_statistics" not in before
    config = run_folder.read_config(run)
    assert not config.model.masked_statistics and config.model.expanding_kernels == "below" and config.train.decay_everything
    cohort = tmp_path / "cohort"
    beating_heart.write_cohort(cohort, before["phantom_patients"], shape=tuple(before["phantom_shape"]))
    out = judging.evaluate(run, data_dir=cohort, cines=0, pictures=False)

    def dice(path):
        with path.open() as file:
            return [[float(row[f"dice_{name}"]) for name in STRUCTURES] for row in csv.DictReader(file)]

    # The tests compile without optimization, and a network after six steps has many voxels that are nearly of two classes.
    np.testing.assert_allclose(dice(out / "cases.csv"), dice(OLD / name / "expected_cases.csv"), atol=2e-3)
    cine = np.random.default_rng(0).gamma(2, 100, (2, 2, 70, 66))
    assert segmenters.load(run).segment_cine(cine, (10.0, 1.5, 1.5)).shape == cine.shape
