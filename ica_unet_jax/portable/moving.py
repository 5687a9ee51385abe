"""Lowering of what moves, cuts and joins axes, and of what works along one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ica_unet_jax.errors import UserError
from ica_unet_jax.portable import layout
from ica_unet_jax.portable.elementwise import Elementwise, Value, stored
from ica_unet_jax.portable.layout import Atoms, Tensor


class Moving(Elementwise):
    """JAX's primitives as methods, named after them."""

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

    def _unstack(self, x: Tensor, *, axis: int) -> list[Tensor]:  # what JAX 0.12 makes of iteration
        return [self._squeeze(part, dimensions=[axis]) for part in self._split(x, sizes=[1] * x.shape[axis], axis=axis)]

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
            places = layout.arrange(self.graph, places, places.axes).name
        else:
            places = places.astype(np.int64)
        return layout.with_axis(x, axis, place, self.graph.add("Gather", [x.name, places], axis=place), length)

    def _top_k(self, x: Tensor, *, k: int, **_: Any) -> list[Tensor]:
        axis = len(x.axes) - 1
        x, place = layout.own_axis(self.graph, x, axis)
        values, places = self.graph.add("TopK", [x.name, np.array([k], np.int64)], outputs=2, axis=place)
        return [layout.with_axis(x, axis, place, values, k), dataclasses.replace(layout.with_axis(x, axis, place, places, k), dtype=np.dtype(np.int64))]
