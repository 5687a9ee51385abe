"""Where the model's window lies on a larger frame: at the image centre, or on the heart, which it finds and follows.

A window moves by whole voxels of the model's grid, and nothing is compiled for that: see `native_grid`. Offsets are
those of `Placement`: from the image centre to the window's, (rows, columns), in voxels of the model's grid.
"""

from __future__ import annotations

import collections
import itertools
import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from ica_unet_jax.data.geometry import Placement
from ica_unet_jax.data.heart import middle
from ica_unet_jax.labels import STRUCTURES

MEMORY = 9  # masks that decide where the heart is: more than half of them must say so
DEAD_ZONE = 1 / 16  # of the window's size: as far the heart may be off its centre before the window moves
ROUNDS = 6  # looks at most from the best tile to the heart's centre
# Chosen on the choosing fold, with four networks (docs/results/levers.md):
SURENESS = 20.0  # by a nat of entropy less a window with e^20 times fewer voxels of a structure is as good
ENOUGH = 3000  # voxels of a structure, beyond which more are no more of a heart: what a network takes for one can be far larger


class Sight(NamedTuple):
    """What the network makes of a frame through one window."""

    labels: np.ndarray  # (s, h, w)
    unsure: float  # mean entropy where there may be heart, in nats; see `Segmenter.unsure`


Look = Callable[[Placement], Sight]  # of a frame, seen through the window of a placement


class Window:
    """A window that stays where it is. `lost`: `search` is to be called before `placement` is used."""

    lost = False

    def __init__(self, placement: Placement):
        self.placement = placement

    def search(self, look: Look) -> None:
        """Looks for the heart in a frame."""

    def saw(self, labels: np.ndarray) -> None:
        """Labels (s, h, w) of the latest frame, seen through this window: the next may be looked at elsewhere."""


class FollowingWindow(Window):
    """A window that finds the heart in the first frame and follows it.

    It moves when the median of the last `MEMORY` masks' centres has left a dead zone, so that a bad mask moves nothing and
    a beating heart, whose centre moves by a few mm, does not make it tremble. An empty mask votes for the place where the
    window is. After as many empty masks in a row the heart is lost, and looked for again.
    """

    lost = True

    def __init__(self, placement: Placement):
        super().__init__(placement)
        self._centres: collections.deque = collections.deque(maxlen=MEMORY)
        self._empty = 0  # masks in a row

    def search(self, look: Look) -> None:
        self.placement, centre = find(look, self.placement)
        self._centres.extend([centre or self.placement.offset] * MEMORY)
        self.lost, self._empty = False, 0

    def saw(self, labels: np.ndarray) -> None:
        centre = middle(labels, self.placement)
        self._centres.append(centre or self.placement.offset)
        self._empty = 0 if centre else self._empty + 1
        self.lost = self._empty >= MEMORY
        wanted = self.placement.at(*np.median(self._centres, axis=0))
        zone = [DEAD_ZONE * size for size in self.placement.crop[1:]]
        if np.any(np.abs(np.subtract(wanted.offset, self.placement.offset)) > zone):
            self.placement = wanted


def open_window(kind: str, placement: Placement) -> Window:
    """The window named by one of `options.WINDOWS`; `placement` is at the image centre."""
    return {"centre": Window, "follow": FollowingWindow}[kind](placement)


def find(look: Look, placement: Placement) -> tuple[Placement, tuple[float, float] | None]:
    """Looks for the heart in a frame: the window centred on it, and the heart's centre; `placement`, None where none is.

    Windows that overlap by half tile the frame; from the one that shows most of a heart, of which the network is sure, it goes on to the centre of what
    was labelled there, until the window stays.
    """
    seen = {place: look(place) for place in tiles(placement)}
    best = max(seen, key=lambda place: (bool(seen[place].labels.any()), evidence(seen[place])))  # something is more than nothing
    labels = seen[best].labels
    for _ in range(ROUNDS):
        centre = middle(labels, best)
        if centre is None:
            return placement, None
        if best.at(*centre) == best:
            break
        best = best.at(*centre)
        labels = look(best).labels
    return best, centre


def tiles(placement: Placement) -> list[Placement]:
    """Windows that overlap by half or more and cover the frame; the central one alone if it covers it."""
    axes = []
    for most, size in zip(placement.reach, placement.crop[1:], strict=True):
        count = 1 + math.ceil(4 * most / size)
        axes.append(np.linspace(-most, most, count) if count > 1 else [0])
    return [placement.at(*offset) for offset in itertools.product(*axes)]


def evidence(sight: Sight) -> float:
    """How much of a heart is seen: large where all three structures are and the network is sure of them, as it is not of what it takes other organs for."""
    return weighed([np.count_nonzero(sight.labels == label) for label in STRUCTURES.values()], sight.unsure)


def weighed(counts: Iterable[float], unsure: float, sureness: float = SURENESS, enough: float = ENOUGH) -> float:
    """The same, of the voxels of each structure and the entropy in nats."""
    return sum(math.log1p(min(count, enough)) for count in counts) - sureness * unsure
