"""A weights file gives what its run folder gives, and is refused where it is not what was written."""

import json
import os
import re

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny import assert_same_bytes

from ica_unet_jax.config import Config
from ica_unet_jax.data.nifti import read_volume, spacing_of
from ica_unet_jax.errors import UserError
from ica_unet_jax.evaluation import judging
from ica_unet_jax.inference import segmenters
from ica_unet_jax.inference.exporting import export_weights
from ica_unet_jax.runs import trained
from ica_unet_jax.training import distillation


@pytest.fixture(scope="module")
def weights(tiny_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "mine.safetensors"
    export_weights(tiny_run, path, licence="CC0", names=True)
    return path


def test_weights_are_all_that_a_run_folder_is(tiny_run, weights):
    run, file = trained.find(tiny_run), trained.find(weights)
    assert (file.orientation, file.split) == (run.orientation, run.split)
    assert file.config.model == run.config.model and file.config.train.workdir == "runs/default"
    (before, step), (after, same_step) = run.variables(), file.variables()
    assert step == same_step == 2
    assert_same_bytes(before, after)
    assert file.facts["licence"] == "CC0" and file.facts["weights_sha256"] == trained.digest(before)


def test_nothing_in_a_file_names_a_folder_or_a_command(tiny_run, weights):
    content = weights.read_bytes()
    assert str(tiny_run).encode() not in content and str(tiny_run.parent).encode() not in content
    assert "command" not in trained.find(weights).provenance


def test_patients_have_no_names_unless_these_are_kept(cohort, tiny_run, tmp_path):
    path = tmp_path / "given_away.safetensors"
    export_weights(tiny_run, path)
    assert b"patient00" not in path.read_bytes()
    with pytest.raises(UserError, match="--split=val: this network does not tell who its patients were; give --split=all"):
        judging.evaluate(path, tmp_path / "out", data_dir=str(cohort))
    with pytest.raises(UserError, match="does not tell on whom it was trained"):
        distillation.given_teacher(Config.make(teacher=str(path), distillation_weight=1.0), {"train": [], "val": []})


def test_weights_segment_as_their_run_does(cohort, tiny_run, weights):
    frames, image = read_volume(cohort / "patient001" / "patient001_4d.nii.gz")
    spacing = spacing_of(image)
    expected = segmenters.load(tiny_run).segment_cine(frames, spacing)
    found = segmenters.load(weights)
    np.testing.assert_array_equal(found.segment(frames, spacing), expected)
    np.testing.assert_array_equal(found.segment(frames[0], spacing), found.segment(frames[:1], spacing)[0])


def test_others_may_read_a_file_as_the_umask_has_it(weights):
    umask = os.umask(0)
    os.umask(umask)
    assert weights.stat().st_mode & 0o777 == 0o666 & ~umask


def test_half_weights_are_half_as_large_and_round(tiny_run, weights, tmp_path):
    half = tmp_path / "half.safetensors"
    export_weights(tiny_run, half, half=True)
    assert all(array.dtype == np.float16 for array in load_file(half).values())
    (exact, _), (rounded, _) = trained.find(weights).variables(), trained.find(half).variables()
    for a, b in zip(jax.tree.leaves(exact), jax.tree.leaves(rounded), strict=True):
        assert b.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-7)


def test_a_name_in_the_package_is_found_and_a_folder_goes_before(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(trained, "WEIGHTS", tmp_path)
    (tmp_path / "heart.safetensors").write_bytes(weights.read_bytes())
    assert trained.names() == ["heart"]
    assert trained.find("heart") == trained.weights("heart") == trained.Weights("heart", tmp_path / "heart.safetensors")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "heart").mkdir()
    assert isinstance(trained.find("heart"), trained.Run) and isinstance(trained.weights("heart"), trained.Weights)


def test_a_repository_is_downloaded(weights, tmp_path, monkeypatch):
    """The hub itself is out of reach: its client answers with a folder of this machine."""
    hub = pytest.importorskip("huggingface_hub")
    asked = []

    def snapshot(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    with pytest.raises(UserError, match=re.escape("hf:me/heart holds 0 files of weights where one is expected")):
        trained.find("hf:me/heart")
    (tmp_path / "any.safetensors").write_bytes(weights.read_bytes())
    assert trained.find("hf:me/heart").variables()[1] == 2
    assert asked[-1] == ("me/heart", ["*.safetensors"])
    monkeypatch.setattr(hub, "snapshot_download", lambda name, allow_patterns: 1 / 0)
    with pytest.raises(UserError, match="hf:me/heart cannot be downloaded"):
        trained.find("hf:me/heart")


def changed(path, target, place, value):
    """A copy with another value in its header."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"][place] = json.dumps(value)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    target.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])
    return target


def test_what_is_wrong_with_a_file_is_a_sentence(weights, tmp_path):
    content, path = weights.read_bytes(), tmp_path / "bad.safetensors"
    cut, other = bytearray(content), bytearray(content)
    other[-3] ^= 64
    for bad, said in ((cut[:-100], "is damaged"), (b"no weights", "is damaged"), (b"", "is damaged"), (other, "its weights are not those that were written")):
        path.write_bytes(bad)
        with pytest.raises(UserError, match=said):
            trained.find(path).variables()
    with pytest.raises(UserError, match=re.escape(f"--weights={tmp_path / 'none.safetensors'} is not there")):
        trained.find(tmp_path / "none.safetensors")
    config = trained.find(weights).facts["config"]
    with pytest.raises(UserError, match="describes no network of this version"):
        _ = trained.find(changed(weights, path, "config", config | {"hyperspace": 3})).config
    for place, other in (("orientation", 5), ("orientation", {"x": 1}), ("doubts", {"unsure": "often"}), ("doubts", {"gap": 1}), ("split", [1]), ("split", {"train": 1, "val": []}), ("step", "x")):
        with pytest.raises(UserError, match="holds no weights of this package, or is damaged"):
            _ = trained.find(changed(weights, path, place, other)).facts
    with pytest.raises(UserError, match="its weights do not fit the network"):
        trained.find(changed(weights, path, "config", config | {"bases": 5})).variables()
    with pytest.raises(UserError, match="--checkpoint=best.*leave it out"):
        trained.find(weights).variables("best")
    with pytest.raises(UserError, match=r"name a file that ends in \.safetensors"):
        export_weights(weights, tmp_path / "weights.zip")
