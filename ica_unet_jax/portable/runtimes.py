"""Which runtime computes a network, and how ONNX Runtime and OpenVINO are asked to."""

from __future__ import annotations

import functools
import importlib
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ica_unet_jax.errors import UserError
from ica_unet_jax.runtime import packages

AUTO, JAX = "auto", "jax"
PORTABLE = {"onnxruntime": "onnx", "openvino": "realtime"}  # and the extra that brings each
RUNTIMES = (AUTO, JAX, *PORTABLE)
Run = Callable[[Mapping[str, Any]], list[np.ndarray]]


def choose(asked: str, dtype: str = "float32") -> str:
    """One of `RUNTIMES` but `auto`, which is OpenVINO where that is installed and the device is a CPU, and JAX elsewhere.

    Args:
      dtype: float32 or bfloat16, in which is computed; `auto` takes JAX where OpenVINO cannot do it on this CPU.

    Raises:
      UserError: it is not installed, runs on CPUs alone and the device is none, or cannot compute in this dtype here.
    """
    if asked == JAX or asked == AUTO and ("openvino" not in at_hand() or not _can(dtype)):
        return JAX
    if asked == AUTO:
        return "openvino"
    packages.require(f"--runtime={asked}", PORTABLE[asked], ("onnx", asked), "take --runtime=auto")
    if asked not in at_hand():
        raise UserError(f"--runtime={asked} computes on CPUs alone, and JAX has another device here: take --runtime=jax, or set JAX_PLATFORMS=cpu.")
    if dtype == "bfloat16" and asked == "onnxruntime":
        raise UserError("--compute_dtype=bfloat16: ONNX Runtime computes in float32 on CPUs; take --runtime=openvino or --compute_dtype=float32.")
    if not _can(dtype):
        raise UserError(f"--compute_dtype={dtype}: this CPU has no units for it, so it would be slower than float32; take --compute_dtype=float32.")
    return asked


def at_hand() -> list[str]:
    """The runtimes that can be taken here."""
    import jax

    on_cpu = jax.default_backend() == "cpu"
    return [JAX, *(name for name in PORTABLE if on_cpu and not packages.missing(("onnx", name)))]


def _can(dtype: str) -> bool:
    """Whether OpenVINO has fast arithmetic of this kind on this CPU."""
    if dtype == "float32":
        return True
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def openvino_module() -> Any:
    """OpenVINO, without its telemetry: a child process that tells the maker of each use, on a machine with patients' data."""
    if "openvino" not in sys.modules:
        known = sys.modules.get("openvino_telemetry")
        sys.modules["openvino_telemetry"] = None  # as if it were not installed
        try:
            importlib.import_module("openvino")
        finally:
            del sys.modules["openvino_telemetry"]
            if known:
                sys.modules["openvino_telemetry"] = known
    return sys.modules["openvino"]


@functools.cache
def _core() -> Any:
    """The one that this process has, for good: each sets a stack for signals, and the end of two leaves one that is freed."""
    return openvino_module().Core()


def compiled(model: bytes, runtime: str, dtype: str = "float32") -> Run:
    """An ONNX model, ready: arrays by the names of its inputs (others are ignored) -> arrays, its outputs in their order.

    Args:
      model: as it is written in a file.
      runtime: one of `PORTABLE`.
      dtype: in which it computes; what goes in and comes out stays as it is.
    """
    return {"onnxruntime": _onnxruntime, "openvino": _openvino}[runtime](model, dtype)


def node_times(model: bytes, runtime: str, dtype: str, given: Mapping[str, Any], calls: int = 20) -> dict[str, float]:
    """Milliseconds of a call in the nodes of each kind, medians of several calls; the kinds are named as the runtime has them."""
    return {"onnxruntime": _onnxruntime_nodes, "openvino": _openvino_nodes}[runtime](model, dtype, given, calls)


def _onnxruntime_session(model: bytes, **changes: Any) -> Any:
    import onnxruntime

    from ica_unet_jax.runtime.compilation import threads

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # a thread that waits takes a core from what comes next
    for name, value in changes.items():
        setattr(options, name, value)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _onnxruntime(model: bytes, dtype: str) -> Run:
    session = _onnxruntime_session(model)
    names = [x.name for x in session.get_inputs()]
    return lambda given: session.run(None, {name: np.asarray(given[name]) for name in names})


def _onnxruntime_nodes(model: bytes, dtype: str, given: Mapping[str, Any], calls: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        session = _onnxruntime_session(model, enable_profiling=True, profile_file_prefix=str(Path(folder) / "nodes"))
        feed = {x.name: np.asarray(given[x.name]) for x in session.get_inputs()}
        for _ in range(calls):
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    found = defaultdict(list)
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            found[event["name"], event["args"]["op_name"]].append(event["dur"] / 1e3)
    return _by_kind(found)


def _openvino_nodes(model: bytes, dtype: str, given: Mapping[str, Any], calls: int) -> dict[str, float]:
    network, names = _openvino_network(model, dtype, PERF_COUNT=True)
    request, found = network.create_infer_request(), defaultdict(list)
    for _ in range(calls):
        request.infer([np.asarray(given[name]) for name in names])
        for node in request.get_profiling_info():
            if node.real_time:
                found[node.node_name, node.node_type].append(1e3 * node.real_time.total_seconds())
    return _by_kind(found)


def _by_kind(nodes: Mapping[tuple[str, str], list[float]]) -> dict[str, float]:
    kinds: dict[str, float] = defaultdict(float)
    for (_, kind), milliseconds in nodes.items():
        kinds[kind] += float(np.median(milliseconds))
    return dict(sorted(kinds.items(), key=lambda item: -item[1]))


def _openvino_network(model: bytes, dtype: str, **changes: Any) -> tuple[Any, list[str]]:
    """The compiled model, and the names of its inputs in their order."""
    from ica_unet_jax.runtime.compilation import threads

    core, precision = _core(), {"float32": "f32", "bfloat16": "bf16"}[dtype]
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads(), "INFERENCE_PRECISION_HINT": precision}
    written = core.read_model(model)
    names = [x.any_name for x in written.inputs]  # compiled, one may have the name of what was done to it
    return core.compile_model(written, "CPU", options | changes), names


def _openvino(model: bytes, dtype: str) -> Run:
    network, names = _openvino_network(model, dtype)
    request, new = network.create_infer_request(), openvino_module().Tensor

    def run(given: Mapping[str, Any]) -> list[np.ndarray]:
        # Written at once to where it stays: what a request keeps for itself the next call writes over.
        found = [new(output.element_type, output.shape) for output in network.outputs]
        for i, tensor in enumerate(found):
            request.set_output_tensor(i, tensor)
        request.infer([np.asarray(given[name]) for name in names], share_inputs=True, share_outputs=True)
        return [tensor.data for tensor in found]

    return run
