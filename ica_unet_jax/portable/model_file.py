"""A model in an ONNX file, as `export --format=onnx` writes it: read, checked, and run frame by frame.

A step of a stream takes a frame and the state, and gives labels and the next state. `begin` in the metadata says how often the
first frame of a cine is given before the labels count: it is its own past. Where the network looks at the frame after (`waits` is
1), the labels are of the frame before, and the last frame is given once more.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ica_unet_jax.errors import UserError
from ica_unet_jax.portable import runtimes
from ica_unet_jax.runtime import packages
from ica_unet_jax.runtime.files import replacing

VERSION = "1"  # of what the names of inputs, outputs and metadata mean


def check_onnx() -> None:
    """Raises UserError where ONNX models cannot be written or read here."""
    packages.require("--format=onnx", "onnx", ("onnx",))


def write(target: str | Path, step: Any, metadata: dict[str, Any]) -> None:
    """Writes a `network.Step` with its metadata, values as JSON."""
    import onnx

    told = metadata | {"format": VERSION, "begin": step.begin, "waits": step.waits}
    onnx.helper.set_model_props(step.model, {name: value if isinstance(value, str) else json.dumps(value) for name, value in told.items()})
    with replacing(target) as temporary:
        Path(temporary).write_bytes(step.model.SerializeToString())


class Model:
    """A model in a file, ready to segment a stream.

    Args:
      path: as `export --format=onnx` wrote it.
      runtime: openvino, onnxruntime, or auto: which of them is installed, in this order.
      compute_dtype: float32 or bfloat16.

    Raises:
      UserError: no such file, no such model, one of another version, or a runtime that is missing.
    """

    def __init__(self, path: str | Path, *, runtime: str = runtimes.AUTO, compute_dtype: str = "float32"):
        self.metadata, written = read(path)
        self.runtime = _runtime(runtime, compute_dtype)
        self.shape: tuple[int, ...] = tuple(self.metadata["shape"])
        self.waits: int = self.metadata["waits"]  # later frames without which a frame is not answered
        graph = written.graph
        self._names = [x.name.removeprefix("next_") for x in graph.output[1:]]
        shapes = {x.name: [dim.dim_value for dim in x.type.tensor_type.shape.dim] for x in graph.input}
        self._empty = {name: np.zeros(shapes[name], np.float32) for name in self._names}
        self._run = runtimes.compiled(written.SerializeToString(), self.runtime, compute_dtype)
        self.reset()

    def reset(self) -> None:
        """Forgets all frames: the next is the first of a cine."""
        self._state, self._last = dict(self._empty), None

    def push(self, frame: np.ndarray) -> np.ndarray | None:
        """Takes a frame (s, h, w) of a stream; gives labels (s, h, w) uint8, of this frame or, where it waits, of the one before.

        Raises UserError for a frame of another shape.
        """
        frame = np.ascontiguousarray(frame, np.float32)
        if frame.shape != self.shape:
            raise UserError(f"The frame has the shape {frame.shape}, the model takes {self.shape}: export it with --like=IMAGE of these frames.")
        first = self._last is None
        for _ in range(self.metadata["begin"] if first else 0):
            self._step(frame)
        self._last = frame
        return None if first and self.waits else self._step(frame)

    def flush(self) -> np.ndarray | None:
        """Ends the cine: the labels of the frame that waits for a later one, if one does."""
        labels = self._step(self._last) if self.waits and self._last is not None else None
        self.reset()
        return labels

    def _step(self, frame: np.ndarray) -> np.ndarray:
        labels, *state = self._run({"frame": frame, **self._state})
        self._state = dict(zip(self._names, state, strict=True))
        return labels


def read(path: str | Path) -> tuple[dict[str, Any], Any]:
    """(metadata, the ONNX model) of a file. Raises UserError where it is no such file, or one of another version."""
    check_onnx()
    import google.protobuf.message
    import onnx

    try:
        model = onnx.load_model_from_string(Path(path).read_bytes())
        onnx.checker.check_model(model)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): name a file that export --format=onnx wrote.") from error
    except (google.protobuf.message.DecodeError, onnx.checker.ValidationError) as error:
        raise UserError(f"{path} is no ONNX model, or is damaged: write it again with export --format=onnx.") from error
    told = {x.key: x.value for x in model.metadata_props}
    if told.get("format") != VERSION:
        kind = "no model of this package" if "format" not in told else f"a model of format {told['format']}, and this version reads {VERSION}"
        raise UserError(f"{path} is {kind}: write it again with export --format=onnx.")
    texts = ("format", "neighbours", "checkpoint", "weights_sha256")
    return {name: value if name in texts else json.loads(value) for name, value in told.items()}, model


def _runtime(asked: str, dtype: str) -> str:
    if asked == runtimes.JAX:
        raise UserError("--runtime=jax: an ONNX model runs under openvino or onnxruntime; take one of these, or auto.")
    there = [name for name in ("openvino", "onnxruntime") if name in runtimes.at_hand()]
    if asked == runtimes.AUTO and not there:
        raise UserError('An ONNX model needs a runtime: pip install "ica-unet-jax[realtime]" or "ica-unet-jax[onnx]".')
    return runtimes.choose(there[0] if asked == runtimes.AUTO else asked, dtype)
