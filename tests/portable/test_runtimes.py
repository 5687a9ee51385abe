"""Which runtime computes a network, what is said where one cannot, and that all give the same labels."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from tiny import SMALL

from ica_unet_jax.config import Config
from ica_unet_jax.errors import UserError
from ica_unet_jax.inference.segmenters import segmenter_of
from ica_unet_jax.models.networks import init_variables
from ica_unet_jax.portable import runtimes
from ica_unet_jax.runtime import packages
from ica_unet_jax.streaming.segmenter import StreamingSegmenter

INSTALLED = {name for name in runtimes.PORTABLE if not packages.missing(("onnx", name))}
here = pytest.mark.parametrize("runtime", [pytest.param(name, marks=pytest.mark.skipif(name not in INSTALLED, reason=f"needs {name}")) for name in runtimes.PORTABLE])


@pytest.fixture
def lacking(monkeypatch):
    """A machine on which these packages are not installed."""

    def lack(*names):
        monkeypatch.setattr(packages, "missing", lambda wanted: [name for name in wanted if name in names])

    return lack


def test_auto_takes_what_there_is(lacking):
    assert runtimes.choose("auto") == ("openvino" if "openvino" in INSTALLED else "jax")
    lacking("openvino")
    assert runtimes.choose("auto") == "jax" and "openvino" not in runtimes.at_hand()


def test_on_a_gpu_auto_is_jax(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert runtimes.choose("auto") == "jax" and runtimes.at_hand() == ["jax"]
    if "openvino" in INSTALLED:
        with pytest.raises(UserError, match="--runtime=openvino computes on CPUs alone"):
            runtimes.choose("openvino")


@pytest.mark.parametrize(("runtime", "extra"), runtimes.PORTABLE.items())
def test_a_missing_extra_is_named(runtime, extra, lacking):
    lacking(runtime)
    with pytest.raises(UserError, match=rf'--runtime={runtime} needs {runtime}: pip install "ica-unet-jax\[{extra}\]"'):
        runtimes.choose(runtime)
    lacking(runtime, "onnx")
    with pytest.raises(UserError, match=f"needs onnx and {runtime}"):
        runtimes.choose(runtime)


@pytest.mark.skipif("openvino" not in INSTALLED, reason="needs openvino")
def test_bfloat16_needs_units_for_it(monkeypatch):
    monkeypatch.setattr(runtimes, "_can", lambda dtype: dtype == "float32")
    assert runtimes.choose("openvino") == "openvino" and runtimes.choose("auto", "bfloat16") == "jax"
    with pytest.raises(UserError, match="--compute_dtype=bfloat16: this CPU has no units for it"):
        runtimes.choose("openvino", "bfloat16")


@pytest.mark.skipif("onnxruntime" not in INSTALLED, reason="needs onnxruntime")
def test_onnx_runtime_has_float32_alone():
    with pytest.raises(UserError, match="ONNX Runtime computes in float32"):
        runtimes.choose("onnxruntime", "bfloat16")


@here
@pytest.mark.parametrize("neighbours", ["past", pytest.param("both", marks=pytest.mark.slow)])
def test_a_stream_gives_the_labels_of_jax(runtime, neighbours):
    config = Config.make(**SMALL | dict(crop=(2, 64, 64), neighbours=neighbours))
    variables = jax.jit(lambda key: init_variables(config.model, key))(jax.random.key(0))
    frames = np.random.default_rng(0).random((4, 2, 70, 66)).astype(np.float32)
    found = {}
    for name in ("jax", runtime):
        stream = StreamingSegmenter(segmenter_of(config, variables, runtime=name), frames.shape[1:], (10.0, 1.5, 1.5))
        results = [*(result for frame in frames for result in stream.push(frame)), *stream.flush()]
        found[name] = np.stack([result.labels for result in results])
    assert found["jax"].shape == frames.shape and (found["jax"] == found[runtime]).mean() > 0.9999


@pytest.mark.slow  # MSU-Net's own graphs take half a minute
@pytest.mark.parametrize("runtime", [pytest.param("openvino", marks=pytest.mark.skipif("openvino" not in INSTALLED, reason="needs openvino")), "onnxruntime"])
def test_a_snippet_has_the_labels_of_jax(runtime):
    """Five frames in snippets of two, with a last one that is filled up."""
    config = Config.make(model="msu_net", span=2, width_multiplier=0.0625, crop=(2, 64, 64))
    variables = jax.jit(lambda key: init_variables(config.model, key))(jax.random.key(0))
    frames, spacing = np.random.default_rng(0).random((5, 3, 70, 66)).astype(np.float32), (10.0, 1.5, 1.5)
    stream = StreamingSegmenter(segmenter_of(config, variables, runtime=runtime), frames.shape[1:], spacing)
    found = [result.labels for results in (*map(stream.push, frames), stream.flush()) for result in results]
    assert (np.stack(found) == segmenter_of(config, variables).segment_cine(frames, spacing)).mean() > 0.9999


@here
def test_a_window_follows_as_in_jax(runtime):
    """Deep stacks, spacings of their own, a window that moves: all of it is in the graphs."""
    config = Config.make(**SMALL | dict(crop=(2, 64, 64), neighbours="both"))
    variables = jax.jit(lambda key: init_variables(config.model, key))(jax.random.key(0))
    shape, spacing = (3, 90, 120), (10.0, 1.4, 1.7)
    streams = [StreamingSegmenter(segmenter_of(config, variables, runtime=name), shape, spacing) for name in ("jax", runtime)]
    frames = np.random.default_rng(0).gamma(2, 100, (6, *shape)).astype(np.float32)
    centre = streams[0].segmenter.place(shape, spacing)
    for number, frame in enumerate(frames):
        for stream in streams:
            stream._window.placement = centre.at(3 * number - 9, 14 * number - 40)
        expected, found = (stream.push(frame) for stream in streams)
        for here, there in zip(expected, found, strict=True):
            assert here.placement == there.placement and (here.labels == there.labels).mean() > 0.9999
            assert len(np.unique(here.labels)) > 1


@pytest.mark.skipif("openvino" not in INSTALLED, reason="needs openvino")
def test_openvino_tells_nobody():
    """Its package starts a process that tells of each use, where that is not hindered."""
    script = (
        "import os, time; from ica_unet_jax.portable import runtimes\n"
        "os.register_at_fork(before=lambda: print('forked'))\n"
        "print(runtimes.openvino_module().Core().available_devices); time.sleep(0.5)"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ | {"CI": "false"})
    assert "CPU" in told.stdout and "forked" not in told.stdout


@pytest.mark.skipif("openvino" not in INSTALLED, reason="needs openvino")
def test_a_signal_is_heard_after_networks_are_gone():
    """OpenVINO gives a thread a stack for signals, which is freed with what made it."""
    script = (
        "import os, signal; from onnx import TensorProto, helper; from ica_unet_jax.portable import runtimes\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it\n"
        "x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in 'xy')\n"
        "graph = helper.make_graph([helper.make_node('Relu', ['x'], ['y'])], 'g', [x], [y])\n"
        "model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=9).SerializeToString()\n"
        "networks = [runtimes.compiled(model, 'openvino') for _ in range(2)]\n"
        "while networks: networks.pop(0)\n"
        "try: os.kill(os.getpid(), signal.SIGINT)\n"
        "except KeyboardInterrupt: print('heard')"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (told.returncode, told.stdout) == (0, "heard\n"), told.stderr
