"""Pictures: overlays of cines, volume curves and learning curves, as PNG files without a date in them.

matplotlib is loaded by the first picture: whoever draws none, as a training, does without.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ica_unet_jax.errors import UserError
from ica_unet_jax.labels import STRUCTURES
from ica_unet_jax.runs.log import read_metrics, training_minutes
from ica_unet_jax.runtime.files import replacing

PALETTE = {"RV": "#f2c500", "MYO": "#e3242b", "LV": "#2ca02c"}
_MASKS = np.array([(0, 0, 0, 0), *((int(c[1:3], 16), int(c[3:5], 16), int(c[5:], 16), 110) for c in PALETTE.values())])
_COLUMNS = 6  # most columns of an overlay
_TILE = 1.6  # inches
_MARGIN = 0.2  # of the heart's size, shown round it

Volumes = Mapping[int, np.ndarray]  # (s, h, w) by frame number


def overlay_grid(
    path: str | Path,
    frames: Volumes,
    labels: Volumes,
    truths: Volumes,
    spacing: Sequence[float],
    *,
    title: str = "",
    phases: Mapping[int, str] | None = None,
) -> None:
    """Base, middle and apex of a heart over some frames: predicted structures as areas, ground truth as lines.

    Args:
      path: of the PNG file.
      frames: images by frame number from 0; those in `labels` are used.
      labels: predictions. At most six are shown, spread evenly, and those with a phase in any case.
      truths: ground truths of some of these frames.
      spacing: (dz, dy, dx) in mm.
      title: above the picture.
      phases: names of frames, as {0: "ED", 11: "ES"}.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    phases = phases or {}
    times = choose_columns(sorted(labels), sorted(phases))
    seen = [volume > 0 for source in (truths, labels) for volume in source.values()]
    rows = heart_slices(sum(volume.sum((1, 2)) for volume in (seen[: len(truths)] or seen)))
    box = heart_box(np.any(seen, axis=(0, 1)), spacing)
    height, width = (box[0].stop - box[0].start) * spacing[1], (box[1].stop - box[1].start) * spacing[2]
    tile = _TILE * height / width
    size = (_TILE * len(times) + 0.3, tile * len(rows) + 0.75)
    figure = _figure(*size, layout=None)
    axes = figure.subplots(
        len(rows),
        len(times),
        squeeze=False,
        gridspec_kw=dict(
            left=0.28 / size[0],
            right=1 - 0.02 / size[0],
            bottom=0.25 / size[1],
            top=1 - 0.5 / size[1],
            wspace=0.03,
            hspace=0.03,
        ),
    )
    for column, time in enumerate(times):
        low, high = np.percentile(frames[time][:, *box], (1, 99.5))
        axes[0, column].set_title(
            f"frame {time + 1}" + (f" ({phases[time]})" if time in phases else ""), fontsize=8, pad=3
        )
        for row, (name, index) in enumerate(rows.items()):
            ax = axes[row, column]
            ax.imshow(frames[time][index][box], "gray", vmin=low, vmax=high, aspect="auto", interpolation="bilinear")
            ax.imshow(colours(labels[time][index][box]), aspect="auto", interpolation="nearest")
            if time in truths:
                outline(ax, truths[time][index][box])
            ax.set(xticks=[], yticks=[])
            if column == 0:
                ax.set_ylabel(f"{name} (slice {index + 1})", fontsize=8, labelpad=3)
    figure.suptitle(title, fontsize=9, y=1 - 0.06 / size[1], va="top")
    handles = [Patch(color=color, alpha=0.6, label=name) for name, color in PALETTE.items()]
    if truths:
        handles.append(Line2D([], [], color="0.3", linewidth=1.2, label="ground truth"))
    figure.legend(
        handles=handles, loc="lower center", ncols=4, fontsize=8, frameon=False, borderpad=0, borderaxespad=0.3
    )
    save(figure, path)


def colours(labels: np.ndarray) -> np.ndarray:
    """A label image (h, w) as half-transparent colours, RGBA uint8 (h, w, 4)."""
    return _MASKS[labels].astype(np.uint8)


def choose_columns(times: Sequence[int], marked: Sequence[int], most: int = _COLUMNS) -> list[int]:
    """At most `most` of the frame numbers, evenly spread, each `marked` one in the place of the nearest."""
    spread = np.linspace(0, len(times) - 1, min(most, len(times))).round().astype(int)
    chosen = [times[i] for i in spread]
    for mark in set(marked) & set(times):
        free = [i for i, time in enumerate(chosen) if time not in marked]
        if mark not in chosen and free:
            chosen[min(free, key=lambda i: abs(chosen[i] - mark))] = mark
    return sorted(chosen)


def heart_slices(area: np.ndarray) -> dict[str, int]:
    """Slice numbers {"base": .., "middle": .., "apex": ..} of a heart by its areas (s,); the base is larger."""
    present = np.flatnonzero(area) if np.any(area) else np.arange(len(area))
    half = len(present) // 2
    if half and area[present[:half]].sum() < area[present[-half:]].sum():
        present = present[::-1]
    names = {1: ("middle",), 2: ("base", "apex")}.get(len(present), ("base", "middle", "apex"))
    places = np.linspace(0.1, 0.9, len(names)) if len(names) > 1 else [0.5]
    return {name: int(present[round(place * (len(present) - 1))]) for name, place in zip(names, places, strict=True)}


def heart_box(mask: np.ndarray, spacing: Sequence[float]) -> tuple[slice, slice]:
    """Rows and columns of a square (in mm) with a margin round a mask (h, w); all of an empty one."""
    if not mask.any():
        return slice(0, mask.shape[0]), slice(0, mask.shape[1])
    ends = [(where[0], where[-1] + 1) for where in (np.flatnonzero(mask.any(axis)) for axis in (1, 0))]
    side = (1 + 2 * _MARGIN) * max((stop - start) * step for (start, stop), step in zip(ends, spacing[1:], strict=True))
    box = []
    for (start, stop), step, size in zip(ends, spacing[1:], mask.shape, strict=True):
        extent = min(size, round(side / step))
        first = min(max(0, (start + stop - extent) // 2), size - extent)
        box.append(slice(int(first), int(first + extent)))
    return box[0], box[1]


def volume_curves(
    path: str | Path,
    volumes: Mapping[str, np.ndarray],
    *,
    seconds: float | None = None,
    truths: Mapping[int, Mapping[str, float]] | None = None,
    phases: Mapping[int, str] | None = None,
    title: str = "",
    unit: str = "mL",
) -> None:
    """Volume of each structure over a cine.

    Args:
      path: of the PNG file.
      volumes: a curve (t,) for each structure, in `unit`.
      seconds: from frame to frame; without it the axis counts frames from 1.
      truths: {frame: {structure: volume}}, shown as points.
      phases: names of frames, marked by vertical lines.
      title: above the picture.
      unit: of the volumes.
    """
    scale, first = (seconds, 0) if seconds else (1, 1)
    figure = _figure(5.6, 3.4)
    ax = figure.subplots()
    for name, curve in volumes.items():
        color = PALETTE[name]
        ax.plot(first + scale * np.arange(len(curve)), curve, color=color, marker=".", markersize=4, label=name)
        points = [(first + scale * time, values[name]) for time, values in (truths or {}).items()]
        if points:
            ax.plot(*zip(*points, strict=True), "o", color=color, markeredgecolor="black", markersize=6, zorder=3)
    for time, phase in (phases or {}).items():
        ax.axvline(first + scale * time, color="0.6", linewidth=0.8, linestyle="--", zorder=0)
        ax.annotate(
            phase,
            (first + scale * time, 1),
            (2, -2),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            va="top",
            fontsize=8,
            color="0.35",
        )
    if truths:
        ax.plot([], [], "o", color="white", markeredgecolor="black", markersize=6, label="ground truth")
    ax.set(xlabel="time (s)" if seconds else "frame", ylabel=f"volume ({unit})", title=title)
    ax.set_ylim(0, 1.12 * ax.get_ylim()[1])
    ax.title.set_fontsize(10)
    ax.grid(alpha=0.25)
    figure.legend(loc="outside right center", fontsize=8, frameon=False)
    save(figure, path)


def compare_runs(runs: Sequence[str], path: str | Path) -> None:
    """Learning curves of run folders in one picture.

    Raises:
      UserError: a folder holds no metrics.jsonl.
    """
    lines = {run: read_metrics(Path(run)) for run in runs}
    for run in runs:
        if not lines[run]:
            raise UserError(f"{run} holds no metrics.jsonl: name the --workdir of a training.")
    names = [Path(run).resolve().name for run in lines]
    learning_curves(path, dict(zip(names if len(set(names)) == len(names) else lines, lines.values(), strict=True)))


def learning_curves(path: str | Path, runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Loss and mean validation Dice over steps and over minutes of training, without compilation and validation.

    Args:
      path: of the PNG file.
      runs: the lines of metrics.jsonl by name; for a single run the structures are shown as well.
    """
    figure = _figure(8, 5.2)
    axes = figure.subplots(2, 2, sharex="col", sharey="row")
    for number, (name, lines) in enumerate(runs.items()):
        steps = np.array([line["step"] for line in lines])
        for column, x in enumerate((steps, np.array(training_minutes(lines)))):
            for row, key in enumerate(("loss", "dice_mean")):
                has = [i for i, line in enumerate(lines) if key in line]
                style = dict(marker="." if row else "", linewidth=1.5, color=f"C{number}" if len(runs) > 1 else "black")
                label = name if len(runs) > 1 else "mean"
                axes[row, column].plot(x[has], [lines[i][key] for i in has], label=label, **style)
                for structure in STRUCTURES if row and len(runs) == 1 else ():
                    values = [lines[i][f"dice_{structure}"] for i in has]
                    axes[row, column].plot(x[has], values, ".-", color=PALETTE[structure], linewidth=1, label=structure)
    axes[0, 0].set(ylabel="training loss", yscale="log")
    _mark(axes[0, 0].yaxis)
    axes[1, 0].set(ylabel="validation Dice", xlabel="step")
    axes[1, 1].set(xlabel="training time (min)")
    for ax in axes.flat:
        ax.grid(alpha=0.25, which="both")
    axes[1, 0].legend(fontsize=8, loc="lower right")
    if len(runs) == 1:
        figure.suptitle(next(iter(runs)), fontsize=10)
    save(figure, path)


def accuracy_and_latency(
    path: str | Path,
    networks: Mapping[str, tuple[float, float]],
    limit: float,
    intervals: Mapping[str, tuple[float, float]] = MappingProxyType({}),
    hollow: Collection[str] = (),
    time: str = "compute latency (ms)",
) -> None:
    """Networks as points: the farther up and to the left, the better.

    Args:
      path: of the PNG file.
      networks: {name: (milliseconds a frame, mean Dice)}; those whose name begins alike, up to the first comma, look alike.
      limit: milliseconds that are marked.
      intervals: {name: (low, high)} of some of them, drawn beside their Dice.
      hollow: names of those that were not measured with the rest.
      time: what the milliseconds are.
    """
    figure = _figure(9, 5)
    ax = figure.subplots()
    kinds = list(dict.fromkeys(name.partition(",")[0] for name in networks))
    ordered = sorted(networks.items(), key=lambda item: -item[1][1])
    for number, (name, (latency, dice)) in enumerate(ordered, start=1):
        kind = kinds.index(name.partition(",")[0])
        look = dict(color=f"C{kind % 10}", marker="osD^vP*X"[kind % 8], markersize=7, linestyle="none")
        ax.plot([latency], [dice], label=f"{number}  {name}", **look, **(dict(markerfacecolor="white") if name in hollow else {}))
        if name in intervals:
            ax.plot([latency] * 2, intervals[name], color=f"C{kind % 10}", linewidth=1.2)
        ax.annotate(f"{number}", (latency, dice), xytext=(5, 4), textcoords="offset points", fontsize=8)
    ax.axvline(limit, color="0.4", linewidth=1, linestyle="--")
    ax.annotate(f"{limit:g} ms", (limit, 0), xycoords=("data", "axes fraction"), xytext=(3, 4), textcoords="offset points", fontsize=8, color="0.4")
    ax.set(xscale="log", xlabel=time, ylabel="mean Dice")
    _mark(ax.xaxis)
    ax.grid(alpha=0.25)
    figure.legend(loc="outside right center", fontsize=8, frameon=False)
    save(figure, path)


def parallel_streams(path: str | Path, panels: Mapping[str, Mapping[str, Mapping[int, float]]]) -> None:
    """Time against the number of streams, a line for each form.

    Args:
      path: of the PNG file.
      panels: {title: {form: {m: milliseconds}}}; a form has one colour in all of them.
    """
    figure = _figure(6 * len(panels), 4.8)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    forms = list(dict.fromkeys(form for panel in panels.values() for form in panel))
    for ax, (title, panel) in zip(axes, panels.items(), strict=True):
        for form, times in panel.items():
            number = forms.index(form)
            ax.plot(list(times), list(times.values()), "osD^vP*X"[number % 8] + "-", color=f"C{number}", markersize=5, linewidth=1.3, label=form)
        ax.set(xscale="log", yscale="log", title=title, xlabel="streams m")
        ax.set_xticks(sorted({m for times in panel.values() for m in times}), labels=sorted({m for times in panel.values() for m in times}))
        ax.xaxis.minorticks_off()
        ax.grid(alpha=0.25)
    axes[0].set_ylabel("milliseconds a frame")
    _mark(axes[0].yaxis)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    save(figure, path)


def by_place(path: str | Path, panels: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    """Dice by places in the stack, a panel for each structure, a line for each kind of patients, or each network.

    Args:
      path: of the PNG file.
      panels: {structure: {patients or network: {place: Dice}}}; the places are the same in all.
    """
    figure = _figure(4 * len(panels), 3.6)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, (structure, lines) in zip(axes, panels.items(), strict=True):
        for number, (name, dice) in enumerate(lines.items()):
            ax.plot(range(len(dice)), list(dice.values()), ("o-", "s--", "^:", "D-.")[number % 4], color=PALETTE[structure], label=name)
            ax.set_xticks(range(len(dice)), labels=list(dice), rotation=30, fontsize=8)
        ax.set_title(structure)
        ax.grid(alpha=0.25)
        ax.legend(fontsize=8, frameon=False, loc="lower left")
    axes[0].set_ylabel("Dice")
    save(figure, path)


def outline(ax: Any, truth: np.ndarray) -> None:
    """The structures of a label image (h, w) as lines on matplotlib's axes."""
    for name, label in STRUCTURES.items():
        if (truth == label).any():
            ax.contour(truth == label, [0.5], colors=[PALETTE[name]], linewidths=1.2)


def save(figure: Any, path: str | Path) -> None:
    """Writes a figure of matplotlib as PNG, the same bytes every time. Raises UserError where it cannot be written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    FigureCanvasAgg(figure)
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # a $ in the name of a patient, a file or a run is no formula
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120, metadata={"Software": None})


def _figure(width: float, height: float, layout: str | None = "constrained") -> Any:
    """An empty figure of matplotlib; sizes in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout=layout)


def _mark(axis: Any) -> None:
    """Plain numbers at 1, 2 and 5 of each power of ten, on a logarithmic axis."""
    from matplotlib.ticker import LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())
