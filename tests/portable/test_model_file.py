"""A model in an ONNX file gives the labels of the network that it was made of, and bad files are told in a sentence."""

import jax
import numpy as np
import pytest
from tiny import SMALL

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from ica_unet_jax.config import Config  # noqa: E402
from ica_unet_jax.errors import UserError  # noqa: E402
from ica_unet_jax.inference import exporting  # noqa: E402
from ica_unet_jax.inference.segmenters import segmenter_of  # noqa: E402
from ica_unet_jax.models.networks import init_variables  # noqa: E402
from ica_unet_jax.portable import model_file, network, runtimes  # noqa: E402
from ica_unet_jax.portable.model_file import Model  # noqa: E402

SPACING = (10.0, 1.4, 1.6)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """{neighbours: (segmenter, file of it)}; frames of (3, 70, 66) voxels, so that nothing fits by chance."""
    known = {}

    def make(neighbours):
        if neighbours not in known:
            config = Config.make(**SMALL | dict(crop=(2, 64, 64), neighbours=neighbours))
            segmenter = segmenter_of(config, jax.jit(lambda key: init_variables(config.model, key))(jax.random.key(0)))
            encode, decode, _ = exporting.step_functions(segmenter, (3, 70, 66), SPACING, exact=True)
            step = network.step(encode, lambda *frames: (decode(*frames),), (3, 70, 66), config.model.frames)
            path = tmp_path_factory.mktemp("models") / "model.onnx"
            model_file.write(path, step, {"shape": [3, 70, 66], "neighbours": neighbours})
            known[neighbours] = segmenter, path
        return known[neighbours]

    return make


@pytest.mark.parametrize("neighbours", ["both", "past", pytest.param("two_past", marks=pytest.mark.slow), pytest.param("none", marks=pytest.mark.slow)])
def test_a_cine_has_the_labels_of_the_segmenter(made, neighbours):
    segmenter, path = made(neighbours)
    frames = np.random.default_rng(0).gamma(2, 100, (5, 3, 70, 66)).astype(np.float32)
    expected = segmenter.segment_cine(frames, SPACING)
    model = Model(path, runtime="onnxruntime")
    for _ in range(2):  # a second cine knows nothing of the first
        found = [*map(model.push, frames), model.flush()]
        assert [labels is None for labels in found] == [model.waits == 1, *[False] * 4, model.waits == 0]
        found = np.stack([labels for labels in found if labels is not None])
        assert found.dtype == np.uint8 and (found == expected).mean() > 0.9999 and len(np.unique(expected)) > 1


def test_it_knows_what_frame_it_takes(made):
    with pytest.raises(UserError, match=r"The frame has the shape \(3, 64, 64\), the model takes \(3, 70, 66\)"):
        Model(made("past")[1]).push(np.zeros((3, 64, 64)))


def test_older_frames_leave_no_more_than_is_needed(made):
    _, model = model_file.read(made("two_past")[1])
    told = [x.name for x in model.graph.output]
    assert told[0] == "labels" and sorted(told[1:]) == sorted(f"next_{x.name}" for x in model.graph.input if x.name != "frame")
    # Of two frames, of the two pairs that three slices make, the coefficients with which the finest resolution is correlated.
    states = [[axis.dim_value for axis in x.type.tensor_type.shape.dim] for x in model.graph.input if x.name != "frame"]
    assert states == [[2, 16, 16, 3]] * 2


def edited(path, folder, **changes):
    model = onnx.load(path)
    kept = {x.key: x.value for x in model.metadata_props} | changes
    onnx.helper.set_model_props(model, {name: value for name, value in kept.items() if value is not None})
    target = folder / "edited.onnx"
    onnx.save(model, target)
    return target


def test_bad_files_are_told(made, tmp_path):
    path = made("past")[1]
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(path.read_bytes()[:-1000])
    text = tmp_path / "text.onnx"
    text.write_text("no model")
    for file, told in {
        tmp_path / "none.onnx": r"none.onnx cannot be read \(No such file or directory\)",
        cut: "cut.onnx is no ONNX model, or is damaged",
        text: "text.onnx is no ONNX model, or is damaged",
        edited(path, tmp_path, format=None): "edited.onnx is no model of this package",
    }.items():
        with pytest.raises(UserError, match=told):
            Model(file)
    with pytest.raises(UserError, match="is a model of format 7, and this version reads 1"):
        Model(edited(path, tmp_path, format="7"))


def test_a_machine_without_a_runtime_says_which_there_are(made, monkeypatch):
    monkeypatch.setattr(runtimes, "at_hand", lambda: ["jax"])
    with pytest.raises(UserError, match=r'An ONNX model needs a runtime: pip install "ica-unet-jax\[realtime\]"'):
        Model(made("past")[1])
    with pytest.raises(UserError, match="--runtime=jax: an ONNX model runs under openvino or onnxruntime"):
        Model(made("past")[1], runtime="jax")
