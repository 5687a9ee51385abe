"""The studies: each asks one question of the method and changes one thing.

To add one, append a `Study` to `STUDIES`: a cell is a set of knobs of `ica_unet_jax.config`, changed from the reference.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ica_unet_jax import flops
from ica_unet_jax.config import Config
from ica_unet_jax.errors import UserError

Changes = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Study:
    """A question, and the cells that answer it beside the reference, which is always the first."""

    name: str
    question: str
    section: str  # of the paper
    cells: Sequence[Changes] | Callable[[Config], Sequence[Changes]]  # a function where they depend on the reference
    reference: Callable[[Config], Changes] = lambda config: {}  # what the study itself needs

    def configs(self, base: Config) -> list[Config]:
        """The reference and the cells, without doubles, in order."""
        reference = base.replace(**self.reference(base))
        cells = self.cells(reference) if callable(self.cells) else self.cells
        return list(dict.fromkeys([reference, *(reference.replace(**cell) for cell in cells)]))


def label(config: Config, reference: Config) -> str:
    """The name of a row: what differs from the reference, from the configurations themselves."""
    changes = config.diff(reference)
    return ", ".join(f"{knob}={_text(value)}" for knob, value in changes.items()) or "reference"


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def constant_width(reference: Config) -> list[Changes]:
    """Other numbers of bases with the stream width that keeps m * p, so that the number of channels stays."""
    width = reference.model.bases * reference.model.stream_width
    return [dict(bases=m, stream_width=width // m) for m in BASES if width % m == 0]


def students(reference: Config) -> list[Changes]:
    """Causal networks that learn also what one that sees t+1 makes of each frame; a quarter of the batch is unlabelled."""
    quarter = reference.train.batch_size // 4
    return [dict(neighbours=kind, distillation_weight=1.0, unlabelled=quarter) for kind in ("past", "two_past")]


def dense_twins(reference: Config) -> list[Changes]:
    """The plain U-Net over m channels whose work, or whose number of parameters, is nearest the reference's."""
    return [flops.dense_twin(reference.model), flops.dense_twin(reference.model, flops.parameters)]


def multiple_of_64(base: Config) -> Changes:
    """The grid on which two, three and four contracting blocks fit."""
    d, h, w = base.model.crop
    return dict(crop=(d, 64 * math.ceil(h / 64), 64 * math.ceil(w / 64)))


BASES = (4, 8, 16, 32, 64)
TERMS = ("sparsity_weight", "independence_weight", "reconstruction_weight")

STUDIES = (
    Study(
        "loss_terms",
        "Which of the three ICA terms matter?",
        "2.3",
        [
            *({term: 0.0} for term in TERMS),
            *({other: 0.0 for other in TERMS if other != term} for term in TERMS),
            dict(ica_weight=0.0),
            dict(standardize_bases=True),
            dict(whiten_bases=True),
        ],
    ),
    Study(
        "basis_dimension",
        "How many bases are needed, and is it their number or the width that comes with it?",
        "3",
        lambda reference: [*(dict(bases=m) for m in BASES), *constant_width(reference)],
    ),
    Study(
        "contracting_blocks",
        "How many contracting blocks?",
        "3, Table 1 and 2",
        [dict(contracting_blocks=n) for n in (2, 3, 4)],
        multiple_of_64,
    ),
    Study("projection_width", "How many channels u should a basis have?", "2.1", [dict(projection_width=u) for u in (1, 2, 4, 8)]),
    Study(
        "bases_from",
        "Can the bases be computed from the frame alone?",
        "2.1",
        [dict(bases_from=kind) for kind in ("frame", "frame_with_coordinates", "dictionary", "dictionary_and_frame")],
    ),
    Study("ica_weight", "How much weight should the ICA loss have?", "2.3", [dict(ica_weight=beta) for beta in (0.0, 0.05, 0.2, 1.0)]),
    Study("alpha", "Does alpha of the independence term matter?", "2.3", [dict(alpha=alpha) for alpha in (0.5, 0.75, 1.0)]),
    Study(
        "neighbours",
        "What are the neighbouring frames worth, and can a causal network do without the next?",
        "2.2",
        lambda reference: [*(dict(neighbours=kind) for kind in ("both", "past", "two_past", "none")), *students(reference)],
        lambda base: dict(neighbours="both", distillation_weight=0.0, unlabelled=0),
    ),
    Study(
        "correlation",
        "How far should the correlation with a neighbour reach?",
        "2.2",
        [dict(correlation_radius=radius) for radius in (0, 1, 2, 4)],
    ),
    Study(
        "streams",
        "Are independent streams worth their parameters, and what does a plain U-Net over the bases do?",
        "2.2",
        lambda reference: [dict(streams="independent"), dict(streams="shared"), *dense_twins(reference)],
    ),
    Study("supervision", "Do the coarser outputs help as additional supervision?", "2.3", [dict(auxiliary_weight=0.0)]),
)  # fmt: skip


def choose(names: str) -> list[Study]:
    """The studies of a comma-separated list, or of "all"; UserError for a name that is not known."""
    known = {study.name: study for study in STUDIES}
    if names == "all":
        return list(STUDIES)
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    for name in chosen:
        if name not in known:
            raise UserError(f"--studies={names}: {name} is not known; choose all, or some of {', '.join(known)}.")
    if not chosen:
        raise UserError(f"--studies is empty: give all, or some of {', '.join(known)}.")
    return [known[name] for name in dict.fromkeys(chosen)]
