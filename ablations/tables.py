"""The tables of a sweep: `write_all` makes all pages, CSV and LaTeX files, plots, the index and the report."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ablations import plots, report, results
from ablations.analysis import Analysis, Line, analyse
from ablations.results import ICA, Sweep, numbered
from ablations.statistics import PATIENTS_NEEDED, Contrast, Summary
from ica_unet_jax import markup
from ica_unet_jax.files import write_text
from ica_unet_jax.markup import NONE, Column, Item, Page, Row, Table, counted, number, p_value
from ica_unet_jax.metrics import STRUCTURES

PARTS = (*STRUCTURES, "mean")
SIZE = (Column("Parameters (M)"), Column("GFLOP"))  # in a paper only where they differ
MAIN = (
    Column("Cell", number=False),
    *SIZE,
    *(Column(f"Dice {part}") for part in PARTS),
    Column("Seed spread", in_paper=False),
    Column("Δ Dice [95 %]"),
    Column("p (Holm)"),
    Column("Verdict", number=False, verdict=True),
    Column("HD95 (mm)"),
    Column("HD95 cases", in_paper=False),
    Column("Missed", in_paper=False),
    Column("Δ HD95 [95 %] (cases)", in_paper=False),
)
SHOWN = {  # of ICA quality: heads, digits
    "hoyer": ("Hoyer ↑", 3),
    "kurtosis": ("Kurtosis ↑", 2),
    "correlation": ("|correlation| ↓", 3),
    "mutual_information": ("Mutual information (nats) ↓", 3),
    "explained_variance": ("Explained variance ↑", 3),
    "psnr": ("PSNR (dB) ↑", 2),
    "n_constant": ("Constant bases", 1),
    "n_values": ("Values a basis", 0),
}
_MAIN_NOTE = (
    "Dice: mean ± SD over patients; frames, then seeds, are averaged within a patient, the column mean is over "
    "RV, MYO and LV, a missed structure counts 0. Seed spread: SD over seeds of the mean Dice. Δ: paired "
    "difference to the reference over patients, its interval by a hierarchical bootstrap over seeds and patients; "
    "p: Wilcoxon signed rank over patients, Holm over the {contrasts} here. HD95: mean over patients of the "
    "distances that are finite with every seed and of known voxel size; a case is one structure of one frame; "
    "missed: only one of prediction and truth has it, with any seed; Δ HD95 is over the cases finite in both "
    "cells. Undecided: inside the larger seed spread of the two, an interval that includes 0, p not below 0.05, "
    "or too few seeds or patients. GFLOP: of one frame."
)
_MAIN_CAPTION = (
    "Dice: mean (± SD) over {over}; Δ: paired difference to the reference with its 95 % bootstrap interval; p: "
    "Wilcoxon signed rank test, corrected by Holm; HD95 over finite distances."
)
_ICA_NOTE = (
    "Means over frames, then seeds, then patients; none depends on the scale of the bases. Hoyer and kurtosis: "
    "sparsity. Correlation and mutual information: mean over pairs of bases, 0 if independent; the histogram behind "
    "mutual information leaves more of it the fewer values a basis has. Constant bases are in none of these. Explained "
    "variance and PSNR: of the frame as the bases rebuild it."
)
_PEER_NOTE = " FastICA (scikit-learn) is fitted anew to each frame; a network has seen none of them in its training."
TIMES = ("seconds_per_step", "compile_seconds", "training_seconds", "evaluation_seconds")


def write_all(workdir: str | Path) -> None:
    """Writes NAME.md, .csv, .tex and .png of every study, timings.md and .csv, index.md and report.html into `workdir`.

    From sweep.json, cells/ and peers/ alone; called again whenever a cell has finished.

    Raises:
      UserError: a file there is missing or damaged, or cells of one study do not belong into one table.
    """
    workdir = Path(workdir)
    sweep = results.read(workdir)
    analyses = [analyse(sweep, study) for study in sweep.studies]
    pages = [page(analysis) for analysis in analyses]
    for analysis, made in zip(analyses, pages, strict=True):
        plots.differences(workdir / f"{made.name}.png", analysis)
        write_text(workdir / f"{made.name}.md", markup.markdown(made))
        write_text(workdir / f"{made.name}.tex", markup.latex(made))
        write_text(workdir / f"{made.name}.csv", csv_text([*map(csv_line, analysis.lines), *csv_peers(analysis)]))
    table, lines = timings(sweep)
    write_text(workdir / "timings.md", f"# Timings\n\n{markup.markdown_table(table)}\n\n{table.note}\n")
    write_text(workdir / "timings.csv", csv_text(lines))
    write_text(workdir / "index.md", report.index(sweep, pages))
    write_text(workdir / "report.html", report.html(sweep, pages, workdir))


def page(analysis: Analysis) -> Page:
    study = analysis.study
    section = f"Sect. {study.section}" if study.section[:1].isdigit() else study.section
    facts = [counted(analysis.patients, "patient") + " yet" * (not analysis.patients)]
    facts += [numbered("seed", analysis.seeds), numbered("fold", analysis.folds)]
    facts.append(f"{sum(not line.state for line in analysis.lines)} of {counted(len(analysis.lines), 'cell')} finished")
    tables = [main_table(analysis)]
    if any(line.ica for line in analysis.lines):
        tables.append(ica_table(analysis))
    question = f"{study.question} ({section})" if section else study.question
    return Page(study.name, question, report.answer(analysis), "; ".join(facts) + ".", tables)


def main_table(analysis: Analysis) -> Table:
    rows = []
    for line in analysis.lines:
        cell = line.cell
        millions = None if cell.parameters is None else cell.parameters / 1e6
        items = [Item(line.label), _significant(millions), _significant(cell.gflop)]
        if line.state:
            rows.append(Row(items, line.state))
            continue
        items += [_mean_sd(line.dice[part], short=part != "mean") for part in PARTS]
        items.append(_item(line.dice["mean"].spread, 4))
        difference = Item(NONE, 0.0) if line.is_reference else _difference(line.contrast, 3)
        items += [difference, _p(line.contrast), _verdict(line)]
        found, emphasis = line.distances, items[-1].short
        items += [_item(line.hd95 and line.hd95.mean, 2), Item(f"{found.finite}/{found.total}", found.finite)]
        items += [Item(str(found.missed), found.missed), _difference(line.hd95_contrast, 2, line.hd95_pairs)]
        rows.append(Row(items, emphasis=emphasis))
    sizes = {(line.cell.parameters, line.cell.gflop) for line in analysis.lines}
    columns = [column._replace(in_paper=False) if len(sizes) == 1 and column in SIZE else column for column in MAIN]
    return Table("Segmentation", columns, rows, _main_note(analysis), _MAIN_CAPTION.format(over=_over(analysis)))


def ica_table(analysis: Analysis) -> Table:
    """The cells that have bases, and FastICA at the same numbers of bases."""
    names = [name for name in SHOWN if any(name in line.ica for line in analysis.lines)]
    rows = []
    for line in analysis.lines:
        if line.state:
            rows.append(Row([Item(line.label)], line.state))
        else:
            items = [_item(line.ica.get(name), SHOWN[name][1]) for name in names]
            rows.append(Row([Item(line.label), *items], emphasis="reference" if line.is_reference else ""))
    for m, figures in analysis.peers.items():
        label = Item(peer_label(m, figures))
        if figures:
            rows.append(Row([label, *(_item(figures.get(name), SHOWN[name][1]) for name in names)], emphasis="peer"))
        else:
            rows.append(Row([label], "incomplete: some folds are missing", "peer"))
    columns = [Column("Cell", number=False), *(Column(SHOWN[name][0], not name.startswith("n_")) for name in names)]
    note = _ICA_NOTE + _PEER_NOTE * bool(analysis.peers)
    return Table("ICA quality", columns, rows, note, f"Quality of the bases as an ICA, means over {_over(analysis)}.")


def peer_label(m: int, figures: Mapping[str, float]) -> str:
    converged = figures.get("converged", 1.0)
    return f"FastICA, m = {m}" + (f" (converged on {100 * converged:.0f} % of frames)" if converged < 1 else "")


def timings(sweep: Sweep) -> tuple[Table, list[dict[str, Any]]]:
    """The table and the lines of its CSV: what depends on the machine and its load."""
    rows, lines, hours = [], [], 0.0
    cells = {cell.name: (study, cell) for study in reversed(sweep.studies) for cell in study.cells}
    for name in dict.fromkeys(cell.name for study in sweep.studies for cell in study.cells):
        study, cell = cells[name]
        runs = [run.timing for run in sweep.of(name) if run.timing]
        if not runs:
            continue
        hours += sum((run.get(part) or 0) / 3600 for run in runs for part in TIMES[2:])
        medians = {part: _median(run.get(part) for run in runs) for part in TIMES}
        places = {part: _list(sorted({str(run.get(part) or NONE) for run in runs})) for part in ("threads", "device")}
        items = [Item(study.name), Item(cell.label), Item(str(len(runs)), len(runs)), _item(medians[TIMES[0]], 4)]
        items += [_item(medians[part], 0) for part in TIMES[1:]] + [Item(text) for text in places.values()]
        rows.append(Row(items))
        lines.append({"study": study.name, "cell": name, "label": cell.label, "runs": len(runs), **medians, **places})
    heads = [
        "Study",
        "Cell",
        "Runs",
        "s/step",
        "Compilation (s)",
        "Training (s)",
        "Evaluation (s)",
        "Threads",
        "Device",
    ]
    columns = [Column(head, number=head not in ("Study", "Cell", "Device")) for head in heads]
    note = (
        f"Medians over the runs; training includes compilation. Training and evaluation of all runs: {hours:.2f} hours "
        f"({report.hardware(sweep)}). Each cell stands under the first study that has it."
    )
    return Table("Timings", columns, rows, note), lines


def csv_line(line: Line) -> dict[str, Any]:
    """All figures of a cell."""
    found, hd95, distances = line.contrast, line.hd95_contrast, line.distances
    values: dict[str, Any] = {"label": line.label, "cell": line.cell.name, "state": line.state}
    values |= {"seeds_done": line.seeds_done, "parameters": line.cell.parameters, "gflop": line.cell.gflop}
    values |= {"patients": line.dice["mean"].n if line.dice else None}
    for part in PARTS:
        summary = line.dice.get(part)
        values |= {f"dice_{part}": summary and summary.mean, f"dice_{part}_sd": summary and summary.sd}
    values |= {"seed_spread": line.dice["mean"].spread if line.dice else None}
    values |= {"dice_by_seed": ";".join(f"{seed}:{value:.6g}" for seed, value in line.seeds.items())}
    names = ("difference", "low", "high", "p", "p_holm", "verdict", "why")
    values |= {name: getattr(found, name, None) for name in names}
    values |= {"hd95_mm": line.hd95 and line.hd95.mean, "hd95_mm_sd": line.hd95 and line.hd95.sd}
    values |= {f"hd95_{name}": getattr(distances, name, None) for name in ("finite", "missed", "total")}
    values |= {f"hd95_{name}": getattr(hd95, name, None) for name in ("difference", "low", "high")}
    values |= {"hd95_difference_cases": line.hd95_pairs if hd95 else None, "bases": line.bases}
    return values | {name: line.ica.get(name) for name in ICA}


def csv_peers(analysis: Analysis) -> list[dict[str, Any]]:
    return [
        {"label": peer_label(m, figures), "bases": m, "state": "" if figures else "incomplete"}
        | {name: figures.get(name) for name in ICA}
        for m, figures in analysis.peers.items()
    ]


def csv_text(lines: Sequence[Mapping[str, Any]]) -> str:
    """Six significant digits; empty for what there is not."""
    text = io.StringIO()
    heads = list(lines[0]) if lines else []
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heads)
    for line in lines:
        values = (line.get(head) for head in heads)
        writer.writerow(
            "" if v is None or (isinstance(v, float) and math.isnan(v)) else f"{v:.6g}" if isinstance(v, float) else v
            for v in values
        )
    return text.getvalue()


def _item(value: float | None, digits: int) -> Item:
    return Item(number(value, digits), value)


def _significant(value: float | None) -> Item:
    """Three significant digits."""
    return _item(value, max(0, 2 - math.floor(math.log10(value))) if value else 0)


def _mean_sd(summary: Summary, short: bool) -> Item:
    mean = number(summary.mean, 3)
    return Item(f"{mean} ± {number(summary.sd, 3)}", summary.mean, mean if short else None)


def _difference(found: Contrast | None, digits: int, pairs: int | None = None) -> Item:
    if found is None or found.difference is None:
        return Item(NONE)
    text = number(found.difference, digits, signed=True)
    if found.low is not None:
        text += f" [{number(found.low, digits)}, {number(found.high, digits)}]"
    return Item(text if pairs is None else f"{text} ({pairs})", found.difference)


def _p(found: Contrast | None) -> Item:
    p = found.p_holm if found else None
    return Item(p_value(p), p)


def _verdict(line: Line) -> Item:
    """Its `short` is the verdict without the reason."""
    if line.is_reference:
        return Item("reference", short="reference")
    if line.contrast is None:
        return Item("no finished reference yet", short="")
    verdict, why = line.contrast.verdict, line.contrast.why
    return Item(f"{verdict}: {why}" if why else verdict, short=verdict)


def _main_note(analysis: Analysis) -> str:
    note = _MAIN_NOTE.format(contrasts=counted(len(analysis.contrasts), "contrast"))
    if 0 < analysis.patients < PATIENTS_NEEDED:
        few = f"{counted(analysis.patients, 'patient')} are too few for intervals and p: {PATIENTS_NEEDED} are needed."
        note = f"{few} {note}"
    return note


def _over(analysis: Analysis) -> str:
    return f"{counted(analysis.patients, 'patient')} ({counted(len(analysis.seeds), 'seed')} each)"


def _median(values: Iterable[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.median(there)) if there else None


def _list(values: Iterable[Any]) -> str:
    return ", ".join(map(str, values))
