"""The picture of a study: every cell's difference to the reference with its interval and its single trainings, and the effects."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ica_unet_jax.reporting.markup import counted, number, p_value
from ica_unet_jax.runtime.files import replacing
from ica_unet_jax.sweeps.analysis import Analysis, Finding, Line

COLORS = {
    "better": "#0072b2",
    "worse": "#d55e00",
    "as good": "#009e73",
    "undecided": "#8c8c8c",
    "not tested": "#9d84b7",
    "reference": "#1a1a1a",
}  # for the colour-blind
_FONT = 8.5  # points
_LETTER = 0.068  # inches, an average one of this font
_BOLD = 1.12  # times as wide
_ROW = 0.31  # inches
_PLOT = 4.2  # inches
_GAP = 0.12  # inches
_TEXT = dict(parse_math=False)  # a message may hold dollars


class _Entry(NamedTuple):
    """A row of the picture."""

    title: str
    kind: str  # of COLORS
    numbers: Sequence[str]  # at its right, under `_heads`
    state: str = ""  # instead of all below
    middle: float = 0.0
    interval: tuple[float, float] | None = None
    trainings: Sequence[float] = ()
    effect: bool = False


def differences(path: str | Path, analysis: Analysis) -> None:
    """A PNG, the same bytes for the same figures. Until the reference is finished it shows mean Dice instead.

    Raises UserError where it cannot be written.
    """
    zero = 0.0 if analysis.reference.state else analysis.reference.dice["mean"].mean
    entries = [_of_line(line, analysis, zero) for line in analysis.lines] + [_of_effect(found) for found in analysis.effects]
    heads = _heads(analysis)
    columns = [heads, *(entry.numbers for entry in entries)]
    widths = [_LETTER * max(len(row[i]) for row in columns) for i in range(len(heads))]
    left = _GAP + 0.15 + _LETTER * max(len(entry.title) * (_BOLD if entry.kind == "reference" else 1) for entry in entries)
    width = left + _PLOT + sum(widths) + (len(heads) + 2) * _GAP
    title = textwrap.wrap(f"{analysis.study.name}: {analysis.question}", round(width / (1.35 * _LETTER)))
    top, bottom = (0.42 if analysis.reference.state else 0.65) + 0.2 * len(title), 0.95
    size = width, top + _ROW * len(entries) + bottom
    figure = Figure(figsize=size)
    ax = figure.add_axes((left / size[0], bottom / size[1], _PLOT / size[0], _ROW * len(entries) / size[1]))
    for y, entry in enumerate(entries):
        shade = "0.965" if y % 2 else "white"
        ax.axhspan(y - 0.5, y + 0.5, color=shade, linewidth=0, zorder=0)
        if entry.state:
            state = textwrap.shorten("".join(c if ord(c) < 0x250 else "?" for c in entry.state), 66, placeholder=" …")
            box = dict(facecolor=shade, edgecolor="none", pad=1.5)
            style = dict(va="center_baseline", fontsize=7.5, color="0.45", style="italic", bbox=box, zorder=6, **_TEXT)
            ax.text(0.015, y, state, transform=ax.get_yaxis_transform(), **style)
        else:
            _draw(ax, y, entry)
    x = left + _PLOT + _GAP
    for i, column in enumerate(widths):
        x += _GAP
        for y, row in enumerate(columns, start=-1):
            height = size[1] - top - _ROW * (y + 0.5)
            weight = "bold" if y < 0 else "normal"
            style = dict(va="center_baseline", fontsize=_FONT, weight=weight, **_TEXT)
            figure.text(x / size[0], height / size[1], row[i], **style)
        x += column
    _axes(ax, analysis, entries, zero)
    figure.text(_GAP / size[0], 1 - _GAP / size[1], "\n".join(title), fontsize=10, va="top", weight="bold", **_TEXT)
    handles = _legend(analysis, entries)
    if handles:
        corner, style = (0.06 / size[0], 0.02 / size[1]), dict(frameon=False, handletextpad=0.4, columnspacing=1.3)
        figure.legend(handles=handles, loc="lower left", bbox_to_anchor=corner, ncols=len(handles), fontsize=7.5, **style)
    FigureCanvasAgg(figure)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130, metadata={"Software": None})


def _of_line(line: Line, analysis: Analysis, zero: float) -> _Entry:
    kind = "reference" if line.is_reference else _kind(line.finding)
    if line.state:
        return _Entry(line.title, kind, ["", "", ""], line.state)
    dice, found = line.dice["mean"].mean, line.finding
    reference = {} if analysis.reference.state else _of_folds(analysis.reference)
    trainings = [value - reference.get(fold, 0.0) for (_, fold), value in line.trainings.items()]
    numbers = [number(dice, 3), *(_numbers(found) if found else ["", ""])]
    single = trainings if len(trainings) > 1 and not line.is_reference else []
    return _Entry(line.title, kind, numbers, "", dice - zero, _interval(found), single)


def _of_effect(found: Finding) -> _Entry:
    return _Entry(found.title, _kind(found), ["", *_numbers(found)], "", found.contrast.difference, _interval(found), effect=True)


def _of_folds(line: Line) -> dict[int, float]:
    """Mean Dice over the trainings of each fold."""
    folds: dict[int, list[float]] = {}
    for (_, fold), value in line.trainings.items():
        folds.setdefault(fold, []).append(value)
    return {fold: math.fsum(values) / len(values) for fold, values in folds.items()}


def _kind(found: Finding | None) -> str:
    if found is None or found.contrast.p_holm is None:
        return "not tested"
    return found.contrast.verdict or ("as good" if found.contrast.within else "undecided")


def _interval(found: Finding | None) -> tuple[float, float] | None:
    return None if found is None or found.contrast.low is None else (found.contrast.low, found.contrast.high)


def _numbers(found: Finding) -> list[str]:
    contrast = found.contrast
    text = number(contrast.difference, 3, signed=True)
    if contrast.low is not None:
        text += f" [{number(contrast.low, 3)}, {number(contrast.high, 3)}]"
    return [text.replace("-", "\N{MINUS SIGN}"), "" if contrast.p_holm is None else p_value(contrast.p_holm)]


def _heads(analysis: Analysis) -> list[str]:
    if not analysis.findings:
        return ["Dice"]
    return ["Dice", "Δ [95 %]", "p (Holm)"] if any(_interval(found) for found in analysis.findings) else ["Dice", "Δ"]


def _draw(ax: Axes, y: float, entry: _Entry) -> None:
    color = COLORS[entry.kind]
    if entry.trainings:
        style = dict(markersize=5, alpha=0.7, markeredgewidth=0, zorder=3)
        ax.plot(entry.trainings, [y + 0.28] * len(entry.trainings), ".", color=color, **style)
    if entry.interval:
        ax.plot(entry.interval, [y, y], color=color, linewidth=1.8, solid_capstyle="butt", zorder=4)
    marker = "D" if entry.kind == "reference" else "s" if entry.effect else "o"
    ax.plot([entry.middle], [y], marker, color=color, markersize=5.5, zorder=5)


def _axes(ax: Axes, analysis: Analysis, entries: Sequence[_Entry], zero: float) -> None:
    ax.set_ylim(len(entries) - 0.5, -0.5)
    ax.set_yticks(range(len(entries)), [entry.title for entry in entries], fontsize=_FONT, **_TEXT)
    ax.tick_params(axis="y", length=0)
    for tick, entry in zip(ax.get_yticklabels(), entries, strict=True):
        tick.set_color("0.45" if entry.state else "black")
        tick.set_weight("bold" if entry.kind == "reference" else "normal")
    ax.spines[["left", "right", "top"]].set_visible(False)
    shown = [entry for entry in entries if not entry.state]
    if not shown:
        ax.set(xlim=(0, 1), xticks=[])
        return
    if analysis.effects:
        ax.axhline(len(analysis.lines) - 0.5, color="0.6", linewidth=0.8, zorder=2)
    values = [value for entry in shown for value in (entry.middle, *entry.trainings, *(entry.interval or ()))]
    margin = max(0.08 * (max(values) - min(values)), 0.002)
    ax.set_xlim(min(values) - margin, max(values) + margin)
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.tick_params(axis="x", labelsize=8)
    ax.grid(axis="x", alpha=0.25)
    ax.set_axisbelow(True)
    cases = counted(analysis.patients, analysis.noun)
    if analysis.reference.state:
        ax.set_xlabel(f"mean Dice ({cases})", fontsize=_FONT)
        return
    ax.set_xlabel(f"difference of mean Dice ({cases})", fontsize=_FONT)
    ax.axvline(0, color=COLORS["reference"], linewidth=0.9, zorder=2)
    ax.axvspan(-analysis.delta, analysis.delta, color=COLORS["as good"], alpha=0.08, linewidth=0, zorder=1)
    above = ax.secondary_xaxis("top", functions=(lambda x: x + zero, lambda x: x - zero))
    above.xaxis.set_major_locator(MaxNLocator(6))
    above.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.3f}"))
    above.tick_params(labelsize=8)
    above.spines["top"].set_visible(False)
    above.set_xlabel("mean Dice of a cell", fontsize=_FONT)


def _legend(analysis: Analysis, entries: Sequence[_Entry]) -> list:
    shown = [entry for entry in entries if not entry.state]
    width = 1.8 if any(entry.interval for entry in shown) else 0
    handles: list = []
    for kind, color in COLORS.items():
        if any(entry.kind == kind for entry in shown):
            diamond = kind == "reference"
            style = dict(marker="D" if diamond else "o", markersize=5, linewidth=0 if diamond else width)
            words = f"as good within {analysis.delta:g}" if kind == "as good" else kind
            handles.append(Line2D([], [], color=color, label=words, **style))
    if any(entry.trainings for entry in shown):
        handles.append(Line2D([], [], color="0.35", marker=".", markersize=5, linewidth=0, label="one training"))
    if shown and not analysis.reference.state:
        handles.append(Patch(color=COLORS["as good"], alpha=0.08, linewidth=0, label=f"±{analysis.delta:g}"))
    return handles
