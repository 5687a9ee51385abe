"""The tables of a sweep: `write_all` makes all pages, CSV and LaTeX files, plots, the index and the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ica_unet_jax.reporting import markup
from ica_unet_jax.reporting.markup import NONE, Column, Item, Page, Row, Table, counted
from ica_unet_jax.runtime.files import write_text
from ica_unet_jax.sweeps import html_report, line_plots, plots, quality, results, segmentation
from ica_unet_jax.sweeps.analysis import Analysis, analyse
from ica_unet_jax.sweeps.lines import csv_text
from ica_unet_jax.sweeps.results import Sweep, numbered
from ica_unet_jax.sweeps.segmentation import item
from ica_unet_jax.sweeps.statistics import DELTA
from ica_unet_jax.sweeps.study import Study

TIMES = ("seconds_per_step", "compile_seconds", "training_seconds", "evaluation_seconds")


def write_all(workdir: str | Path, studies: Mapping[str, Study] | None = None, delta: float = DELTA) -> None:
    """Writes NAME.md, .csv, .tex and the pictures of every study (see `draw`), timings.md and .csv, index.md and report.html into `workdir`.

    From what the folder holds and from what `studies` and launch/acdc.flags are now; called again whenever a cell has finished.

    Args:
      workdir: the sweep's folder.
      studies: by name, as they are defined now; one that is not there is told in the words that it was planned with.
      delta: a difference of Dice below this is as good as none.

    Raises:
      UserError: a file there is missing or damaged, or cells of one study do not belong into one table.
    """
    workdir = Path(workdir)
    sweep = results.read(workdir)
    analyses = [analyse(sweep, study, (studies or {}).get(study.name), delta) for study in sweep.studies]
    pages = [page(analysis, draw(workdir, sweep, analysis)) for analysis in analyses]
    for made in pages:
        write_text(workdir / f"{made.name}.md", markup.markdown(made))
        write_text(workdir / f"{made.name}.tex", markup.latex(made))
    for analysis in analyses:
        write_text(workdir / f"{analysis.study.name}.csv", csv_text([*segmentation.csv_lines(analysis), *quality.csv_peers(analysis)]))
    table, lines = timings(sweep, analyses)
    blocks = ["# Timings", *html_report.openings(pages), markup.markdown_table(table), table.note]
    write_text(workdir / "timings.md", "\n\n".join(blocks) + "\n")
    write_text(workdir / "timings.csv", csv_text(lines))
    write_text(workdir / "index.md", html_report.index(sweep, analyses, pages))
    write_text(workdir / "report.html", html_report.html(sweep, pages, workdir))


def draw(workdir: Path, sweep: Sweep, analysis: Analysis) -> dict[str, str]:
    """Draws the pictures of a study; {file: what it shows}."""
    name = analysis.study.name
    plots.differences(workdir / f"{name}.png", analysis)
    drawn = {f"{name}.png": "differences to the reference"}
    if analysis.series:
        line_plots.trends(workdir / f"{name}_trends.png", analysis)
        drawn[f"{name}_trends.png"] = "the lines of the trends"
    learned = line_plots.learned(sweep, analysis)
    if len(learned) > 1 and any(len(curve) > 1 for curve in learned.values()):
        line_plots.learning(workdir / f"{name}_learning.png", analysis, learned)
        drawn[f"{name}_learning.png"] = "validation Dice over the steps of training"
    return drawn


def page(analysis: Analysis, pictures: Mapping[str, str]) -> Page:
    """The page of a study."""
    study, section = analysis.study, analysis.section
    finished = sum(not line.state for line in analysis.lines)
    facts = [counted(analysis.patients, analysis.noun) + " yet" * (not analysis.patients)]
    facts += [_trainings(study), f"{finished} of {counted(len(analysis.lines), 'cell')} finished"]
    tables = [segmentation.main_table(analysis)]
    if analysis.effects:
        tables.append(segmentation.effects_table(analysis))
    if any(line.places for line in analysis.lines):
        tables.append(segmentation.places_table(analysis))
    if any(line.ica for line in analysis.lines):
        tables.append(quality.ica_table(analysis))
    question = f"{analysis.question} (Sect. {section})" if section else analysis.question
    return Page(study.name, question, html_report.answer(analysis), "; ".join(facts) + ".", tables, analysis.opening, pictures)


def _trainings(study: results.Study) -> str:
    """As in "folds 0, 1, 2, each with seed 0"."""
    if len(study.seeds) * len(study.folds) == len(study.trainings):
        return f"{numbered('fold', study.folds)}, {'each ' * (len(study.folds) > 1)}with {numbered('seed', study.seeds)}"
    return "trainings " + ", ".join(f"fold {fold} with seed {seed}" for seed, fold in study.trainings)


def timings(sweep: Sweep, analyses: Sequence[Analysis]) -> tuple[Table, list[dict[str, Any]]]:
    """The table and the lines of its CSV: what depends on the machine and its load."""
    rows, lines, hours = [], [], 0.0
    titles: dict[str, tuple[str, str]] = {}
    for analysis in analyses:
        for line in analysis.lines:
            titles.setdefault(line.cell.name, (analysis.study.name, line.title))
    for name, (study, title) in titles.items():
        runs = [run.timing for run in sweep.runs.values() if run.cell == name and run.timing]
        if not runs:
            continue
        hours += sum((run.get(part) or 0) / 3600 for run in runs for part in TIMES[2:])
        medians = {part: _median(run.get(part) for run in runs) for part in TIMES}
        places = {part: _list(sorted({str(run.get(part) or NONE) for run in runs})) for part in ("threads", "device")}
        items = [Item(study), Item(title), Item(str(len(runs)), len(runs)), item(medians[TIMES[0]], 4)]
        items += [item(medians[part], 0) for part in TIMES[1:]] + [Item(text) for text in places.values()]
        rows.append(Row(items))
        lines.append({"study": study, "title": title, "cell": name, "runs": len(runs), **medians, **places})
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
        f"({html_report.hardware(sweep)}). Each cell stands under the first study that has it."
    )
    return Table("Timings", columns, rows, note), lines


def _median(values: Iterable[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.median(there)) if there else None


def _list(values: Iterable[Any]) -> str:
    return ", ".join(map(str, values))
