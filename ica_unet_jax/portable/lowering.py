"""A traced JAX function as an ONNX graph: what depends on no input is computed, each operation that is left becomes a node or two."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import Literal
from onnx import helper

from ica_unet_jax.errors import UserError
from ica_unet_jax.portable import layout
from ica_unet_jax.portable.graph import Graph
from ica_unet_jax.portable.layout import Atoms, Tensor

Value = Tensor | np.ndarray

UNARY = {
    "exp": "Exp", "log": "Log", "tanh": "Tanh", "logistic": "Sigmoid", "sqrt": "Sqrt", "neg": "Neg", "abs": "Abs", "floor": "Floor",
    "round": "Round", "sin": "Sin", "cos": "Cos", "erf": "Erf", "not": "Not", "sign": "Sign",
}  # fmt: skip
BINARY = {
    "add": "Add", "add_any": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max", "min": "Min", "pow": "Pow", "lt": "Less", "gt": "Greater",
    "le": "LessOrEqual", "ge": "GreaterOrEqual", "eq": "Equal", "and": "And", "or": "Or",
}  # fmt: skip
COMPARES = {"lt", "gt", "le", "ge", "eq"}
REDUCES = {"reduce_sum": "ReduceSum", "reduce_max": "ReduceMax", "reduce_min": "ReduceMin", "reduce_prod": "ReduceProd"}
CALLS = ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call", "remat", "checkpoint")


def lower(graph: Graph, function: Callable[..., Any], *arguments: Value) -> list[Value]:
    """Adds what `function` does with the arguments, and gives its results, leaves of the tree, as they come to lie.

    What depends on no tensor of the graph stays an array.

    Raises:
      UserError: it does something for which there is no lowering.
    """
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in arguments]
    closed = jax.make_jaxpr(function)(*shapes)
    return _Lowering(graph).run(closed.jaxpr, closed.consts, arguments)


def stored(graph: Graph, array: np.ndarray) -> Tensor:
    return layout.fresh(graph.constant(np.asarray(array)), array.dtype, np.shape(array))


class _Lowering:
    def __init__(self, graph: Graph):
        self.graph = graph

    def run(self, jaxpr: Any, constants: Sequence[Any], arguments: Sequence[Value]) -> list[Value]:
        values: dict[Any, Value] = dict(zip(jaxpr.constvars, map(np.asarray, constants), strict=True))
        values |= dict(zip(jaxpr.invars, arguments, strict=True))

        def read(variable: Any) -> Value:
            return np.asarray(variable.val, variable.aval.dtype) if isinstance(variable, Literal) else values[variable]

        for equation in jaxpr.eqns:
            given = [read(variable) for variable in equation.invars]
            values |= dict(zip(equation.outvars, self.equation(equation, given), strict=True))
        return [read(variable) for variable in jaxpr.outvars]

    def equation(self, equation: Any, given: list[Value]) -> list[Value]:
        name, parameters = equation.primitive.name, equation.params
        if name in CALLS:
            inner = parameters.get("jaxpr") or parameters["call_jaxpr"]
            if parameters.get("name") == "leaky_relu" and isinstance(given[0], Tensor):
                return [self.made("LeakyRelu", given[0], alpha=float(given[1]))]
            return self.run(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), given)
        if not any(isinstance(x, Tensor) for x in given):
            found = equation.primitive.bind(*map(jax.numpy.asarray, given), **parameters)
            return [np.asarray(x) for x in (found if equation.primitive.multiple_results else [found])]
        method = getattr(self, f"_{name}", None)
        if method is None and name in UNARY:
            return [self.made(UNARY[name], given[0])]
        if method is None and name in BINARY:
            return [self.elementwise(BINARY[name], given, equation.outvars[0].aval.dtype)]
        if method is None and name in REDUCES:
            return [self.reduce(REDUCES[name], given[0], parameters["axes"])]
        if method is None:
            raise UserError(f"This network cannot be written as ONNX: there is no lowering of `{name}`. Export it with --format=jax.")
        found = method(*given, **parameters)
        return found if isinstance(found, list) else [found]

    # What changes no value, or each by itself.

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
            memory = tuple(part for axis in memory for part in _parts(axis, set(x.order)))
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

    # What moves axes: nothing is done until it must be.

    def _reshape(self, x: Tensor, *, new_sizes: Sequence[int], **_: Any) -> Tensor:
        return layout.reshape(self.graph, x, new_sizes)

    def _transpose(self, x: Tensor, *, permutation: Sequence[int]) -> Tensor:
        return dataclasses.replace(x, axes=tuple(x.axes[i] for i in permutation))

    def _squeeze(self, x: Tensor, *, dimensions: Sequence[int]) -> Tensor:
        return dataclasses.replace(x, axes=tuple(axis for i, axis in enumerate(x.axes) if i not in dimensions))

    def _expand_dims(self, x: Tensor, *, dimensions: Sequence[int]) -> Tensor:
        axes = list(x.axes)
        for i in sorted(dimensions):
            axes.insert(i, ())
        return dataclasses.replace(x, axes=tuple(axes))

    def _broadcast_in_dim(self, x: Tensor, *, shape: Sequence[int], broadcast_dimensions: Sequence[int], **_: Any) -> Tensor:
        axes: list[Atoms] = [(layout.Atom(n),) if n > 1 else () for n in shape]
        for i, place in enumerate(broadcast_dimensions):
            if x.shape[i] == shape[place]:
                axes[place] = x.axes[i]
        return dataclasses.replace(x, axes=tuple(axes))

    # What works along an axis.

    def _slice(self, x: Tensor, *, start_indices: Sequence[int], limit_indices: Sequence[int], strides: Sequence[int] | None) -> Tensor:
        for i, (start, stop, step) in enumerate(zip(start_indices, limit_indices, strides or [1] * len(start_indices), strict=True)):
            if (start, stop, step) != (0, x.shape[i], 1):
                x = self._cut(x, i, start, stop, step)
        return x

    def _cut(self, x: Tensor, i: int, start: int, stop: int, step: int) -> Tensor:
        """A slice of one axis; where it begins and ends between its outer atoms, of these alone."""
        inner: Atoms = ()
        for atom in x.axes[i][:0:-1]:
            whole = layout.size((atom, *inner))
            if start % whole or stop % whole or step > 1:
                break
            inner = (atom, *inner)
        outer, unit = x.axes[i][: len(x.axes[i]) - len(inner)], layout.size(inner)
        x = dataclasses.replace(x, axes=(*x.axes[:i], outer, *x.axes[i + 1 :], inner))
        x, place = layout.own_axis(self.graph, x, i)
        limits = (np.array([n], np.int64) for n in (start // unit, stop // unit, place, step))
        x = layout.with_axis(x, i, place, self.graph.add("Slice", [x.name, *limits]), -(-(stop - start) // unit // step))
        return dataclasses.replace(x, axes=(*x.axes[:i], x.axes[i] + x.axes[-1], *x.axes[i + 1 : -1]))

    def _split(self, x: Tensor, *, sizes: Sequence[int], axis: int) -> list[Tensor]:
        ends = np.cumsum([0, *sizes]).tolist()
        whole = [(0, n) for n in x.shape]
        parts = []
        for start, stop in zip(ends, ends[1:], strict=False):
            limits = [*whole[:axis], (start, stop), *whole[axis + 1 :]]
            parts.append(self._slice(x, start_indices=[a for a, _ in limits], limit_indices=[b for _, b in limits], strides=None))
        return parts

    def _rev(self, x: Tensor, *, dimensions: Sequence[int]) -> Tensor:
        for i in dimensions:
            x, place = layout.own_axis(self.graph, x, i)
            limits = (np.array([n], np.int64) for n in (-1, np.iinfo(np.int64).min, place, -1))
            x = layout.with_axis(x, i, place, self.graph.add("Slice", [x.name, *limits]), x.shape[i])
        return x

    def _pad(self, x: Value, fill: Value, *, padding_config: Sequence[tuple[int, int, int]]) -> Tensor:
        if not isinstance(x, Tensor):
            x = stored(self.graph, x)
        if any(inside for *_, inside in padding_config):
            raise UserError("This network cannot be written as ONNX: it pads between values. Export it with --format=jax.")
        cut = [(max(0, -a), n - max(0, -b)) for (a, b, _), n in zip(padding_config, x.shape, strict=True)]
        x = self._slice(x, start_indices=[a for a, _ in cut], limit_indices=[b for _, b in cut], strides=None)
        todo = {i: (max(0, a), max(0, b)) for i, (a, b, _) in enumerate(padding_config) if a > 0 or b > 0}
        if not todo:
            return x
        x = self.alone(x, todo)
        places = {i: x.memory.index(x.axes[i]) if x.axes[i] else None for i in todo}
        for i, place in places.items():
            if place is None:  # an axis of size 1 has a place of its own in memory
                x = layout.regroup(self.graph, x, (*x.memory, ()))
                places[i] = len(x.memory) - 1
        rank = len(x.memory)
        pads = np.zeros((2, rank), np.int64)
        for i, place in places.items():
            pads[:, place] = todo[i]
        name = self.graph.add("Pad", [x.name, pads.ravel(), np.asarray(fill, x.dtype)])
        for i, place in places.items():
            x = layout.with_axis(x, i, place, name, x.shape[i] + sum(todo[i]))
        return x

    def _concatenate(self, *given: Value, dimension: int) -> Tensor:
        if len(given) == 1:
            return given[0]
        shapes = [np.shape(x) for x in given]
        tensors = [x if isinstance(x, Tensor) else stored(self.graph, x) for x in given]
        tensors = self._alike_but(tensors, dimension)
        first = max(tensors, key=lambda x: layout.size(x.order))
        first, place = layout.own_axis(self.graph, layout.whole(self.graph, first), dimension)
        memory = first.memory
        names = []
        for x in tensors:
            own = tuple(x.axes[dimension] if i == place else axis for i, axis in enumerate(memory))
            names.append(layout.arrange(self.graph, x, own).name)
        name = self.graph.add("Concat", names, axis=place)
        return layout.with_axis(first, dimension, place, name, sum(shape[dimension] for shape in shapes))

    def _alike_but(self, tensors: Sequence[Tensor], axis: int) -> list[Tensor]:
        """The same atoms in all axes but one, which has one."""
        tensors = [layout.renewed(layout.solid(self.graph, x, axis)) for x in tensors]
        bare = layout.alike(self.graph, [dataclasses.replace(x, axes=(*x.axes[:axis], *x.axes[axis + 1 :])) for x in tensors])
        return [dataclasses.replace(new, axes=(*new.axes[:axis], old.axes[axis], *new.axes[axis:])) for new, old in zip(bare, tensors, strict=True)]

    def _stack(self, *given: Value, axis: int = 0, **_: Any) -> Tensor:
        return self._concatenate(*(self._expand_dims(x if isinstance(x, Tensor) else stored(self.graph, x), dimensions=[axis]) for x in given), dimension=axis)

    def alone(self, x: Tensor, axes: Iterable[int]) -> Tensor:
        """`x` with several axes of the program as one axis in memory each."""
        for i in axes:  # of one atom, so that the next one's move does not part them
            x = layout.solid(self.graph, x, i)
        for i in axes:
            x, _ = layout.own_axis(self.graph, x, i)
        return x

    def reduce(self, operation: str, x: Tensor, axes: Sequence[int]) -> Tensor:
        x = self.alone(x, axes)
        places = [x.memory.index(x.axes[i]) for i in axes if x.axes[i]]
        gone = set(layout.flat(x.axes[i] for i in axes))
        name = self.graph.add(operation, [x.name, np.array(places, np.int64)], keepdims=0) if places else x.name
        memory = tuple(axis for axis in x.memory if not set(axis) & gone)
        return Tensor(name, x.dtype, tuple(axis for i, axis in enumerate(x.axes) if i not in axes), memory)

    def _reduce_or(self, x: Tensor, *, axes: Sequence[int], **_: Any) -> Tensor:
        return self._to(self.reduce("ReduceMax", self._to(x, np.uint8), axes), bool)

    def _cumsum(self, x: Tensor, *, axis: int, reverse: bool) -> Tensor:
        x, place = layout.own_axis(self.graph, x, axis)
        name = self.graph.add("CumSum", [x.name, np.array(place, np.int64)], reverse=int(reverse))
        return dataclasses.replace(x, name=name)

    def _dynamic_slice(self, x: Value, *starts: Value, slice_sizes: Sequence[int]) -> Value:
        if any(isinstance(start, Tensor) for start in starts):
            for axis, (start, length) in enumerate(zip(starts, slice_sizes, strict=True)):
                if length < np.shape(x)[axis]:  # a start that leaves no room is not met: it would be moved
                    places = [start, np.arange(length, dtype=np.int32)]
                    x = self.take(x, axis, self.elementwise("Add", places, np.int32) if isinstance(start, Tensor) else sum(places))
            return x
        begin = [int(np.clip(start, 0, n - length)) for start, n, length in zip(starts, x.shape, slice_sizes, strict=True)]
        return self._slice(x, start_indices=begin, limit_indices=[a + n for a, n in zip(begin, slice_sizes, strict=True)], strides=None)

    def _dynamic_update_slice(self, x: Value, update: Tensor, *starts: Value) -> Tensor:
        shape = np.shape(x)
        begin = [int(np.clip(start, 0, n - length)) for start, n, length in zip(starts, shape, update.shape, strict=True)]
        around = [(a, n - a - length, 0) for a, n, length in zip(begin, shape, update.shape, strict=True)]
        if not any(a or b for a, b, _ in around):
            return update
        if isinstance(x, np.ndarray) and (x == x.flat[0]).all():
            return self._pad(update, np.asarray(x.flat[0]), padding_config=around)
        there = np.zeros(shape, bool)
        there[tuple(slice(a, a + n) for a, n in zip(begin, update.shape, strict=True))] = True
        return self.elementwise("Where", [there, self._pad(update, np.zeros((), update.dtype), padding_config=around), x], update.dtype)

    def _gather(self, x: Value, indices: Value, *, dimension_numbers: Any, slice_sizes: Sequence[int], **_: Any) -> Tensor:
        """`jnp.take` along one axis."""
        axes, rank = dimension_numbers.collapsed_slice_dims, len(np.shape(x))
        whole = all(size == n for i, (size, n) in enumerate(zip(slice_sizes, np.shape(x), strict=True)) if i not in axes)
        if len(axes) != 1 or not whole or len(np.shape(indices)) != 2 or dimension_numbers.operand_batching_dims:
            raise UserError("This network cannot be written as ONNX: it reads at places of several axes. Export it with --format=jax.")
        [axis] = axes
        [where] = set(range(rank)) - set(dimension_numbers.offset_dims)
        last = np.asarray(np.shape(x)[axis] - 1, np.int32)
        if isinstance(indices, Tensor):
            indices = self._clamp(np.zeros((), np.int32), self._to(self._squeeze(indices, dimensions=[1]), np.int32), last)
        else:
            indices = np.clip(indices[:, 0], 0, last)
        taken = self.take(x, axis, indices)
        axes = list(taken.axes)
        axes.insert(where, axes.pop(axis))
        return dataclasses.replace(taken, axes=tuple(axes))

    def take(self, x: Value, axis: int, places: Value) -> Tensor:
        """At `places`, a vector, along an axis."""
        x, place = layout.own_axis(self.graph, x if isinstance(x, Tensor) else stored(self.graph, x), axis)
        length = np.shape(places)[0]
        if isinstance(places, Tensor):
            places = layout.regroup(self.graph, layout.whole(self.graph, places), places.axes).name
        else:
            places = places.astype(np.int64)
        return layout.with_axis(x, axis, place, self.graph.add("Gather", [x.name, places], axis=place), length)

    def _top_k(self, x: Tensor, *, k: int, **_: Any) -> list[Tensor]:
        axis = len(x.axes) - 1
        x, place = layout.own_axis(self.graph, x, axis)
        values, places = self.graph.add("TopK", [x.name, np.array([k], np.int64)], outputs=2, axis=place)
        return [layout.with_axis(x, axis, place, values, k), dataclasses.replace(layout.with_axis(x, axis, place, places, k), dtype=np.dtype(np.int64))]

    # What multiplies.

    def _conv_general_dilated(
        self, x: Tensor, kernel: Value, *, window_strides: Any, padding: Any, lhs_dilation: Any, rhs_dilation: Any, dimension_numbers: Any,
        feature_group_count: int, batch_group_count: int, **_: Any,
    ) -> Tensor:  # fmt: skip
        if batch_group_count > 1 or not isinstance(kernel, np.ndarray):
            raise UserError("This network cannot be written as ONNX: it has a convolution of a kind that ONNX lacks. Export it with --format=jax.")
        placed = layout.channels_second(self.graph, x, tuple(x.axes[i] for i in dimension_numbers.lhs_spec))
        weights, groups = kernel.transpose(dimension_numbers.rhs_spec), feature_group_count
        sizes, plane = weights.shape[2:], [x.shape[i] for i in dimension_numbers.lhs_spec[2:]]
        if any(n > 1 for n in lhs_dilation):
            name = self._transposed_convolution(placed.name, weights, lhs_dilation, padding, window_strides, rhs_dilation, groups)
            rows, columns = (n * k for n, k in zip(plane, sizes, strict=True))
        else:
            (before, after) = zip(*padding, strict=True)
            name = self.graph.add(
                "Conv", [placed.name, weights], strides=list(window_strides), pads=[*before, *after], dilations=list(rhs_dilation), group=groups,
                kernel_shape=list(sizes),
            )  # fmt: skip
            rows, columns = (
                (n + a + b - dilation * (k - 1) - 1) // stride + 1
                for n, (a, b), dilation, k, stride in zip(plane, padding, rhs_dilation, sizes, window_strides, strict=True)
            )
        made = layout.fresh(name, x.dtype, (placed.shape[dimension_numbers.lhs_spec[0]], weights.shape[0], rows, columns))
        back = np.argsort(dimension_numbers.out_spec)
        # The batch's atoms are what they were.
        batch = x.axes[dimension_numbers.lhs_spec[0]]
        memory = (batch, *made.memory[1:])
        lies = layout.flat((memory[0], *memory[2:], memory[1]))
        return Tensor(name, x.dtype, tuple(memory[i] for i in back), memory, lies)

    def _transposed_convolution(
        self, x: str, weights: np.ndarray, gaps: Sequence[int], padding: Any, strides: Any, dilation: Any, groups: int
    ) -> str:
        """A convolution of pixels with gaps between them that are as wide as the kernel: no two stamps overlap."""
        sizes = weights.shape[2:]
        if (*gaps, *strides, *dilation, *map(tuple, padding)) != (*sizes, 1, 1, 1, 1, *((k - 1, k - 1) for k in sizes)):
            raise UserError("This network cannot be written as ONNX: it has a convolution of a kind that ONNX lacks. Export it with --format=jax.")
        weights = weights.reshape(groups, -1, *weights.shape[1:])[..., ::-1, ::-1].swapaxes(1, 2)
        weights = weights.reshape(-1, *weights.shape[2:])
        return self.graph.add("ConvTranspose", [x, weights], strides=list(gaps), kernel_shape=list(sizes), group=groups)

    def _reduce_window_max(self, x: Tensor, *, window_dimensions: Any, window_strides: Any, padding: Any, **_: Any) -> Tensor:
        moved = [i for i, n in enumerate(window_dimensions) if n > 1]
        rest = [i for i in range(len(x.axes)) if i not in moved]
        batch = layout.flat(x.axes[i] for i in rest)
        kept = tuple(sorted(batch, key=lambda atom: x.order.index(atom) if atom in x.order else -1))
        placed = layout.arrange(self.graph, x, (kept[:1], kept[1:], *(x.axes[i] for i in moved)))
        sizes, strides = ([which[i] for i in moved] for which in (window_dimensions, window_strides))
        pads = [padding[i] for i in moved]
        name = self.graph.add("MaxPool", [placed.name], kernel_shape=sizes, strides=strides, pads=[a for a, _ in pads] + [b for _, b in pads])
        lengths = {i: (x.shape[i] + sum(padding[i]) - window_dimensions[i]) // window_strides[i] + 1 for i in moved}
        axes = list(placed.axes)
        for i in moved:
            axes[i] = (layout.Atom(lengths[i]),) if lengths[i] > 1 else ()
        return Tensor(name, x.dtype, tuple(axes), (kept[:1], kept[1:], *(axes[i] for i in moved)))

    def _dot_general(self, a: Value, b: Value, *, dimension_numbers: Any, **_: Any) -> Tensor:
        (contract_a, contract_b), (batch_a, batch_b) = dimension_numbers
        a, b = (layout.renewed(x if isinstance(x, Tensor) else stored(self.graph, x)) for x in (a, b))
        paired = [(*pair, True) for pair in zip(contract_a, contract_b, strict=True)] + [(*pair, False) for pair in zip(batch_a, batch_b, strict=True)]
        for i, j, _summed in paired:
            a, b = self._same_axis(a, i, b, j)
        free_a, free_b = (
            [i for i in range(len(x.axes)) if i not in (*summed, *batch)] for x, summed, batch in ((a, contract_a, batch_a), (b, contract_b, batch_b))
        )
        big = max((a, b), key=lambda x: layout.size(x.order))
        summed = _as_lies(big, layout.flat((a if big is a else b).axes[i] for i in (contract_a if big is a else contract_b)))
        batch = layout.flat(a.axes[i] for i in batch_a)
        own_a, own_b = (_as_lies(x, layout.flat(x.axes[i] for i in free)) for x, free in ((a, free_a), (b, free_b)))
        # The batch may lie anyhow; with the larger operand's order less is moved.
        batch = _as_lies(big, batch)
        # An operand that is broadcast along a part of the batch has size 1 there.
        parts = [part for whole in _parts(batch, set(a.order)) for part in _parts(whole, set(b.order)) if part]
        batch_left, batch_right = (tuple(part if set(part) <= set(x.order) else () for part in parts) for x in (a, b))
        left = layout.arrange(self.graph, a, (*batch_left, own_a, summed))
        right = layout.arrange(self.graph, b, (*batch_right, summed, own_b))
        name = self.graph.add("MatMul", [left.name, right.name])
        axes = (*(a.axes[i] for i in batch_a), *(a.axes[i] for i in free_a), *(b.axes[i] for i in free_b))
        there = [tuple(one or other) for one, other in zip(batch_left, batch_right, strict=True)]
        return Tensor(name, left.dtype, axes, (*there, own_a, own_b))

    def _same_axis(self, a: Tensor, i: int, b: Tensor, j: int) -> tuple[Tensor, Tensor]:
        """Two tensors with the same atoms in one axis each."""
        one, other = (dataclasses.replace(x, axes=(x.axes[k],)) for x, k in ((a, i), (b, j)))
        changes = []
        new_one, new_other = layout.alike(self.graph, [one, other])
        for x, k, new in ((a, i, new_one), (b, j, new_other)):
            # `alike` may have split or renamed atoms of this axis; the other axes have none of them.
            changes.append(dataclasses.replace(new, axes=(*x.axes[:k], new.axes[0], *x.axes[k + 1 :])))
        return changes[0], changes[1]


def _parts(axis: Atoms, there: set[Any]) -> list[Atoms]:
    """An axis in memory, cut where a tensor that has only `there` begins or ceases to be broadcast."""
    parts: list[list[Any]] = []
    for atom in axis:
        if parts and (parts[-1][-1] in there) == (atom in there):
            parts[-1].append(atom)
        else:
            parts.append([atom])
    return [tuple(part) for part in parts] or [()]


def _as_lies(x: Tensor, atoms: Atoms) -> Atoms:
    """Atoms in the order in which they lie in a tensor's memory; those along which it is broadcast first."""
    return tuple(sorted(atoms, key=lambda atom: x.order.index(atom) if atom in x.order else -1))
