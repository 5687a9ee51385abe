"""What the small window decided, once more at full size: pairs of trainings on one fold, for docs/results/acdc100.md and the README."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from ablations import acdc100
from ica_unet_jax.reporting.markup import number, plain_table
from ica_unet_jax.sweeps import results
from ica_unet_jax.sweeps.analysis import Finding, Line

STUDY = "full_size"
PAIRS = {  # {effect on the small window, by study and title: the two networks of the study whose difference it is}
    ("main", "U-Net 2D"): ("U-Net 2D", "ICA-UNet"),
    ("loss_terms", "R"): ("Eq. 2 alone", "Eq. 2 alone, without R"),
    ("design", "bases from the frame alone"): ("bases from the frame alone", acdc100.RECOMMENDED),
}


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two networks, trained at full size, whose difference was decided on the small window."""

    study: str  # of the small window
    small: Finding
    same_fold: float  # on the small window the mean of the folds on which the pair was trained
    first: Line
    second: Line

    @property
    def title(self) -> str:
        return f"{self.first.title} minus {self.second.title}"

    @property
    def judged(self) -> float:
        """Difference of mean Dice over the validation patients, first minus second."""
        return float((acdc100.table([self.first]) - acdc100.table([self.second])).mean())


def pairs() -> list[Pair]:
    """Those of which both networks were trained and the effect was decided."""
    if not (found := acdc100.study(STUDY)):
        return []
    done = {line.title: line for line in found.lines if not line.state}
    made = []
    for (study, title), titles in PAIRS.items():
        small = next((one for one in of.decided if one.title == title), None) if (of := acdc100.study(study)) else None
        if small and done.keys() >= set(titles):
            first, second = (done[name] for name in titles)
            each = acdc100.by_training(of, title)
            made.append(Pair(study, small, sum(each[training] for training in first.trainings) / len(first.trainings), first, second))
    return made


def said(study: str) -> str:
    """In a sentence what a pair at full size gave for an effect of a study; "" where none was trained."""
    known = [f"{pair.title} {_signed(pair.judged)} (this fold on the small window: {_signed(pair.same_fold)})" for pair in pairs() if pair.study == study]
    return f"Once more at full size, one training each on {_folds(STUDY)}: {'; '.join(known)}." if known else ""


def table() -> str:
    """The pairs, beside what was decided on the small window."""
    if not (found := pairs()):
        return acdc100.NOT_FINISHED
    curves = [[acdc100.curves(STUDY, line) for line in (pair.first, pair.second)] for pair in found]
    steps = sorted(set.intersection(*(set(curve) for pair in curves for of_line in pair for curve in of_line)))
    rows, changing = [], []
    for pair, ([one], [other]) in zip(found, curves, strict=True):
        during = [one[step] - other[step] for step in steps]
        small = (f"{acdc100.change(pair.small.contrast)}, {pair.small.decision}", _signed(pair.same_fold))
        rows.append([pair.title, *small, *(_signed(value) for value in (*during, pair.judged))])
        if len({value > 0 for value in during}) > 1:
            changing.append(pair.title)
    heads = ["Difference", "Small window", f"Small window, {_folds(STUDY)}", *(f"step {step}" for step in steps), "Judged"]
    turned = [pair.title for pair in found if pair.judged * pair.small.contrast.difference < 0]
    left = [title for titles in PAIRS.values() if (title := " minus ".join(titles)) not in {pair.title for pair in found}]
    words = [
        f"As judged, the sign is another one than on the small window for: {'; '.join(turned)}." if turned else "As judged, the signs are those of the small window.",
        f"The sign changes during training of: {'; '.join(changing)}." if changing else "",
        f"Not finished: {'; '.join(left)}." if left else "",
    ]
    return f"{plain_table(heads, rows, [False, False, *[True] * (len(steps) + 2)])}\n\n{' '.join(filter(None, words))}"


def _folds(study: str) -> str:
    return results.numbered("fold", acdc100.study(study).study.folds)


def _signed(value: float) -> str:
    return number(value, 3, signed=True)


PARTS: dict[str, Callable[[], str]] = {"full_size": table, "full_size_made": lambda: acdc100.made(STUDY)}
