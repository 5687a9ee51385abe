"""The Markdown page of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ica_unet_jax.evaluation import where_lost
from ica_unet_jax.labels import STRUCTURES
from ica_unet_jax.metrics import cases
from ica_unet_jax.metrics.surface import NSD_MM
from ica_unet_jax.reporting.markup import number, plain_table

OVER_TIME = {"Roughness": "roughness", "Dice t, t+1": "neighbour_dice"}
ICA = {  # heads, digits
    "scale_of_bases": ("|X|", 3),
    "frame_share": ("Share of X's energy between frames", 3),
    "hoyer": ("Hoyer ↑", 3),
    "kurtosis": ("Kurtosis ↑", 2),
    "negentropy_alpha": ("Negentropy ↑", 5),
    "correlation": ("|correlation| ↓", 3),
    "mutual_information": ("Mutual information (nats) ↓", 3),
    "explained_variance": ("Explained variance ↑", 3),
    "psnr": ("PSNR (dB) ↑", 2),
    "cross_entropy": ("Cross-entropy", 3),
    "weighted_sparsity": ("Weighted sparsity", 4),
    "weighted_independence": ("Weighted independence", 4),
    "weighted_reconstruction": ("Weighted reconstruction", 4),
    "n_constant": ("Constant bases", 1),
    "n_values": ("Values a basis", 0),
}
_ICA_SHOWN = (
    "cross_entropy", "weighted_sparsity", "weighted_independence", "weighted_reconstruction",
    "scale_of_bases", "frame_share", "hoyer", "negentropy_alpha", "explained_variance",
)  # fmt: skip


def page(run: str, summary: dict[str, Any], rows: Sequence[cases.Row], faults: Sequence[where_lost.Row] = ()) -> str:
    """What `judging.evaluate` found of the run of that name: its summary, the rows it is of, and its faults slice by slice."""
    lines = [
        f"# {run}, {summary['split']}: {summary['n_patients']} patients, {summary['n_cases']} frames",
        "",
        f"Checkpoint of step {summary['checkpoint_step']} ({summary['checkpoint']}). Labelled voxels outside the "
        f"window ({summary['window']}), counted as missed: {summary['labelled_voxels_outside']} of {summary['labelled_voxels']}.",
        *(f"\n**Note:** {note}." for note in summary["notes"]),
        "",
        cases_table(rows, summary["nsd_mm"]),
    ]
    for by, domains in summary["domains"].items():
        domain = {patient: name for name, found in domains.items() for patient in found["patients"]}
        regrouped = [row | {"group": domain[row["patient"]]} for row in rows]
        lines += [f"## By {by}", "", cases_table(regrouped, summary["nsd_mm"], by.capitalize())]
    if summary["ica"]:
        lines += ["The terms as they weigh in the loss, and X, averaged over its channels, as an ICA; means over frames, then patients.", ""]
        lines += [ica_table(summary["ica"]), ""]
    if faults:
        lines += ["## Where the Dice is lost", "", where_lost.page(faults, summary["grid_dice"])]
    if summary["over_time"]:
        header = ["Whole cine", "Frames", *(f"{measure} {s}" for measure in OVER_TIME for s in STRUCTURES)]
        curves = [_line(name, known["n_frames"], known["prediction"]) for name, known in summary["over_time"].items()]
        curves.append(_line("mean", "", summary["over_time_mean"]["prediction"]))
        if truth := summary["over_time_mean"].get("truth"):  # of those patients whose frames all have one
            curves.append(_line(f"ground truth, mean of {truth['n_patients']}", "", truth))
        lines.append(plain_table(header, curves))
    return "\n".join(lines) + "\n"


def _line(name: str, frames: int | str, known: dict[str, Any]) -> list[object]:
    return [name, frames, *(number(known[measure][s], 3) for measure in OVER_TIME.values() for s in STRUCTURES)]


def cases_table(rows: Sequence[cases.Row], nsd_mm: float = NSD_MM, head: str = "Group") -> str:
    """Dice (mean ± SD over patients), HD95 and normalized surface Dice (mean) per structure, by group and phase.

    "n" are the patients; "n mm" those with a spacing to be trusted, whom HD95 (of structures that are found) and
    surface Dice are over; "Missed" the cases in which only one of prediction and truth has the structure. nsd_mm: the
    tolerance that the rows were judged with; head: what the groups are.
    """
    header = [head, "Phase", "n", *(f"Dice {name}" for name in STRUCTURES)]
    header += [*(f"HD95 {name} (mm)" for name in STRUCTURES), *(f"NSD {name} ({nsd_mm:g} mm)" for name in STRUCTURES)]
    header += ["n mm", f"Missed {' / '.join(STRUCTURES)}"]
    lines = []
    phases = {row["phase"] for row in rows}
    parts = {phase: {phase} for phase in ("ED", "ES") if phase in phases}
    if phases == {"ED", "ES"}:
        parts["both"] = phases
    elif "" in phases:
        parts["all frames"] = phases
    for group in ("", *sorted({row["group"] for row in rows} - {""})):
        for part, members in parts.items():
            chosen = [row for row in rows if group in ("", row["group"]) and row["phase"] in members]
            if chosen:
                lines.append([group or "all", part, *_cells(cases.summarize(chosen))])
    return plain_table(header, lines) + "\n"


def _cells(summary: dict[str, Any]) -> list[str]:
    overlaps = [f"{number(summary['dice'][s], 3)} ± {number(summary['dice_sd'][s], 3)}" for s in STRUCTURES]
    distances = [number(summary["hd95_mm"][s], 2) for s in STRUCTURES]
    surfaces = [number(summary["nsd"][s], 3) for s in STRUCTURES]
    missed = " / ".join(str(summary["n_missed"][s]) for s in STRUCTURES)
    return [str(summary["n_patients"]), *overlaps, *distances, *surfaces, str(summary["n_mm"]), missed]


def ica_table(figures: dict[str, float | None]) -> str:
    """One line, of the means that `decomposition.summarize` gives."""
    shown = [ICA[name] for name in _ICA_SHOWN]
    return plain_table([head for head, _ in shown], [[number(figures[name], ICA[name][1]) for name in _ICA_SHOWN]])
