"""A network as ONNX graphs: two, of which one makes a frame's features and the other answers from those of neighbouring frames;
or one, a step of a stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import onnx

from ica_unet_jax.portable import layout, runtimes
from ica_unet_jax.portable.elementwise import Value, stored
from ica_unet_jax.portable.graph import Graph
from ica_unet_jax.portable.layout import Tensor
from ica_unet_jax.portable.lowering import lower
from ica_unet_jax.runtime import compilation

Shape = tuple[int, ...]
Array = jax.ShapeDtypeStruct


class Graphs(NamedTuple):
    """The features of a frame are `encode`'s outputs, and go into `decode` as they are.

    encode: `image0`, `image1`, ... -> `feature0`, `feature1`, ...
    decode: `besides0`, ..., `frame0_feature0`, ..., of each frame in the order of time -> `answer0`, ...; of a frame that it does not
      look at nothing is asked for.
    """

    encode: onnx.ModelProto
    decode: onnx.ModelProto


class Network:
    """Both graphs, compiled by a runtime.

    Args:
      dtype: float32 or bfloat16, in which they compute.
    """

    def __init__(self, graphs: Graphs, runtime: str, dtype: str = "float32"):
        self._graphs, self._runtime, self._dtype = graphs, runtime, dtype
        self._encode, self._decode = (runtimes.compiled(model.SerializeToString(), runtime, dtype) for model in graphs)

    def encode(self, *images: Any) -> list[np.ndarray]:
        """The features of a frame; their shapes are the graph's."""
        return self._encode(_images(images))

    def decode(self, *frames: Sequence[np.ndarray], besides: Sequence[Any] = ()) -> list[np.ndarray]:
        """The answers to the features of frames in the order of time, each of the shape that the function gave it."""
        return self._decode(_given(frames, besides))

    def node_times(self, *images: Any, frames: int, besides: Sequence[Any] = ()) -> tuple[dict[str, float], dict[str, float]]:
        """Milliseconds by kind of node, of `encode` and of `decode` with one frame in the place of all `frames`."""
        given = (_images(images), _given([self.encode(*images)] * frames, besides))
        encode, decode = (
            runtimes.node_times(model.SerializeToString(), self._runtime, self._dtype, x) for model, x in zip(self._graphs, given, strict=True)
        )
        return encode, decode


def _images(images: Sequence[Any]) -> dict[str, Any]:
    return {f"image{i}": image for i, image in enumerate(images)}


def _given(frames: Sequence[Sequence[np.ndarray]], besides: Sequence[Any]) -> dict[str, Any]:
    given = {f"frame{k}_feature{i}": x for k, features in enumerate(frames) for i, x in enumerate(features)}
    return given | {f"besides{i}": x for i, x in enumerate(besides)}


def graphs(
    encode: Callable[..., Any], decode: Callable[..., Any], images: Sequence[Array], frames: int, besides: Sequence[Array] = ()
) -> Graphs:
    """Both functions, traced in their plain form.

    Args:
      encode: arrays like `images` -> features, a tree of arrays.
      decode: arrays like `besides` and `frames` such trees -> a tuple of arrays.

    Raises:
      UserError: a function does something that has no counterpart in ONNX.
    """
    with compilation.plain():
        tree = jax.tree.structure(jax.eval_shape(encode, *images))
        graph = Graph()
        given = [graph.input(f"image{i}", layout.fresh("", x.dtype, x.shape)) for i, x in enumerate(images)]
        features = [_as_it_lies(graph, x) for x in lower(graph, lambda *x: jax.tree.leaves(encode(*x)), *given)]
        for i, feature in enumerate(features):
            graph.output(f"feature{i}", feature)
        encoding = graph.model("encode")

        graph = Graph()
        first = [graph.input(f"besides{i}", layout.fresh("", x.dtype, x.shape)) for i, x in enumerate(besides)]
        given = [[graph.input(f"frame{k}_feature{i}", feature) for i, feature in enumerate(features)] for k in range(frames)]
        _answers(graph, decode, first, tree, given, "answer{}")
        return Graphs(encoding, graph.model("decode"))


def one(function: Callable[..., Any], *inputs: Array) -> onnx.ModelProto:
    """A function of arrays like `inputs` as a graph, `image0`, ... -> `answer0`, ...; traced in its plain form."""
    with compilation.plain():
        graph = Graph()
        given = [graph.input(f"image{i}", layout.fresh("", x.dtype, x.shape)) for i, x in enumerate(inputs)]
        _output(graph, lower(graph, lambda *x: jax.tree.leaves(function(*x)), *given), "answer{}")
        return graph.model("one")


class Step(NamedTuple):
    """A stream's frame as one graph: `frame` and `state0`, ... -> `labels` and `next_state0`, ..., the state of the next call.

    model: the graph.
    begin: so many times the first frame of a cine is given to it before what comes out counts, whatever the state was.
    waits: of so many frames before the newest are the labels.
    """

    model: onnx.ModelProto
    begin: int
    waits: int


def step(
    encode: Callable[..., Any], decode: Callable[..., Any], image: Shape, offsets: Sequence[int]
) -> Step:
    """A stream in one graph; its state are the features of the frames that are needed again, and of them what is needed.

    Args:
      encode: a float32 array of the shape `image`, the newest frame -> its features, a tree of arrays.
      decode: such trees, of the frames t-reach, ..., t+reach -> the answer to t.
      offsets: to t, of the frames that `decode` looks at; where 1 is among them, the newest frame is t+1.

    Raises:
      UserError: a function does something that has no counterpart in ONNX.
    """
    waits, back = int(1 in offsets), -min((0, *offsets))
    reach, kept = max(1, back), back + waits
    with compilation.plain():
        tree = jax.tree.structure(jax.eval_shape(encode, jax.ShapeDtypeStruct(image, np.float32)))
        graph = Graph()
        newest = lower(graph, lambda x: jax.tree.leaves(encode(x)), graph.input("frame", layout.fresh("", np.float32, image)))
        newest = [_as_it_lies(graph, x) if isinstance(x, Tensor) else x for x in newest]

        def of_state(k: int) -> list[Value]:
            return [graph.input(f"state{k}_{i}", x) if isinstance(x, Tensor) else x for i, x in enumerate(newest)]

        held = [*(of_state(k) for k in range(kept)), newest]  # oldest first; t is `waits` before the end
        at = {offset: held[kept - waits + offset] for offset in (*offsets, 0)}
        _answers(graph, decode, [], tree, [at.get(offset, at[0]) for offset in range(-reach, reach + 1)], "labels")
        read = graph.read()
        for k in range(kept):
            for i, x in enumerate(held[k]):
                # Of an older frame less is needed than of the next, which it will be.
                if isinstance(x, Tensor) and any(held[j][i].name in read for j in range(k + 1)):
                    graph.output(f"next_{x.name}", held[k + 1][i])
        return Step(graph.model("step"), kept, waits)


def _answers(
    graph: Graph, decode: Callable[..., Any], besides: Sequence[Tensor], tree: Any, frames: Sequence[Sequence[Value]], name: str
) -> None:
    """Adds what `decode` makes of other tensors and the features of frames; its answers become outputs, in the program's order, {} in `name` their number."""
    count, flat = tree.num_leaves, [x for features in frames for x in features]
    variable = [i for i, x in enumerate(flat) if isinstance(x, Tensor)]

    def answers(*given: jax.Array) -> Any:
        first, given = given[: len(besides)], given[len(besides) :]
        leaves = [x if isinstance(x, Tensor) else jax.numpy.asarray(x) for x in flat]
        for i, x in zip(variable, given, strict=True):
            leaves[i] = x
        return decode(*first, *(jax.tree.unflatten(tree, leaves[k : k + count]) for k in range(0, len(leaves), count)))

    _output(graph, lower(graph, answers, *besides, *(flat[i] for i in variable)), name)


def _output(graph: Graph, found: Sequence[Value], name: str) -> None:
    for i, x in enumerate(found):
        x = x if isinstance(x, Tensor) else stored(graph, x)
        graph.output(name.format(i), layout.arrange(graph, x, x.axes))


def _as_it_lies(graph: Graph, x: Value) -> Tensor:
    """All of a tensor, in the order that a runtime gives it."""
    x = layout.whole(graph, x if isinstance(x, Tensor) else stored(graph, x))
    return layout.arrange(graph, x, tuple((atom,) for atom in x.lies)) if x.lies else x
