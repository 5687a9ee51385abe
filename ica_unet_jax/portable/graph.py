"""An ONNX graph that grows node by node."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ica_unet_jax.portable import layout
from ica_unet_jax.portable.layout import Tensor

OPSET, IR = 18, 10  # what ONNX Runtime and OpenVINO of 2024 and later take


class Graph:
    """Nodes, constants, inputs and outputs of an ONNX graph that grows."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[bytes, onnx.TensorProto] = {}
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.known: dict[tuple[Any, ...], str] = {}

    def add(self, operation: str, inputs: Sequence[str | np.ndarray], *, outputs: int = 1, **attributes: Any) -> Any:
        """Adds a node; gives the name of its output, or those of its `outputs`. The same node is not added twice."""
        names = [name if isinstance(name, str) else self.constant(name) for name in inputs]
        key = (operation, *names, outputs, repr(sorted(attributes.items())))
        if key not in self.known:
            made = [f"{operation}_{len(self.nodes)}_{i}" for i in range(outputs)]
            self.nodes.append(helper.make_node(operation, names, made, name=made[0], **attributes))
            self.known[key] = made[0] if outputs == 1 else made
        return self.known[key]

    def constant(self, array: np.ndarray) -> str:
        array = np.ascontiguousarray(array).reshape(np.shape(array))
        key = repr((array.dtype, array.shape)).encode() + array.tobytes()
        if key not in self.initializers:
            self.initializers[key] = numpy_helper.from_array(array, f"constant_{len(self.initializers)}")
        return self.initializers[key].name

    def input(self, name: str, like: Tensor) -> Tensor:
        """An input with the axes, and in memory the order, of another graph's tensor."""
        self.inputs.append(_described(name, like))
        return dataclasses.replace(like, name=name)

    def output(self, name: str, x: Tensor) -> None:
        self.nodes.append(helper.make_node("Identity", [x.name], [name], name=name))
        self.outputs.append(_described(name, x))

    def read(self) -> set[str]:
        """The names that the outputs are made of."""
        return {name for node in self._needed() for name in node.input}

    def _needed(self) -> list[onnx.NodeProto]:
        """The nodes without which there is no output."""
        wanted, found = {output.name for output in self.outputs}, []
        for node in reversed(self.nodes):
            if wanted & set(node.output):
                wanted |= set(node.input)
                found.append(node)
        return found[::-1]

    def model(self, name: str) -> onnx.ModelProto:
        nodes, read = self._needed(), self.read()
        inputs = [x for x in self.inputs if x.name in read]
        constants = [x for x in self.initializers.values() if x.name in read]
        graph = helper.make_graph(nodes, name, inputs, self.outputs, constants)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR, producer_name="ica_unet_jax")
        onnx.checker.check_model(made, full_check=True)
        return made


def _described(name: str, x: Tensor) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), [int(layout.size(axis)) for axis in x.memory])
