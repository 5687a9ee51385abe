"""Signs, without a ground truth, that a segmentation is wrong: how much of each a frame shows, and where doubt begins.

A frame's labels are (slices, rows, columns). Each limit is above what 99 of 100 true masks of ACDC's training patients show; that of "unsure" is a
network's own, as it has learned it (`Trained.doubt_limits`), and without one there is no such sign. `robustness` tells how well they find frames of low Dice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import ndimage

from ica_unet_jax.labels import STRUCTURES
from ica_unet_jax.metrics.clinical import volumes_ml

SIGNS = {  # what a user reads
    "no_heart": "no heart is found",
    "no_structure": "a structure is missing",
    "second_heart": "a second heart, or a large part beside the first",
    "open_ring": "the myocardium does not enclose the LV in the middle slices",
    "gap": "a slice without labels between labelled ones",
    "jump": "a volume jumps against both neighbouring frames",
    "unsure": "the network is less sure of it than of 99 in 100 frames that it learned from",
}
LIMITS = {"no_heart": 0.0, "no_structure": 0.0, "second_heart": 0.05, "open_ring": 0.05, "gap": 0.0, "jump": 0.15}

OWN = ("unsure",)  # of which a network has the limit

Measures = dict[str, float]


def are_own(limits: object) -> bool:
    """Whether these can be a network's own limits: finite numbers for some of `OWN`."""
    return isinstance(limits, Mapping) and all(
        sign in OWN and isinstance(limit, int | float) and not isinstance(limit, bool) and np.isfinite(limit) for sign, limit in limits.items()
    )


def of_frame(labels: np.ndarray) -> Measures:
    """How much of each sign that labels alone tell a frame shows, from 0: not "jump", nor "unsure"."""
    left = np.isin(labels, (STRUCTURES["MYO"], STRUCTURES["LV"]))
    missing = sum(not (labels == label).any() for label in STRUCTURES.values())
    return {
        "no_heart": float(missing == len(STRUCTURES)),
        "no_structure": float(missing if missing < len(STRUCTURES) else 0),
        "second_heart": max(_second(left), _second(labels == STRUCTURES["RV"])),
        "open_ring": _open(labels),
        "gap": float(_gaps(labels > 0)),
    }


def of_cine(labels: np.ndarray, spacing: Sequence[float], unsure: Sequence[float], limits: Mapping[str, float] = LIMITS) -> dict[str, list[int]]:
    """{sign: frames, counted from 1, that show it beyond its limit} of a cine (frames, slices, rows, columns); only signs that some frame shows.

    `spacing` is (dz, dy, dx) in mm; `unsure`, of each frame, as `Segmenter.unsure` tells it.
    """
    jumps = np.max([_jumps(curve) for curve in volumes_ml(labels, spacing).values()], axis=0)
    frames = [
        beyond(of_frame(frame) | {"jump": float(jump), "unsure": float(doubt)}, limits) for frame, jump, doubt in zip(labels, jumps, unsure, strict=True)
    ]
    return {sign: found for sign in SIGNS if (found := [number for number, signs in enumerate(frames, start=1) if sign in signs])}


def beyond(measures: Measures, limits: Mapping[str, float] = LIMITS) -> list[str]:
    """The signs that are beyond their limit, of those that have one."""
    return [sign for sign, value in measures.items() if value > limits.get(sign, np.inf)]


def describe(signs: Mapping[str, Sequence[int]]) -> str:
    """What `of_cine` found, in words."""

    def frames(numbers: Sequence[int]) -> str:
        few = ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")
        return f"frame{'s' if len(numbers) > 1 else ''} {few}"

    return "; ".join(f"{frames(numbers)} ({SIGNS[sign]})" for sign, numbers in signs.items())


def _second(mask: np.ndarray) -> float:
    """The volume of the second largest component as a share of the largest."""
    components, count = ndimage.label(mask)
    if count < 2:
        return 0.0
    sizes = np.sort(np.bincount(components.flat)[1:])
    return float(sizes[-2] / sizes[-1])


def _open(labels: np.ndarray) -> float:
    """Of the middle third of the slices with LV, the largest share of its border that lies on no myocardium."""
    slices = np.flatnonzero((labels == STRUCTURES["LV"]).any((1, 2)))
    third, shares = len(slices) // 3, [0.0]
    for z in slices[third : len(slices) - third]:
        cavity = labels[z] == STRUCTURES["LV"]
        border = ndimage.binary_dilation(cavity) & ~cavity
        shares.append(float(np.mean(labels[z][border] != STRUCTURES["MYO"])) if border.any() else 0.0)
    return max(shares)


def _gaps(mask: np.ndarray) -> int:
    """Empty slices between others."""
    shown = np.flatnonzero(mask.any((1, 2)))
    return int(shown[-1] - shown[0] + 1 - len(shown)) if len(shown) else 0


def _jumps(curve: np.ndarray) -> np.ndarray:
    """How far each volume (frames,) lies outside of those of both neighbours, as a share of the largest.

    At end-systole a volume does so too, but with twenty frames a beat by far less than the limit.
    """
    if len(curve) < 3 or not curve.max():
        return np.zeros(len(curve))
    before, after = curve[:-2], curve[2:]
    outside = np.maximum(curve[1:-1] - np.maximum(before, after), np.minimum(before, after) - curve[1:-1])
    return np.pad(np.maximum(outside, 0) / curve.max(), 1)
