"""The picture of a study: every cell's difference to the reference with its interval, and the single seeds."""

from __future__ import annotations

import textwrap
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ablations.analysis import Analysis, Line
from ica_unet_jax.files import replacing
from ica_unet_jax.markup import counted, number, p_value

COLORS = {
    "better": "#0072b2",
    "worse": "#d55e00",
    "undecided": "#8c8c8c",
    "reference": "#1a1a1a",
}  # for the colour-blind
_FONT = 8.5  # points
_LETTER = 0.068  # inches, an average one of this font
_BOLD = 1.12  # times as wide
_ROW = 0.31  # inches
_PLOT = 4.2  # inches
_GAP = 0.12  # inches
_TEXT = dict(parse_math=False)  # a message may hold dollars


def differences(path: str | Path, analysis: Analysis) -> None:
    """A PNG, the same bytes for the same figures. Until the reference is finished it shows mean Dice instead.

    Raises UserError where it cannot be written.
    """
    lines, reference = analysis.lines, analysis.reference
    zero = 0.0 if reference.state else reference.dice["mean"].mean
    heads, *texts = columns = [_heads(analysis), *map(_numbers, lines)]
    widths = [_LETTER * max(len(row[i]) for row in columns) for i in range(len(heads))]
    left = _GAP + 0.15 + _LETTER * max(len(line.label) * (_BOLD if line.is_reference else 1) for line in lines)
    width = left + _PLOT + sum(widths) + (len(heads) + 2) * _GAP
    title = textwrap.wrap(f"{analysis.study.name}: {analysis.study.question}", round(width / (1.35 * _LETTER)))
    top, bottom = (0.42 if reference.state else 0.65) + 0.2 * len(title), 0.95
    size = width, top + _ROW * len(lines) + bottom
    figure = Figure(figsize=size)
    ax = figure.add_axes((left / size[0], bottom / size[1], _PLOT / size[0], _ROW * len(lines) / size[1]))
    for y, line in enumerate(lines):
        shade = "0.965" if y % 2 else "white"
        ax.axhspan(y - 0.5, y + 0.5, color=shade, linewidth=0, zorder=0)
        if line.state:
            state = textwrap.shorten("".join(c if ord(c) < 0x250 else "?" for c in line.state), 66, placeholder=" …")
            box = dict(facecolor=shade, edgecolor="none", pad=1.5)
            style = dict(va="center_baseline", fontsize=7.5, color="0.45", style="italic", bbox=box, zorder=6, **_TEXT)
            ax.text(0.015, y, state, transform=ax.get_yaxis_transform(), **style)
        else:
            _draw(ax, y, line, zero)
    x = left + _PLOT + _GAP
    for i, column in enumerate(widths):
        x += _GAP
        for y, row in enumerate([heads, *texts], start=-1):
            height = size[1] - top - _ROW * (y + 0.5)
            weight = "bold" if y < 0 else "normal"
            figure.text(
                x / size[0], height / size[1], row[i], va="center_baseline", fontsize=_FONT, weight=weight, **_TEXT
            )
        x += column
    _axes(ax, analysis, zero)
    figure.text(_GAP / size[0], 1 - _GAP / size[1], "\n".join(title), fontsize=10, va="top", weight="bold", **_TEXT)
    handles = _legend(analysis)
    if handles:
        corner, style = (0.06 / size[0], 0.02 / size[1]), dict(frameon=False, handletextpad=0.4, columnspacing=1.3)
        figure.legend(
            handles=handles, loc="lower left", bbox_to_anchor=corner, ncols=len(handles), fontsize=7.5, **style
        )
    FigureCanvasAgg(figure)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130, metadata={"Software": None})


def _draw(ax: Axes, y: float, line: Line, zero: float) -> None:
    color = COLORS[_kind(line)]
    seeds = [value - zero for value in line.seeds.values()]
    if len(seeds) > 1:
        ax.plot(seeds, [y + 0.28] * len(seeds), ".", color=color, markersize=5, alpha=0.7, markeredgewidth=0, zorder=3)
    if line.contrast and line.contrast.low is not None:
        ends = [line.contrast.low, line.contrast.high]
        ax.plot(ends, [y, y], color=color, linewidth=1.8, solid_capstyle="butt", zorder=4)
    middle = line.dice["mean"].mean - zero
    ax.plot([middle], [y], "D" if line.is_reference else "o", color=color, markersize=5.5, zorder=5)


def _axes(ax: Axes, analysis: Analysis, zero: float) -> None:
    lines, reference = analysis.lines, analysis.reference
    ax.set_ylim(len(lines) - 0.5, -0.5)
    ax.set_yticks(range(len(lines)), [line.label for line in lines], fontsize=_FONT, **_TEXT)
    ax.tick_params(axis="y", length=0)
    for tick, line in zip(ax.get_yticklabels(), lines, strict=True):
        tick.set_color("0.45" if line.state else "black")
        tick.set_weight("bold" if line.is_reference else "normal")
    ax.spines[["left", "right", "top"]].set_visible(False)
    finished = [line for line in lines if not line.state]
    if not finished:
        ax.set(xlim=(0, 1), xticks=[])
        return
    values = [value - zero for line in finished for value in (*line.seeds.values(), line.dice["mean"].mean)]
    values += [end for _, found in analysis.contrasts if found.low is not None for end in (found.low, found.high)]
    margin = max(0.08 * (max(values) - min(values)), 0.002)
    ax.set_xlim(min(values) - margin, max(values) + margin)
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.tick_params(axis="x", labelsize=8)
    ax.grid(axis="x", alpha=0.25)
    ax.set_axisbelow(True)
    patients = counted(analysis.patients, "patient")
    if reference.state:
        ax.set_xlabel(f"mean Dice ({patients})", fontsize=_FONT)
        return
    ax.set_xlabel(f"difference of mean Dice to the reference ({patients})", fontsize=_FONT)
    ax.axvline(0, color=COLORS["reference"], linewidth=0.9, zorder=2)
    if len(reference.seeds) > 1:
        seeds = [value - zero for value in reference.seeds.values()]
        ax.axvspan(min(seeds), max(seeds), color=COLORS["reference"], alpha=0.08, linewidth=0, zorder=1)
    above = ax.secondary_xaxis("top", functions=(lambda x: x + zero, lambda x: x - zero))
    above.xaxis.set_major_locator(MaxNLocator(6))
    above.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.3f}"))
    above.tick_params(labelsize=8)
    above.spines["top"].set_visible(False)
    above.set_xlabel("mean Dice", fontsize=_FONT)


def _legend(analysis: Analysis) -> list:
    kinds = [_kind(line) for line in analysis.lines if not line.state]
    width = 1.8 if any(found.low is not None for _, found in analysis.contrasts) else 0
    handles: list = []
    for kind, color in COLORS.items():
        if kind in kinds:
            diamond = kind == "reference"
            style = dict(marker="D" if diamond else "o", markersize=5, linewidth=0 if diamond else width)
            handles.append(
                Line2D([], [], color=color, label=kind if analysis.contrasts or diamond else "a cell", **style)
            )
    if len(analysis.seeds) > 1 and kinds:
        handles.append(Line2D([], [], color="0.35", marker=".", markersize=5, linewidth=0, label="one seed"))
        if not analysis.reference.state:
            handles.append(Patch(color=COLORS["reference"], alpha=0.08, linewidth=0, label="reference's seeds"))
    return handles


def _kind(line: Line) -> str:
    return "reference" if line.is_reference else line.contrast.verdict if line.contrast else "undecided"


def _heads(analysis: Analysis) -> list[str]:
    if not analysis.contrasts:
        return ["Dice"]
    return (
        ["Dice", "Δ [95 %]", "p (Holm)"]
        if any(found.p is not None for _, found in analysis.contrasts)
        else ["Dice", "Δ"]
    )


def _numbers(line: Line) -> list[str]:
    """What stands at the right of a row, under `_heads`."""
    if line.state:
        return ["", "", ""]
    dice, found = number(line.dice["mean"].mean, 3), line.contrast
    if not found:
        return [dice, "", ""]
    text = number(found.difference, 3, signed=True)
    if found.low is not None:
        text += f" [{number(found.low, 3)}, {number(found.high, 3)}]"
    return [dice, text.replace("-", "\N{MINUS SIGN}"), "" if found.p_holm is None else p_value(found.p_holm)]
