"""A network as two ONNX graphs: `encode` makes a frame's features, `decode` answers from those of neighbouring frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import onnx

from ica_unet_jax.portable import layout, runtimes
from ica_unet_jax.portable.graph import Graph
from ica_unet_jax.portable.layout import Tensor
from ica_unet_jax.portable.lowering import lower
from ica_unet_jax.runtime import compilation

Shape = tuple[int, ...]


class Graphs(NamedTuple):
    """The features of a frame are `encode`'s outputs, and go into `decode` as they are.

    encode: `image0`, `image1`, ... -> `feature0`, `feature1`, ...
    decode: `frame0_feature0`, ..., of each frame in the order of time -> `answer0`, ...; of a frame that it does not look at
      nothing is asked for.
    """

    encode: onnx.ModelProto
    decode: onnx.ModelProto


class Network:
    """Both graphs, compiled by a runtime.

    Args:
      dtype: float32 or bfloat16, in which they compute.
    """

    def __init__(self, graphs: Graphs, runtime: str, dtype: str = "float32"):
        self._encode, self._decode = (runtimes.compiled(model.SerializeToString(), runtime, dtype) for model in graphs)

    def encode(self, *images: Any) -> list[np.ndarray]:
        """The features of a frame; their shapes are the graph's."""
        return self._encode({f"image{i}": image for i, image in enumerate(images)})

    def decode(self, *frames: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The answers to the features of frames in the order of time, each of the shape that the function gave it."""
        return self._decode({f"frame{k}_feature{i}": x for k, features in enumerate(frames) for i, x in enumerate(features)})


def graphs(
    encode: Callable[..., Any], decode: Callable[..., Any], images: Sequence[Shape], frames: int, metadata: dict[str, str] | None = None
) -> Graphs:
    """Both functions, traced in their plain form.

    Args:
      encode: float32 arrays of the shapes `images` -> features, a tree of arrays.
      decode: `frames` such trees -> a tuple of arrays.
      metadata: goes into both files.

    Raises:
      UserError: a function does something that has no counterpart in ONNX.
    """
    metadata = metadata or {}
    with compilation.plain():
        tree = jax.tree.structure(jax.eval_shape(encode, *(jax.ShapeDtypeStruct(shape, np.float32) for shape in images)))
        graph = Graph()
        given = [graph.input(f"image{i}", layout.fresh("", np.float32, shape)) for i, shape in enumerate(images)]
        features = [_as_it_lies(graph, x) for x in lower(graph, lambda *x: jax.tree.leaves(encode(*x)), *given)]
        for i, feature in enumerate(features):
            graph.output(f"feature{i}", feature)
        encoding = graph.model("encode", metadata)

        def answers(*leaves: jax.Array) -> tuple[jax.Array, ...]:
            count = len(features)
            return decode(*(jax.tree.unflatten(tree, leaves[i * count : (i + 1) * count]) for i in range(frames)))

        graph = Graph()
        given = [graph.input(f"frame{k}_feature{i}", feature) for k in range(frames) for i, feature in enumerate(features)]
        for i, answer in enumerate(lower(graph, answers, *given)):
            graph.output(f"answer{i}", layout.arrange(graph, answer, answer.axes))
        return Graphs(encoding, graph.model("decode", metadata))


def _as_it_lies(graph: Graph, x: Tensor) -> Tensor:
    """All of a tensor, in the order that a runtime gives it."""
    x = layout.whole(graph, x)
    return layout.arrange(graph, x, tuple((atom,) for atom in x.lies)) if x.lies else x
