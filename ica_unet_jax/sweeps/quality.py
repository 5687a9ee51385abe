"""The table of how good the bases are as an ICA, and of how much each term of the loss weighs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ica_unet_jax.evaluation.pages import ICA as SHOWN
from ica_unet_jax.reporting.markup import Column, Item, Row, Table, counted
from ica_unet_jax.sweeps.analysis import Analysis
from ica_unet_jax.sweeps.results import ICA, ICA_EXTRA
from ica_unet_jax.sweeps.segmentation import item

_NOT_IN_PAPER = ("kurtosis", "psnr", "n_constant", "n_values")
_NOTE = (
    "Means over frames, then patients. |X|: mean absolute value of the bases; no other figure of the bases depends on their scale. "
    "Hoyer and kurtosis: sparsity. Correlation and mutual information: mean over pairs of bases, 0 if independent; the histogram "
    "behind mutual information leaves more of it the fewer values a basis has. Constant bases are in none of these. Explained "
    "variance and PSNR: of the frame as the bases rebuild it."
)
_TERMS = " Cross-entropy and weighted terms: the loss on the judged frames, in nats. Negentropy: of the contrast at the trained alpha."
_PEER = " FastICA (scikit-learn) is fitted anew to each frame; a network has seen none of them in its training."


def ica_table(analysis: Analysis) -> Table:
    """The cells that have bases, and FastICA at the same numbers of bases."""
    names = [name for name in SHOWN if any(name in line.ica for line in analysis.lines)]
    rows = []
    for line in analysis.lines:
        title = f"{line.title} (reference)" if line.is_reference and line.title != "reference" else line.title
        figures = [] if line.state else [item(line.ica.get(name), SHOWN[name][1]) for name in names]
        rows.append(Row([Item(title), *figures], line.state, "reference" if line.is_reference else ""))
    for m, found in analysis.peers.items():
        figures = [item(found.get(name), SHOWN[name][1]) for name in names] if found else []
        rows.append(Row([Item(_peer(m, found)), *figures], "" if found else "incomplete: some folds are missing", "peer"))
    columns = [Column("Cell", number=False), *(Column(SHOWN[name][0], name not in _NOT_IN_PAPER) for name in names)]
    note = _NOTE + _TERMS * ("cross_entropy" in names) + _PEER * bool(analysis.peers)
    caption = f"Quality of the bases as an ICA, means over {counted(analysis.patients, analysis.noun)}."
    return Table("ICA quality", columns, rows, note, caption)


def csv_peers(analysis: Analysis) -> list[dict[str, Any]]:
    """FastICA's lines."""
    return [
        {"title": _peer(m, found), "kind": "peer", "bases": m, "state": "" if found else "incomplete"}
        | {name: found.get(name) for name in (*ICA, *ICA_EXTRA)}
        for m, found in analysis.peers.items()
    ]


def _peer(m: int, figures: Mapping[str, float]) -> str:
    converged = figures.get("converged", 1.0)
    return f"FastICA, m = {m}" + (f" (converged on {100 * converged:.0f} % of frames)" if converged < 1 else "")
