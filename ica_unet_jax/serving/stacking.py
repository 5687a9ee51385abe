"""Frames of the slices that come one by one without a number, by their places."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pyigtl.messages import ImageMessage

from ica_unet_jax.serving.wire import Malformed

PLACE = 0.01  # mm; slices nearer than this lie at one place
MOST_SLICES = 1024
_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SAME = 1e-3  # mm, of a step from voxel to voxel

Slices = list[ImageMessage]  # of a frame


def to_lps(message: ImageMessage) -> np.ndarray:
    """The matrix (4, 4) from (i, j, k) to mm, LPS."""
    matrix = np.asarray(message.ijk_to_world_matrix, float)
    return _TO_LPS @ matrix if message.world_coordinate_system == "ras" else matrix


def from_its_end(order: Sequence[float]) -> list[float]:
    """The order of a whole frame's places, of which this is a round, perhaps begun within.

    Places that follow each other as they lie, up or down, begin at their end. Of another order the first is believed to be the first,
    and so is an end of three or fewer, as these follow each other in any order.
    """
    low, high = min(order), max(order)
    rises = sum(one < other for one, other in zip(order, [*order[1:], order[0]], strict=True))
    end = low if rises == len(order) - 1 else high if rises == 1 else order[0]
    begin = 0 if len(order) <= 3 and order[0] in (low, high) else list(order).index(end)
    return [*order[begin:], *order[:begin]]


class Stack:
    """Collects slices to frames. They have to come frame by frame, and in the same order in each.

    Where a frame begins nobody says, and slices may be lost. So the order is learnt: from the first two rounds that are alike, or, where
    the number of slices is told, from the first so long. A round begins with the place that came first of all, or with one that has
    been in it. When the order is known a frame is whole that has it; what has not is left out. A place that was not there before makes
    all be learnt anew.

    Args:
      slices: in a frame; None where nobody says.
      limit: bytes that may wait; beyond Malformed is raised.
    """

    def __init__(self, slices: int | None, limit: int):
        self.left_out = 0
        self._told, self._limit = slices, limit
        self._plane: tuple[tuple[int, ...], np.ndarray] | None = None
        self._first: float | None = None
        self._order: list[float] = []  # of a frame, when it is known
        self._before: dict[float, ImageMessage] = {}  # the round before, until it is known
        self._round: dict[float, ImageMessage] = {}

    def add(self, message: ImageMessage) -> list[Slices]:
        """The frames that this slice completes, or shows to be whole."""
        place = self._place(message)
        if self._order and place not in self._order:
            self._forget()
        if self._first is None:
            self._first = place
        found = self._end() if self._round and (place == self._first or place in self._round) else []
        self._round[place] = message
        waiting = [*self._before.values(), *self._round.values()]
        if len(self._round) > MOST_SLICES or sum(part.image.nbytes for part in waiting) > self._limit:
            raise Malformed("more slices came for one frame than any has")
        if not self._order and len(self._round) == self._told:
            found += self._learn()
        elif list(self._round) == self._order:
            found.append(list(self._round.values()))
            self._round = {}
        return found

    def close(self) -> list[Slices]:
        """At the end: of rounds that could not be compared with another the longest."""
        rounds = [list(parts.values()) for parts in (self._before, self._round) if parts]
        longest = max(map(len, rounds), default=0)
        found = [] if self._order or self._told else [parts for parts in rounds if len(parts) == longest]
        self.left_out += len(rounds) - len(found)
        return found

    def _end(self) -> list[Slices]:
        """The end of a round: the frames that it shows to be whole."""
        if self._order or self._told:
            self.left_out += 1
        elif list(self._round) == list(self._before):
            return self._learn()
        else:
            self.left_out += bool(self._before)
            self._before = self._round
        self._round = {}
        return []

    def _learn(self) -> list[Slices]:
        """Takes the order of this round, and what has come in it."""
        parts = [*self._before.values(), *self._round.values()]
        self._order = from_its_end(list(self._round))
        self._first, self._before, self._round = self._order[0], {}, {}
        return [frame for part in parts for frame in self.add(part)]

    def _forget(self) -> None:
        self.left_out += bool(self._before) + bool(self._round)
        self._order, self._before, self._round = [], {}, {}

    def _place(self, message: ImageMessage) -> float:
        """How far it lies along the normal, in mm; the same number for all slices that lie there."""
        matrix, shape = to_lps(message), message.image.shape
        steps = matrix[:3, :2]
        normal = np.cross(steps[:, 0], steps[:, 1])
        length = np.linalg.norm(normal)
        if not np.isfinite(matrix).all() or not length:
            raise Malformed("an image came whose matrix is none")
        if not (self._plane and self._plane[0] == shape and np.allclose(self._plane[1], steps, rtol=0, atol=_SAME)):
            self._forget()
            self._plane, self._first = (shape, steps), None
        depth, height, width = shape
        centre = matrix @ [(width - 1) / 2, (height - 1) / 2, (depth - 1) / 2, 1.0]
        place = float(centre[:3] @ normal / length)
        known = [*self._order, *self._before, *self._round, *([] if self._first is None else [self._first])]
        return next((other for other in known if abs(other - place) < PLACE), place)
