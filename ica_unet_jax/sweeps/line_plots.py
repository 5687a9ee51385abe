"""The pictures of a study that have lines: Dice and time against a number that cells turn, and Dice over the steps of training."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from ica_unet_jax.runtime.files import replacing
from ica_unet_jax.sweeps.analysis import Analysis
from ica_unet_jax.sweeps.results import Sweep

Curve = Mapping[int, float]  # mean Dice by step

_MARKERS = "osD^vPX*"
_LETTER = 0.095  # inches, an average bold one of the title
_TEXT = dict(parse_math=False)  # a title may hold dollars


def trends(path: str | Path, analysis: Analysis) -> None:
    """Mean Dice against the number of each trend, single trainings as dots, and the time of a frame where it was measured. UserError where it cannot be written."""
    timed = any(line.frame_ms is not None for cells in analysis.series.values() for line in cells.values())
    figure = Figure(figsize=(5.6 * (1 + timed), 4.2), layout="constrained")
    axes = figure.subplots(1, 1 + timed, squeeze=False)[0]
    values = sorted({value for cells in analysis.series.values() for value in cells})
    for number, (title, cells) in enumerate(analysis.series.items()):
        style = dict(color=f"C{number}", marker=_MARKERS[number % len(_MARKERS)])
        axes[0].plot(list(cells), [line.dice["mean"].mean for line in cells.values()], label=title, zorder=3, **style)
        dots = [(value, dice) for value, line in cells.items() for dice in line.trainings.values()]
        axes[0].scatter(*zip(*dots, strict=True), s=9, color=f"C{number}", alpha=0.45, zorder=2)
        if timed:
            measured = {value: line.frame_ms for value, line in cells.items() if line.frame_ms is not None}
            axes[1].plot(list(measured), list(measured.values()), **style)
    axes[0].set_ylabel("mean Dice")
    if timed:
        axes[1].set_ylabel("milliseconds a frame")
    for ax in axes:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(FixedLocator(values))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.set_xlabel(" or ".join(dict.fromkeys(title.split(" ", 1)[0] for title in analysis.series)))
        ax.grid(alpha=0.25)
    _finish(path, figure, analysis)


def learned(sweep: Sweep, analysis: Analysis) -> dict[str, Curve]:
    """{title of a finished cell: its validations, means over its trainings}, at the steps at which all of them were validated."""
    found = {}
    for line in analysis.lines:
        if line.state:
            continue
        curves = [sweep.curves.get((line.cell.name, *training), {}) for training in line.trainings]
        steps = sorted(set.intersection(*map(set, curves)))
        found[line.title] = {step: math.fsum(curve[step] for curve in curves) / len(curves) for step in steps}
    return found


def learning(path: str | Path, analysis: Analysis, curves: Mapping[str, Curve]) -> None:
    """A line for each cell, the reference black. UserError where it cannot be written."""
    figure = Figure(figsize=(7.5, 4.2 + 0.06 * len(curves)), layout="constrained")
    ax = figure.subplots()
    reference = analysis.reference.title
    for number, (title, curve) in enumerate(curves.items()):
        style = dict(color="black", linewidth=2, zorder=3) if title == reference else dict(color=f"C{number % 10}", linewidth=1.2)
        ax.plot(list(curve), list(curve.values()), marker=_MARKERS[number % len(_MARKERS)], markersize=4, label=title, **style)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="step", ylabel="mean Dice of the validation patients")
    ax.grid(alpha=0.25)
    _finish(path, figure, analysis)


def _finish(path: str | Path, figure: Figure, analysis: Analysis) -> None:
    """Title, legend below, and a PNG that is the same bytes for the same figures."""
    letters = round(figure.get_figwidth() / _LETTER)
    figure.suptitle("\n".join(textwrap.wrap(f"{analysis.study.name}: {analysis.question}", letters)), fontsize=10, weight="bold", **_TEXT)
    handles, names = figure.axes[0].get_legend_handles_labels()
    columns = max(1, min(4, letters // (max(map(len, names)) + 8)))
    legend = figure.legend(handles, [textwrap.shorten(name, letters - 12, placeholder=" …") for name in names], loc="outside lower center", ncols=columns, fontsize=8, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
    FigureCanvasAgg(figure)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130, metadata={"Software": None})
