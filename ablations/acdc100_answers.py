"""The answers of docs/results/acdc100.md: what 100 patients say to each question, and what fewer patients said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ablations import acdc100, acdc100_pairs, committed, networks
from ica_unet_jax.reporting.markup import number, plain_table
from ica_unet_jax.runtime import launch_files


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
    parts = f"With the loss of Eq. 2 alone a term changes mean Dice by: {said}", acdc100.smallest(found, acdc100.TERMS), acdc100_pairs.said("loss_terms")
    return " ".join(filter(None, (*parts, decided("design", ["with reconstruction"]))))


def decided(name: str, titles: Sequence[str], **leads: str) -> str:
    """What a study decides about some of its cells, as `acdc100.beside`, and the smallest effect that it could have decided."""
    said = acdc100.beside(name, titles, **leads)
    return said if said == acdc100.NOT_FINISHED else f"{said} {acdc100.smallest(acdc100.study(name), titles)}".rstrip()


def plain() -> str:
    """What plain U-Nets give, and what is less sure of all rivals."""
    said = decided("main", acdc100.RIVALS[:2], better="More.", worse="Less.", as_good="As much.")
    return said if said == acdc100.NOT_FINISHED else " ".join(
        filter(None, (said, acdc100.if_all_shared("main"), acdc100.between("main", acdc100.RIVALS[0], acdc100.RECOMMENDED), acdc100_pairs.said("main")))
    )


def gain() -> str:
    """Of the recommended network, and what it has with its own augmentation."""
    said, found = decided("main", [acdc100.RECOMMENDED], better="Dice.", worse="Nothing.", as_good="Nothing."), acdc100.study("design")
    if said == acdc100.NOT_FINISHED or not found:
        return said
    own, steps = number(found.reference.dice["mean"].mean, 3), launch_files.read(networks.LAUNCH / "recommended.flags")["steps"]
    return f"{said} This is with the augmentation of the others. With its own, made for {steps:,} steps and for other scanners, it has {own} after as many steps (*the whole network*)."


def streams() -> str:
    """Of 40 patients in the recommended network, with the time of a frame, and of 21 in the paper's method."""
    said, found = decided("design", acdc100.STREAMS), acdc100.study("design")
    if said != acdc100.NOT_FINISHED:
        times = [f"{line.title} {number(line.frame_ms, 0)} ms" for line in found.lines if line.title in (found.reference.title, *acdc100.STREAMS) and line.frame_ms]
        said += f" {acdc100.between('design', *acdc100.STREAMS)}".rstrip()
        said += f" The whole network has one wide U-Net over all bases (*dense*). A frame takes {', '.join(times)}." * bool(times)
    return f"{said} {fewer(*(Source('acdc_mini/streams', title, 'ablations.md') for title in ('shared streams', 'dense, equal work')))}"


def fewer(*sources: Source) -> str:
    """What an older study says of some of its cells, beside which, and the smallest effect that it could have decided."""
    lines = [committed.named(source.csv, source.title) for source in sources]
    [(csv, page)] = {(source.csv, source.page) for source in sources}
    [reference] = (other["title"] for other in committed.lines(csv) if other["kind"] == "reference")
    folder, name = csv.split("/")
    said = "; ".join(f"{line['title']} ({committed.change(line)}), {line['decision']}" for line in lines)
    found = acdc100.analyses(committed.RESULTS / folder)[name]
    smallest = acdc100.smallest(found, [source.title for source in sources])
    return f"On the {found.patients} patients of ACDC-mini, beside {reference}: {said}. {smallest} ([{page.removesuffix('.md')}]({page}))"


QUESTIONS: dict[str, Callable[[], str]] = {
    "What does each ICA term of the loss do?": terms,
    "What would a plain U-Net have given?": plain,
    "And the rivals of the paper?": lambda: decided("main", acdc100.RIVALS[2:], better="More.", worse="Less.", as_good="As much."),
    "Is ICA needed at all? (The network without it has decoders that see the frame. ICA-UNet's do not; those of the whole recommended network do.)": lambda: " ".join(
        decided(name, ["no ICA"], better="No.", worse="Yes.", as_good="No.") for name in ("main", "design")
    ),
    "What does the recommended network gain?": gain,
    "And the paper, read literally?": lambda: decided("main", ["paper, n = 3"]),
    "Are independent streams worth their time?": streams,
    "Which bases are needed, learned ones or those computed from the frame?": lambda: " ".join(
        filter(None, (decided("design", ["bases from the frame alone", "dictionary alone"]), acdc100_pairs.said("design")))
    ),
    "How many bases are enough?": lambda: "Not run on 100 patients. "
    + fewer(*(Source("acdc_mini/basis_dimension", f"m = {m}", "ablations.md") for m in (8, 16, 64))),
    "Does the neighbouring frame help?": lambda: (
        "Not asked of ACDC-100, where neighbours are real only round the heart. Asked was whether the frame after helps. "
        + fewer(Source("causal_acdc_mini/causal", "t-1 alone", "causal.md"))
        + " No study asked of the frame before alone. But a network trained with both gave the same Dice with copies of the frame in their places ([neighbours](neighbours.md))."
    ),
}
