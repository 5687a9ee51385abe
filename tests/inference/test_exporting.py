"""A model in a file gives the same labels in a process that cannot import the package."""

import json
import os
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from places import ROOT

from ica_unet_jax.data.nifti import read_volume, spacing_of
from ica_unet_jax.errors import UserError
from ica_unet_jax.inference import exporting, segmenters
from ica_unet_jax.portable import model_file, runtimes
from ica_unet_jax.runtime import packages

PAGE = ROOT / "docs" / "streaming.md"


@pytest.fixture(scope="module")
def cine(cohort):
    return cohort / "patient001" / "patient001_4d.nii.gz"


def test_the_documents_loader_gives_the_same_labels_without_the_package(tiny_run, cine, tmp_path):
    exporting.export(tiny_run, cine, tmp_path / "model.zip", platforms=("cpu", "cuda"))
    frames, image = read_volume(cine)
    segmenter = segmenters.load(tiny_run)
    np.save(tmp_path / "frames.npy", frames)
    script = (
        "import sys; sys.modules['ica_unet_jax'] = None\n"
        "import numpy; frames = numpy.load('frames.npy')\n" + loader("zipfile") + "numpy.save('labels.npy', labels)\n"
        "frame = encode(frames[0]); numpy.save('first.npy', decode(frame, frame, encode(frames[1])))\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    labels = segmenter.segment_cine(frames, spacing_of(image))
    np.testing.assert_array_equal(np.load(tmp_path / "labels.npy"), labels[1])
    np.testing.assert_array_equal(np.load(tmp_path / "first.npy"), labels[0])
    assert len(np.unique(labels)) > 1

    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        metadata = json.loads(archive.read("metadata.json"))
    assert metadata["shape"] == [2, 64, 64] and metadata["spacing_mm"] == pytest.approx([10, 1.5, 1.5])
    assert metadata["classes"] == {"0": "background", "1": "RV", "2": "MYO", "3": "LV"}
    assert metadata["neighbours"] == "both" and metadata["platforms"] == ["cpu", "cuda"]
    assert metadata["config"] == json.loads(segmenter.config.to_json()) and metadata["checkpoint_step"] == 2


def loader(word):
    """The block of Python in the document that has this word."""
    return next(block for block in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.S | re.M) if word in block)


@pytest.mark.parametrize("runtime", ["onnxruntime", pytest.param("openvino", marks=pytest.mark.slow)])
def test_an_onnx_file_needs_a_runtime_and_numpy_alone(tiny_run, cine, tmp_path, runtime):
    if runtime not in runtimes.at_hand():
        pytest.skip(f"needs {runtime}")
    exporting.export(tiny_run, cine, tmp_path / "model.onnx", format="onnx")
    frames, image = read_volume(cine)
    np.save(tmp_path / "frames.npy", frames)
    begin = "" if runtime == "onnxruntime" else "for _ in range(2):\n    push(frames[0])\nlabels = [np.copy(push(frame)) for frame in frames]\n"
    script = (
        "import sys; sys.modules |= dict.fromkeys(('jax', 'onnx', 'ica_unet_jax'))\n"
        "import numpy; frames = numpy.load('frames.npy')\n" + loader(f"np, {runtime}") + begin + "labels = labels[1:] + [push(frames[-1])]\n"
        "numpy.save('labels.npy', labels)\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = segmenters.load(tiny_run).segment_cine(frames, spacing_of(image))  # frame t is answered with frame t+1
    assert (np.load(tmp_path / "labels.npy") == expected).mean() > 0.9999 and len(np.unique(expected)) > 1


def test_an_onnx_file_tells_what_it_is(tiny_run, cine, tmp_path):
    onnx = pytest.importorskip("onnx")
    assert exporting.export(tiny_run, cine, tmp_path / "model.onnx", format="onnx") in (None, pytest.approx(1, abs=1e-4))
    metadata, _ = model_file.read(tmp_path / "model.onnx")
    segmenter = segmenters.load(tiny_run)
    assert metadata["shape"] == [2, 64, 64] and metadata["neighbours"] == "both" and metadata["begin"] == 2
    assert metadata["config"] == json.loads(segmenter.config.to_json()) and metadata["checkpoint_step"] == 2
    assert metadata["weights_sha256"] == exporting.digest(segmenter.variables)
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)


def test_an_unknown_format_is_refused(tmp_path, cine):
    with pytest.raises(UserError, match="--format=torch is not known: choose one of jax, onnx"):
        exporting.export(tmp_path, cine, tmp_path / "model.pt", format="torch")


def test_without_onnx_it_is_said_before_anything_is_done(tmp_path, cine, monkeypatch):
    monkeypatch.setattr(packages, "missing", list)
    with pytest.raises(UserError, match=r'--format=onnx needs onnx: pip install "ica-unet-jax\[onnx\]"'):
        exporting.export(tmp_path, cine, tmp_path / "model.onnx", format="onnx")


def test_an_unknown_platform_is_refused(tmp_path, cine):
    with pytest.raises(UserError, match="--platforms=cpu,gpu: gpu is not known; choose of cpu, cuda, tpu"):
        exporting.export(tmp_path, cine, tmp_path / "model.zip", platforms=("cpu", "gpu"))
