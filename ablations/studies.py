"""The studies: each asks one question of the method and changes one thing.

To add one, append a `Study` to `STUDIES`.
"""

from __future__ import annotations

import math

from ablations.networks import NETWORKS
from ica_unet_jax.benchmarking import work
from ica_unet_jax.config import Config
from ica_unet_jax.errors import UserError
from ica_unet_jax.sweeps import titles
from ica_unet_jax.sweeps.study import Cell, Changes, Study


def number_of_bases(reference: Config) -> list[Cell]:
    """Other numbers of bases, alone and with the stream width that keeps m * p, and so the number of channels."""
    width = reference.model.bases * reference.model.stream_width
    alone = [dict(bases=m) for m in BASES]
    return alone + [dict(bases=m, stream_width=width // m) for m in BASES if width % m == 0]


def students(reference: Config) -> list[Cell]:
    """Causal networks that learn also what one that sees t+1 makes of each frame; a quarter of the batch is unlabelled."""
    quarter = reference.train.batch_size // 4
    taught = dict(distillation_weight=1.0, unlabelled=quarter)
    return [(f"{titles.WORDS['neighbours'][kind]}, taught", dict(neighbours=kind, **taught)) for kind in ("past", "two_past")]


def dense_twins(reference: Config) -> list[Cell]:
    """The plain U-Net over m channels whose work, or whose number of parameters, is nearest the reference's."""
    return [
        ("dense, equal work", work.dense_twin(reference.model)),
        ("dense, equal parameters", work.dense_twin(reference.model, work.parameters)),
    ]


def multiple_of_64(base: Config) -> Changes:
    """The grid on which two, three and four contracting blocks fit."""
    d, h, w = base.model.crop
    return dict(crop=(d, 64 * math.ceil(h / 64), 64 * math.ceil(w / 64)))


BASES = (8, 16, 32, 64)
TERMS = {"sparsity_weight": "S", "independence_weight": "I", "reconstruction_weight": "R"}

STUDIES = (
    Study(
        "loss_terms",
        "What does each of the three ICA terms do: sparsity (S), independence (I), reconstruction (R)?",
        "3, Eq. 1",
        [
            ("all three", {}),
            *((f"without {letter}", {term: 0.0}) for term, letter in TERMS.items()),
            *((f"{letter} alone", {other: 0.0 for other in TERMS if other != term}) for term, letter in TERMS.items()),
            ("none", dict(ica_weight=0.0)),
        ],
        dict(dice_weight=0.0),  # Eq. 2 alone
        factors=TERMS,
    ),
    Study(
        "basis_dimension",
        "How many bases are needed, and is it their number m or the width that comes with it?",
        "3",
        number_of_bases,
        trends={"p constant": ("bases",), "m x p constant": ("bases", "stream_width")},
    ),
    Study(
        "contracting_blocks",
        "How many contracting blocks?",
        "3; Tables 1 and 2",
        [dict(contracting_blocks=n) for n in (2, 3, 4)],
        multiple_of_64,
    ),
    Study("projection_width", "How many channels u should a basis have?", "3", [dict(projection_width=u) for u in (1, 2, 4, 8)]),
    Study(
        "bases_from",
        "Can the bases be computed from the frame alone?",
        "3",
        [dict(bases_from=kind) for kind in ("frame", "frame_with_coordinates", "dictionary", "dictionary_and_frame")],
    ),
    Study("ica_weight", "How much weight should the ICA loss have?", "3, Eq. 2", [dict(ica_weight=beta) for beta in (0.0, 0.05, 0.2, 1.0)]),
    Study("alpha", "Does alpha of the independence term matter?", "3, Eq. 1", [dict(alpha=alpha) for alpha in (0.5, 0.75, 1.0)]),
    Study(
        "neighbours",
        "What are the neighbouring frames worth, and can a causal network do without the next?",
        "3",
        lambda reference: [*(dict(neighbours=kind) for kind in ("both", "past", "two_past", "none")), *students(reference)],
        dict(neighbours="both", distillation_weight=0.0, unlabelled=0),
    ),
    Study(
        "correlation",
        "How far should the correlation with a neighbour reach?",
        "3",
        [dict(correlation_radius=radius) for radius in (0, 1, 2, 4)],
    ),
    Study(
        "streams",
        "Are independent streams worth their parameters, and what does a plain U-Net over the bases do?",
        "3",
        lambda reference: [dict(streams="independent"), dict(streams="shared"), *dense_twins(reference)],
    ),
    Study(
        "supervision",
        "Do the coarser outputs help as additional supervision?",
        "3, Eq. 2",
        [("all outputs", {}), ("the finest output alone", dict(auxiliary_weight=0.0))],
    ),
)  # fmt: skip


KNOWN = {study.name: study for study in (*STUDIES, *NETWORKS)}


def choose(names: str) -> list[Study]:
    """The studies of a comma-separated list, or of "all" of `STUDIES`; UserError for a name that is not known."""
    if names == "all":
        return list(STUDIES)
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    for name in chosen:
        if name not in KNOWN:
            raise UserError(f"--studies={names}: {name} is not known; choose all, or some of {', '.join(KNOWN)}.")
    if not chosen:
        raise UserError(f"--studies is empty: give all, or some of {', '.join(KNOWN)}.")
    return [KNOWN[name] for name in dict.fromkeys(chosen)]
