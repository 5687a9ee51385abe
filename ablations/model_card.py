"""The generated parts of docs/model_card.md, of what the network's twin did on patients whom it had not seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ica_unet_jax.evaluation import robustness
from ica_unet_jax.evaluation.corruptions import ORIENTATIONS, OTHERS
from ica_unet_jax.labels import STRUCTURES
from ica_unet_jax.metrics import cases
from ica_unet_jax.reporting.markup import number

ALLOWED = ((ORIENTATIONS, "Of other orientations", 0.02), (OTHERS, "Of what else was done to the images", 0.03))  # loss of Dice


def answer(rows: Sequence[cases.Row]) -> str:
    """The Dice in a sentence; `rows` of an evaluation."""
    found = cases.summarize(rows)
    each = ", ".join(f"{name} {number(found['dice'][name], 3)}" for name in STRUCTURES)
    return f"**Mean Dice {number(found['dice']['mean'], 3)}** ({each}) on {found['n_patients']} cines at end-diastole and end-systole."


def corruptions(rows: Sequence[robustness.Row]) -> str:
    """What each corruption costs, and whether it costs more than it may."""
    lost, said = robustness.losses(rows), []
    for names, words, allowed in ALLOWED:
        worst = min(names, key=lost.__getitem__)
        beyond = [f"{name} ({number(lost[name], 3, signed=True)})" for name in names if lost[name] < -allowed]
        text = f"**{words} the worst, {worst}, changes the mean Dice by {number(lost[worst], 3, signed=True)}.** "
        said.append(text + (f"More than {allowed:g} is lost by: {'; '.join(beyond)}." if beyond else f"None loses more than {allowed:g}."))
    return f"{' '.join(said)}\n\n{robustness.costs(rows)}"


def doubted(rows: Sequence[robustness.Row], limits: Mapping[str, float]) -> str:
    """How well the signs of doubt, beyond these limits, find the frames that failed."""
    return f"{robustness.failures(rows, limits)}\n\n{robustness.doubts_table(rows, limits)}"


def timed(streams: Sequence[Mapping[str, Any]]) -> str:
    """How long a frame takes, in each of some streams of the same cine."""
    first = streams[0]
    each = "; ".join(
        f"{ran['compute_dtype']}: arrival to mask p50 {ran['arrival_to_mask_ms']['p50']:.0f} ms, p95 {ran['arrival_to_mask_ms']['p95']:.0f}, {ran['answered']:,} of {ran['frames']:,} frames answered, "
        f"{ran['deadline_misses']} later than {ran['deadline_ms']:.0f} ms, the latest after {ran['arrival_to_mask_ms']['max']:.0f}"
        for ran in streams
    )
    return f"Frames of {'x'.join(map(str, first['shape']))}, {first['rate']:g} a second for {first['seconds']:.0f} seconds, {first['runtime']}, {first['provenance']['cores']} cores ({first['provenance']['machine']}). {each}."


def short(rows: Sequence[cases.Row], seen: Sequence[robustness.Row], simulated: Sequence[cases.Row]) -> str:
    """The first screen's sentence about the network that comes with the package."""
    lost, found = robustness.losses(seen), cases.summarize(rows)
    worst, phantom = min(lost[name] for name in ORIENTATIONS), cases.summarize(simulated)["dice"]["mean"]
    return (
        f"It learned from all 100 patients. Its twin, trained on 80 of them, has a mean Dice of {number(found['dice']['mean'], 3)} on the other {found['n_patients']}; turned or mirrored at most "
        f"{number(-worst, 3)} less; on simulated hearts, which it never saw, {number(phantom, 3)}. It is not a medical device ([model card](docs/model_card.md))."
    )
