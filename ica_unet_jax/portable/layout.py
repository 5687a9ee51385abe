"""Tensors of a graph whose axes may lie in memory in any order, so that most reshapes and transpositions cost no node.

A JAX program moves axes about as it likes: streams first, channels last, depth folded into the batch. A runtime wants
(batch, channels, rows, columns) for a convolution, and every transposition between two of them costs time. So each axis is a
product of *atoms*, and a tensor knows in which order its atoms lie. `reshape` and `transpose` only change what the axes are
made of; a node is added when an operation needs another order than the one that is there.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Atom:
    """A factor of an axis; two of the same size are not the same."""

    size: int


Atoms = tuple[Atom, ...]
Axes = tuple[Atoms, ...]


@runtime_checkable
class Nodes(Protocol):
    """What a tensor needs of a graph: to add a node, and the type of its result stays."""

    def add(self, operation: str, inputs: Sequence[Any], **attributes: Any) -> str: ...


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor of a graph: what its axes are made of, and what lies in memory.

    An axis of size 1 has no atoms. Atoms that no memory axis has are broadcast: their values are equal along them.
    """

    name: str
    dtype: np.dtype
    axes: Axes  # as the program sees them
    memory: Axes  # as the graph has them
    lies: Atoms = ()  # the order that a runtime gives it in truth, where that is known: channels last after a convolution

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(size(axis) for axis in self.axes)

    @property
    def order(self) -> Atoms:
        return flat(self.memory)

    def replaced(self, change: dict[Atom, Atoms]) -> Tensor:
        """With other atoms in the places of some."""
        axes, memory, (lies,) = (
            tuple(flat(change.get(atom, (atom,)) for atom in axis) for axis in part) for part in (self.axes, self.memory, (self.lies,))
        )
        return dataclasses.replace(self, axes=axes, memory=memory, lies=lies)


def fresh(name: str, dtype: np.dtype | type, shape: Sequence[int]) -> Tensor:
    """A tensor that lies in memory as the program sees it."""
    axes = tuple((Atom(n),) if n > 1 else () for n in shape)
    return Tensor(name, np.dtype(dtype), axes, axes)


def size(axis: Atoms) -> int:
    return math.prod(atom.size for atom in axis)


def flat(axes: Iterable[Atoms]) -> Atoms:
    return tuple(atom for axis in axes for atom in axis)


def arrange(nodes: Nodes, x: Tensor, memory: Axes) -> Tensor:
    """`x` with these axes in memory, which hold all its atoms."""
    x = expand(nodes, x, [atom for atom in flat(memory) if atom not in x.order])
    wanted = flat(memory)
    if x.order != wanted and x.lies not in ((), x.order):  # costs nothing, and the next moves larger pieces
        x = _transpose(nodes, x, x.lies)
    if x.order != wanted:
        x = _transpose(nodes, x, wanted)
    return regroup(nodes, x, memory)


def channels_second(nodes: Nodes, x: Tensor, memory: Axes) -> Tensor:
    """`arrange` for a convolution, memory (N, C, rows, columns): by way of channels last, as runtimes have it in truth."""
    batch, channels, *plane = memory
    if x.order != flat(memory):
        x = arrange(nodes, x, (batch, *plane, channels))
    return arrange(nodes, x, memory)


def regroup(nodes: Nodes, x: Tensor, memory: Axes) -> Tensor:
    """The same order of atoms in other axes of memory."""
    sizes = [size(axis) for axis in memory]
    if sizes != [size(axis) for axis in x.memory]:
        x = dataclasses.replace(x, name=nodes.add("Reshape", [x.name, np.array(sizes, np.int64)]))
    return dataclasses.replace(x, memory=memory)


def expand(nodes: Nodes, x: Tensor, atoms: Sequence[Atom]) -> Tensor:
    """`x` with atoms along which it is broadcast in memory, first of all."""
    if not atoms:
        return x
    x = dataclasses.replace(regroup(nodes, x, (*((),) * len(atoms), *x.memory)), lies=())
    memory = (*((atom,) for atom in atoms), *x.memory[len(atoms) :])
    shape = np.array([size(axis) for axis in memory], np.int64)
    return dataclasses.replace(x, name=nodes.add("Expand", [x.name, shape]), memory=memory)


def whole(nodes: Nodes, x: Tensor) -> Tensor:
    """`x` with all its atoms in memory, in the order that is there."""
    return expand(nodes, x, [atom for atom in flat(x.axes) if atom not in x.order])


def own_axis(nodes: Nodes, x: Tensor, axis: int) -> tuple[Tensor, int]:
    """`x` with an axis of the program as one axis in memory, and which that is."""
    atoms = x.axes[axis]
    if atoms and not all(atom in x.order for atom in atoms):
        x = expand(nodes, x, [atom for atom in atoms if atom not in x.order])
    if not atoms:
        return regroup(nodes, x, (*x.memory, ())), len(x.memory)
    if atoms in x.memory:
        return x, x.memory.index(atoms)
    start = next((i for i in range(len(x.order)) if x.order[i : i + len(atoms)] == atoms), None)
    if start is None:  # scattered: gathered where its last atom lies
        rest = [atom for atom in x.order if atom not in atoms]
        start = sum(atom not in atoms for atom in x.order[: x.order.index(atoms[-1])])
        x = arrange(nodes, x, tuple((atom,) for atom in (*rest[:start], *atoms, *rest[start:])))
    inside = set(atoms)
    memory: list[Atoms] = []
    for group in x.memory:
        if not inside & set(group):
            memory.append(group)
            continue
        places = [i for i, atom in enumerate(group) if atom in inside]
        before, after = group[: places[0]], group[places[-1] + 1 :]
        memory += [before] * bool(before)
        if atoms not in memory:
            memory.append(atoms)
        memory += [after] * bool(after)
    return regroup(nodes, x, tuple(memory)), memory.index(atoms)


def solid(nodes: Nodes, x: Tensor, axis: int) -> Tensor:
    """`x` with one atom for an axis."""
    if len(x.axes[axis]) < 2:
        return x
    x, place = own_axis(nodes, x, axis)
    return with_axis(x, axis, place, x.name, x.shape[axis])


def with_axis(x: Tensor, axis: int, place: int, name: str, length: int) -> Tensor:
    """`x` under another name, after an operation along an axis, alone at a place in memory, that gave it another length."""
    atoms = (Atom(length),) if length > 1 else ()
    axes, memory = ((*part[:i], atoms, *part[i + 1 :]) for part, i in ((x.axes, axis), (x.memory, place)))
    return dataclasses.replace(x, name=name, axes=axes, memory=memory, lies=())


def reshape(nodes: Nodes, x: Tensor, shape: Sequence[int]) -> Tensor:
    """The program's `reshape`: a node only where an axis is cut at what is no factor of it."""
    try:
        x, axes = _cut(x, shape)
    except ValueError:
        x = arrange(nodes, x, x.axes)
        name = nodes.add("Reshape", [x.name, np.array(shape, np.int64)])
        return fresh(name, x.dtype, shape)
    return dataclasses.replace(x, axes=axes)


def alike(nodes: Nodes, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors of one shape, but for axes of size 1 which are broadcast, with the same atoms in their axes."""
    shape = [max(sizes) for sizes in zip(*(x.shape for x in tensors), strict=True)]
    tensors = [broadcast(x, shape) for x in tensors]
    for axis in range(len(tensors[0].axes)):
        cuts = sorted({cut for x in tensors for cut in _cuts(x.axes[axis])})
        if any(b % a for a, b in zip(cuts, [*cuts, tensors[0].shape[axis]][1:], strict=True)):
            tensors = [solid(nodes, x, axis) for x in tensors]
        else:
            tensors = [_split(x, axis, cuts) for x in tensors]
    first = tensors[0]
    renamed = [first]
    for x in tensors[1:]:
        pairs = zip(flat(x.axes), flat(first.axes), strict=True)
        renamed.append(x.replaced({old: (new,) for old, new in pairs}))
    return renamed


def renewed(x: Tensor) -> Tensor:
    """`x` with atoms that no other tensor has, so that none stands for two axes where it meets one that has some of them."""
    return x.replaced({atom: (Atom(atom.size),) for atom in {*flat(x.axes), *x.order}})


def broadcast(x: Tensor, shape: Sequence[int]) -> Tensor:
    """`x`, or a scalar, with axes of other sizes where its own are of size 1."""
    axes = (own if size(own) == n else (Atom(n),) for own, n in zip(x.axes or ((),) * len(shape), shape, strict=True))
    return dataclasses.replace(x, axes=tuple(axes))


def constant(array: np.ndarray, axes: Axes, memory: Axes) -> np.ndarray:
    """A constant as it multiplies or adds to a tensor of these axes and memory: 1 wide where its values are equal."""
    atoms, array = flat(axes), _by_atom(array, axes)
    for i in range(array.ndim):
        if (array == array.take([0], i)).all():
            array = array.take([0], i)
    shape = []
    for group in memory:
        sizes = [array.shape[atoms.index(atom)] for atom in group]
        if any(n > 1 for n in sizes):
            for atom in group:
                array = np.repeat(array, atom.size, atoms.index(atom)) if array.shape[atoms.index(atom)] == 1 else array
            shape.append(size(group))
        else:
            shape.append(1)
    placed = [atoms.index(atom) for atom in flat(memory)]
    rest = [i for i in range(len(atoms)) if i not in placed]
    return np.ascontiguousarray(array.transpose(*rest, *placed)).reshape(shape)


def varying(array: np.ndarray, axes: Axes) -> list[Atom]:
    """The atoms of axes along which a constant's values differ."""
    array = _by_atom(array, axes)
    return [atom for i, atom in enumerate(flat(axes)) if (array != array.take([0], i)).any()]


def _by_atom(array: np.ndarray, axes: Axes) -> np.ndarray:
    return np.broadcast_to(array, [size(axis) for axis in axes]).reshape([atom.size for atom in flat(axes)])


def _transpose(nodes: Nodes, x: Tensor, order: Atoms) -> Tensor:
    """Atoms that lie beside each other before and after move as one."""
    runs: list[list[Atom]] = []
    for atom in order:
        before = x.order.index(atom)
        if runs and before and x.order[before - 1] is runs[-1][-1]:
            runs[-1].append(atom)
        else:
            runs.append([atom])
    moved = sorted(runs, key=lambda run: x.order.index(run[0]))
    x = regroup(nodes, x, tuple(tuple(run) for run in moved))
    name = nodes.add("Transpose", [x.name], perm=[moved.index(run) for run in runs])
    return dataclasses.replace(x, name=name, memory=tuple(tuple(run) for run in runs), lies=())


def _cuts(axis: Atoms) -> list[int]:
    """After how many of the axis's values, seen from its outermost atom, an atom ends: products of sizes, without the last."""
    found, product = [], 1
    for atom in axis[:-1]:
        product *= atom.size
        found.append(product)
    return found


def _split(x: Tensor, axis: int, cuts: Sequence[int]) -> Tensor:
    """With the atoms of an axis cut there too."""
    change, product = {}, 1
    for atom in x.axes[axis]:
        inner = [cut // product for cut in cuts if product < cut < product * atom.size]
        if inner:
            ends = [1, *inner, atom.size]
            change[atom] = tuple(Atom(b // a) for a, b in zip(ends, ends[1:], strict=False))
        product *= atom.size
    return x.replaced(change)


def _cut(x: Tensor, shape: Sequence[int]) -> tuple[Tensor, Axes]:
    """(x with its atoms cut, axes of another shape made of them); ValueError where a cut is through an atom's middle."""
    left = list(flat(x.axes))
    axes: list[Atoms] = []
    change: dict[Atom, Atoms] = {}
    for length in shape:
        taken: list[Atom] = []
        while length > 1:
            atom = left.pop(0)
            if length % atom.size == 0:
                taken.append(atom)
                length //= atom.size
            elif atom.size % length == 0:
                outer, inner = Atom(length), Atom(atom.size // length)
                change[atom] = (outer, inner)
                taken.append(outer)
                left.insert(0, inner)
                length = 1
            else:
                raise ValueError("no factor")
        axes.append(tuple(taken))

    def pieces(atom: Atom) -> Atoms:
        return flat(pieces(part) for part in change[atom]) if atom in change else (atom,)

    return x.replaced({atom: pieces(atom) for atom in change}), tuple(axes)
