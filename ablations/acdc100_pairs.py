"""What the small window decided, once more at full size: pairs of trainings on one fold, for docs/results/acdc100.md and the README."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from ablations import acdc100
from ica_unet_jax.reporting.markup import number, plain_table
from ica_unet_jax.sweeps import results
from ica_unet_jax.sweeps.analysis import Finding, Line

STUDY = "full_size"
FROM_FRAME = "bases from the frame alone"
PAIRS = {  # {what a study of the small window decides upon, by its name and title: (two networks at full size, the same two in that study)}
    ("main", "U-Net 2D"): (("U-Net 2D", "ICA-UNet"), ("U-Net 2D", "ICA-UNet")),
    ("loss_terms", "R"): (("Eq. 2 alone", "Eq. 2 alone, without R"), ("all three", "without R")),
    ("design", FROM_FRAME): ((FROM_FRAME, acdc100.RECOMMENDED), (FROM_FRAME, "the whole network")),
}


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two networks, each trained once at full size, beside what a study of the small window says of their difference."""

    study: str  # of the small window
    small: Finding
    same_fold: float  # the difference of the same two there, on the fold of the pair
    first: Line
    second: Line

    @property
    def title(self) -> str:
        return f"{self.first.title} minus {self.second.title}"

    @property
    def judged(self) -> float:
        """Difference of mean Dice over the validation patients, first minus second."""
        return self.first.dice["mean"].mean - self.second.dice["mean"].mean


def pairs() -> list[Pair]:
    """Those of which both networks have figures; KeyError where a study of the small window lacks a name or a fold."""
    lines, made = _lines(), []
    for (study, title), (titles, twins) in PAIRS.items():
        if all(name in lines and not lines[name].state for name in titles) and (of := acdc100.study(study)):
            first, second = (lines[name] for name in titles)
            [training] = first.trainings
            there = {line.title: line.trainings for line in of.lines}
            same_fold = there[twins[0]][training] - there[twins[1]][training]
            made.append(Pair(study, {one.title: one for one in of.decided}[title], same_fold, first, second))
    return made


def said(study: str) -> str:
    """In a sentence what a pair at full size gave beside a study of the small window; "" where none was trained."""
    known = [f"{pair.title} {_signed(pair.judged)} (this fold on the small window: {_signed(pair.same_fold)})" for pair in pairs() if pair.study == study]
    return f"Once more at full size, one training each on {_fold()}: {'; '.join(known)}." if known else ""


def judged(study: str, title: str) -> float | None:
    """The difference at full size beside what a study decides upon, first minus second; None where no pair was trained."""
    return next((pair.judged for pair in pairs() if (pair.study, pair.small.title) == (study, title)), None)


def table() -> str:
    """The pairs, beside what the small window says."""
    if not (found := pairs()):
        return acdc100.NOT_FINISHED
    curves = [[acdc100.curves(STUDY, line) for line in (pair.first, pair.second)] for pair in found]
    steps = sorted(set.intersection(*(set(curve) for pair in curves for of_line in pair for curve in of_line)))
    rows, changing = [], []
    for pair, ([one], [other]) in zip(found, curves, strict=True):
        during = [one[step] - other[step] for step in steps]
        small = (f"{acdc100.change(pair.small.contrast)}, {pair.small.decision}", _signed(pair.same_fold))
        dice = ", ".join(number(line.dice["mean"].mean, 3) for line in (pair.first, pair.second))
        rows.append([pair.title, *small, *(_signed(value) for value in (*during, pair.judged)), dice])
        if len({value > 0 for value in during}) > 1:
            changing.append(pair.title)
    heads = ["Difference", "Small window", f"Small window, {_fold()}", *(f"step {step}" for step in steps), "Judged", "Mean Dice of both"]
    turned = [pair.title for pair in found if acdc100.kind(pair.small.decision) in ("better", "worse") and pair.judged * pair.small.contrast.difference < 0]
    words = [
        f"As judged, the sign is another one than on the small window for: {'; '.join(turned)}." if turned else "As judged, no sign is another one than on the small window.",
        f"Judged at full size, of the same fold's difference on the small window: {'; '.join(f'{pair.title} {pair.judged / pair.same_fold:.0%}' for pair in found)}.",
        f"The sign changes during training of: {'; '.join(changing)}." if changing else "",
        *_without_figures({pair.title for pair in found}),
    ]
    return f"{plain_table(heads, rows, [False, False, *[True] * (len(steps) + 2), False])}\n\n{' '.join(filter(None, words))}"


def _lines() -> dict[str, Line]:
    found = acdc100.study(STUDY)
    return {line.title: line for line in found.lines} if found else {}


def _without_figures(there: set[str]) -> list[str]:
    """Why a pair is not in the table."""
    lines = _lines()
    left = [titles for titles, _ in PAIRS.values() if " minus ".join(titles) not in there]
    why = [", ".join(f"{name}: {lines[name].state}" for name in titles if name in lines and lines[name].state) for titles in left]
    return [f"No figures of {' minus '.join(titles)} ({state or 'not run'})." for titles, state in zip(left, why, strict=True)]


def _fold() -> str:
    return results.numbered("fold", acdc100.study(STUDY).study.folds)


def _signed(value: float) -> str:
    return number(value, 3, signed=True)


PARTS: dict[str, Callable[[], str]] = {"full_size": table, "full_size_made": lambda: acdc100.made(STUDY)}
