"""Lowering of convolutions, poolings and matrix products."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ica_unet_jax.errors import UserError
from ica_unet_jax.portable import layout
from ica_unet_jax.portable.elementwise import Value, parts, stored
from ica_unet_jax.portable.layout import Atoms, Tensor
from ica_unet_jax.portable.moving import Moving


class Products(Moving):
    """JAX's primitives as methods, named after them."""

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
        """A convolution of pixels with gaps between them that are as wide as the kernel: no two stamps overlap.

        In groups it is a 1x1 convolution, whose channels then become pixels: in bfloat16 OpenVINO has no fast code for the other form where a
        trained norm follows, and spent more than half of a frame's time on it.
        """
        sizes = weights.shape[2:]
        if (*gaps, *strides, *dilation, *map(tuple, padding)) != (*sizes, 1, 1, 1, 1, *((k - 1, k - 1) for k in sizes)):
            raise UserError("This network cannot be written as ONNX: it has a convolution of a kind that ONNX lacks. Export it with --format=jax.")
        weights = weights.reshape(groups, -1, *weights.shape[1:])[..., ::-1, ::-1]
        if groups > 1 and sizes == (sizes[0],) * 2:
            pixels = weights.transpose(0, 1, 3, 4, 2).reshape(-1, weights.shape[2], 1, 1)
            name = self.graph.add("Conv", [x, pixels], kernel_shape=[1, 1], group=groups)
            return self.graph.add("DepthToSpace", [name], blocksize=sizes[0], mode="CRD")
        weights = weights.swapaxes(1, 2)
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
        divided = [part for whole in parts(batch, set(a.order)) for part in parts(whole, set(b.order)) if part]
        batch_left, batch_right = (tuple(part if set(part) <= set(x.order) else () for part in divided) for x in (a, b))
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


def _as_lies(x: Tensor, atoms: Atoms) -> Atoms:
    """Atoms in the order in which they lie in a tensor's memory; those along which it is broadcast first."""
    return tuple(sorted(atoms, key=lambda atom: x.order.index(atom) if atom in x.order else -1))
