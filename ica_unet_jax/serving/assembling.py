"""Frames of the slices that come one by one, by what their headers say, in whatever order they come."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any, NamedTuple

import numpy as np

from ica_unet_jax.serving.wire import Malformed

REMEMBERED = 256  # frames that are over


class Slice(NamedTuple):
    """An image of a frame."""

    cine: tuple[int, ...]  # what else it belongs to: images with another one are of another cine
    time: tuple[int, ...]  # of its frame in that cine; larger is later
    index: int  # its number in the frame, from 0
    pixels: np.ndarray  # (d, h, w), d = 1 unless it is a whole frame
    origin: Any = None  # its header


@dataclasses.dataclass
class _Begun:
    rank: tuple
    parts: dict[int, Slice] = dataclasses.field(default_factory=dict)


class Assembler:
    """`add` each slice; it gives the frames that are to be segmented now: for each its slices, by their numbers.

    A frame is complete when all its slices are there, in whatever order. Frames are given in the order of time: a complete one
    waits for an earlier one that has begun, but no more than `reorder` complete ones do; then the one that lacks a slice is left
    out, and what still comes of it is passed by. Where slices of a frame come that is over, a new round of the cine has begun.

    Args:
      count: slices in a frame; None where nobody says: then every frame is given by `close`, with the slices that most have.
      reorder: complete frames that may wait.
      limit: bytes of what waits, beyond which Malformed is raised.
    """

    def __init__(self, count: int | None, reorder: int = 2, limit: int = 2**28):
        self.count, self.reorder, self.limit = count, reorder, limit
        self.left_out = 0  # frames that lack a slice
        self._round = self._held = 0
        self._begun: dict[tuple, _Begun] = {}
        # What is over: in which round, and which slices may still come.
        self._over: collections.OrderedDict[tuple, tuple[int, set[int]]] = collections.OrderedDict()

    def add(self, part: Slice) -> list[list[Slice]]:
        """Raises Malformed for a slice beyond `count`, or where too much waits."""
        key = part.cine, part.time
        if self.count is not None and part.index >= self.count:
            raise Malformed(f"slice {part.index + 1} came of a frame that has {self.count} slices, by the header or by --slices")
        if key in self._begun and part.index in self._begun[key].parts:
            self._give_up(key)
            self._over[key][1].clear()
        if key not in self._begun:
            ended, missing = self._over.get(key, (None, set()))
            if part.index in missing:
                missing.remove(part.index)
                return []
            self._round += ended == self._round
            self._begun[key] = _Begun((self._round, *key))
        self._begun[key].parts[part.index] = part
        self._held += part.pixels.nbytes
        if self._held > self.limit:
            raise Malformed(f"more than the {self.limit} bytes of --limit_mb wait for slices that have not come")
        return self._ready(self.reorder) if self.count is not None else []

    def close(self) -> list[list[Slice]]:
        """At the end of all slices: the complete frames that still wait."""
        if self.count is None:
            self.count = max((len(begun.parts) for begun in self._begun.values()), default=1)
        found = self._ready(0)
        self.left_out += len(self._begun)
        return found

    def _ready(self, reorder: int) -> list[list[Slice]]:
        found = []
        while self._begun:
            key = min(self._begun, key=lambda key: self._begun[key].rank)
            begun = self._begun[key]
            if len(begun.parts) == self.count:
                found.append([begun.parts[index] for index in sorted(begun.parts)])
                self._end(key)
            elif sum(len(other.parts) == self.count for other in self._begun.values()) > reorder:
                self._give_up(key)
            else:
                break
        return found

    def _give_up(self, key: tuple) -> None:
        self.left_out += 1
        self._end(key)

    def _end(self, key: tuple) -> None:
        begun = self._begun.pop(key)
        self._held -= sum(part.pixels.nbytes for part in begun.parts.values())
        self._over[key] = begun.rank[0], set(range(self.count or 0)) - set(begun.parts)
        self._over.move_to_end(key)
        if len(self._over) > REMEMBERED:
            self._over.popitem(last=False)
