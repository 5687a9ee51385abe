"""What 100 patients say to each question of docs/results/acdc100.md, in a sentence; of fewer patients where it was not asked of these."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ablations import acdc100, committed
from ica_unet_jax.reporting.markup import plain_table
from ica_unet_jax.sweeps import segmentation


class Source(NamedTuple):
    """Where an older study stands that answers on fewer patients."""

    csv: str  # below ablations/results
    title: str
    page: str


def answers() -> str:
    """The questions of the page, each with a sentence."""
    rows = [(question, tell()) for question, tell in QUESTIONS.items()]
    return plain_table(("Question", "Answer"), rows).replace("\\*", "*")


def terms() -> str:
    """What each of the ICA terms does."""
    if not (found := acdc100.study("loss_terms")) or not found.factors:
        return acdc100.NOT_FINISHED
    effects = {effect.title: effect for effect in found.effects}
    said = acdc100.grouped([(f"{words}, {letter}", effects[letter]) for letter, words in acdc100.TERMS.items()])
    return f"A term changes mean Dice by: {said} {segmentation.limits(found)}"


def fewer(source: Source) -> str:
    """What an older study says of a cell, and beside which."""
    line = committed.named(source.csv, source.title)
    [reference] = (other["title"] for other in committed.lines(source.csv) if other["kind"] == "reference")
    return f"{source.title} beside {reference}: {committed.change(line)}, {line['decision']}"


def on_mini(*sources: Source, why: str = "Not run on 100 patients.") -> str:
    """The same in a sentence, with why there is no more."""
    pages = ", ".join(f"[{page.removesuffix('.md')}]({page})" for page in dict.fromkeys(source.page for source in sources))
    return f"{why} On the 21 patients of ACDC-mini: {'; '.join(map(fewer, sources))} ({pages}).".strip()


QUESTIONS: dict[str, Callable[[], str]] = {
    "What does each ICA term of the loss do?": terms,
    "What would a plain U-Net have given?": lambda: acdc100.with_limits("main", acdc100.beside("main", acdc100.RIVALS[:2], better="More.", worse="Less.", as_good="As much.")),
    "And the rivals of the paper?": lambda: acdc100.beside("main", acdc100.RIVALS[2:], better="More.", worse="Less.", as_good="As much."),
    "Is ICA needed at all? (The network without it has decoders that see the frame. ICA-UNet's do not; those of the whole recommended network do.)": lambda: " ".join(
        acdc100.beside(name, ["no ICA"], better="No.", worse="Yes.", as_good="No.") for name in ("main", "design") if name == "main" or acdc100.study(name)
    ),
    "What does the recommended network gain?": lambda: acdc100.beside("main", [acdc100.RECOMMENDED], better="Dice.", worse="Nothing.", as_good="Nothing."),
    "And the paper, read literally?": lambda: acdc100.beside("main", ["paper, n = 3"]),
    "Are independent streams worth their time?": lambda: " ".join((
        acdc100.beside("design", ["independent streams, equal work", "shared streams"]),
        on_mini(Source("acdc_mini/streams", "shared streams", "ablations.md"), Source("acdc_mini/streams", "dense, equal work", "ablations.md"), why=""),
    )),
    "Which bases are needed, learned ones or those computed from the frame?": lambda: acdc100.beside("design", ["bases from the frame alone", "dictionary alone"]),
    "How many bases are enough?": lambda: on_mini(
        Source("acdc_mini/basis_dimension", "m = 8", "ablations.md"), Source("acdc_mini/basis_dimension", "m = 64", "ablations.md")
    ),
    "Does the neighbouring frame help?": lambda: on_mini(
        Source("causal_acdc_mini/causal", "t-1 alone", "causal.md"),
        why="Not asked of ACDC-100, whose cines have real images round the heart alone, and mostly stop after ES.",
    ),
}
