"""Lowering of what works on each value by itself: JAX's primitives as methods, named after them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import helper

from ica_unet_jax.portable import layout
from ica_unet_jax.portable.graph import Graph
from ica_unet_jax.portable.layout import Atoms, Tensor

Value = Tensor | np.ndarray


def stored(graph: Graph, array: np.ndarray) -> Tensor:
    return layout.fresh(graph.constant(np.asarray(array)), array.dtype, np.shape(array))


class Elementwise:
    """Adds to `graph`."""

    def __init__(self, graph: Graph):
        self.graph = graph

    def made(self, operation: str, x: Tensor, **attributes: Any) -> Tensor:
        return dataclasses.replace(x, name=self.graph.add(operation, [x.name], **attributes))

    def elementwise(self, operation: str, given: Sequence[Value], dtype: Any) -> Tensor:
        """All of one shape; in the order in memory of the one that has most."""
        if operation in ("Mul", "Div") and isinstance(given[1], np.ndarray) and (given[1] == 1).all():
            return given[0]
        if operation == "Mul" and isinstance(given[0], np.ndarray) and (given[0] == 1).all():
            return given[1]
        shape = [max(sizes) for sizes in zip(*(np.shape(x) for x in given if np.shape(x)), strict=True)]
        tensors = layout.alike(self.graph, [layout.broadcast(x, shape) for x in given if isinstance(x, Tensor)])
        first = max(tensors, key=lambda x: layout.size(x.order))
        constants = [x for x in given if isinstance(x, np.ndarray)]
        needed = [atom for x in tensors for atom in x.order] + [atom for x in constants for atom in layout.varying(x, first.axes)]
        missing = [atom for atom in needed if atom not in first.order]
        memory = (*((atom,) for atom in dict.fromkeys(missing)), *first.memory)
        # A tensor that is broadcast along a part of an axis in memory needs that axis divided.
        for x in tensors:
            memory = tuple(part for axis in memory for part in parts(axis, set(x.order)))
        names: list[str | np.ndarray] = []
        rest = iter(tensors)
        for x in given:
            if isinstance(x, Tensor):
                x = next(rest)
                own = tuple(tuple(atom for atom in axis if atom in x.order) for axis in memory)
                names.append(layout.arrange(self.graph, x, own).name)
            else:
                names.append(layout.constant(x, first.axes, memory))
        lies = () if missing else first.lies
        return Tensor(self.graph.add(operation, names), np.dtype(dtype), first.axes, memory, lies)

    def _convert_element_type(self, x: Tensor, *, new_dtype: Any, **_: Any) -> Tensor:
        return self._to(x, new_dtype)

    def _to(self, x: Tensor, dtype: Any) -> Tensor:
        kind = np.dtype(dtype)
        if kind == x.dtype:
            return x
        return dataclasses.replace(self.made("Cast", x, to=helper.np_dtype_to_tensor_dtype(kind)), dtype=kind)

    def _select_n(self, which: Value, *cases: Value) -> Value:
        if isinstance(which, np.ndarray) and (which == which.flat[0]).all():
            return cases[int(which.flat[0])]
        if isinstance(which, np.ndarray) and not which.shape:
            return cases[int(which)]
        otherwise, then = cases
        dtype = next(x.dtype for x in cases)
        return self.elementwise("Where", [which, then, otherwise], dtype)

    def _integer_pow(self, x: Tensor, *, y: int) -> Tensor:
        return self.elementwise("Pow", [x, np.asarray(float(y), x.dtype)], x.dtype)

    def _is_finite(self, x: Tensor) -> Tensor:
        return self.elementwise("LessOrEqual", [self.made("Abs", x), np.asarray(np.finfo(x.dtype).max, x.dtype)], bool)

    def _square(self, x: Tensor) -> Tensor:
        return self.elementwise("Mul", [x, x], x.dtype)

    def _rsqrt(self, x: Tensor, **_: Any) -> Tensor:
        return self.made("Reciprocal", self.made("Sqrt", x))

    def _clamp(self, low: Value, x: Value, high: Value) -> Tensor:
        return self.elementwise("Min", [self.elementwise("Max", [x, low], x.dtype), high], x.dtype)

    def _stop_gradient(self, x: Tensor, **_: Any) -> Tensor:
        return x

    _copy = _name = _stop_gradient

    def _optimization_barrier(self, *given: Tensor) -> list[Tensor]:
        """In memory as the program sees it from here on; what follows moves larger pieces, or fewer."""
        return [layout.regroup(self.graph, layout.arrange(self.graph, x, x.axes), x.axes) for x in given]


def parts(axis: Atoms, there: set[Any]) -> list[Atoms]:
    """An axis in memory, cut where a tensor that has only `there` begins or ceases to be broadcast."""
    parts: list[list[Any]] = []
    for atom in axis:
        if parts and (parts[-1][-1] in there) == (atom in there):
            parts[-1].append(atom)
        else:
            parts.append([atom])
    return [tuple(part) for part in parts] or [()]
