"""Pictures of what a trained ICA-UNet makes of a frame, after the paper's Fig. 1: bases, coefficients, reconstruction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ica_unet_jax.data import cohort, reading
from ica_unet_jax.data.geometry import argmax_labels, resample_labels
from ica_unet_jax.errors import UserError
from ica_unet_jax.evaluation.decomposition import Decomposer, Decomposition, image_box, row_of
from ica_unet_jax.evaluation.frames import trained_placement
from ica_unet_jax.inference import options, segmenters, turning
from ica_unet_jax.labels import NUM_CLASSES
from ica_unet_jax.reporting import figures
from ica_unet_jax.runs.trained import Trained, find

SIGNED = "RdBu_r"  # blue below 0, white at 0, red above
_MOST = 8  # bases in a row
_SMALL, _MEDIUM, _LARGE = 0.62, 1.15, 1.7  # sides of a picture in inches
_TOP = 0.62  # inches above the pictures
_NARROWEST = 6.5  # inches, for the title
_COLOURS = "Blue is below 0, white 0, red above, each to its own range."


def draw(
    network: str | Path | Trained,
    out: str | Path = "",
    *,
    patient: str = "",
    frame: int = 0,
    **given: Any,
) -> list[Path]:
    """Writes PATIENT_frameNN_bases.png, ..._coefficients.png and ..._reconstruction.png; returns their paths.

    A stack of several depth windows is shown in its middle one.

    Args:
      network: as `trained.find` finds it.
      out: folder to write into; empty: `decomposition` in the run folder, or here.
      patient: a name; empty: the first validation patient, or the first of a cohort that has none of them.
      frame: counted from 1; 0 is the first labelled frame, or the first of all.
      given: options of `options.DECOMPOSE`.

    Raises:
      UserError: no such network, patient or frame, a network without bases, bad data.
    """
    chosen = options.choose(options.DECOMPOSE, given)
    trained = find(network)
    decomposer = Decomposer(segmenters.load(trained, checkpoint=chosen.checkpoint), pictured=True)
    data = chosen.cohort(decomposer.segmenter.config.data)
    cases = {case.name: case for case in cohort.open_cohort(data, write=False, began_in=None if chosen.data_dir else trained.began_in)}
    name = patient or next((name for name in trained.split["val"] if name in cases), min(cases))
    if name not in cases:
        raise UserError(f"--patient={name} is not in {cohort.folder(data)}: name one of its {len(cases)} patients, as {min(cases)}.")
    codes = turning.codes_for(trained, data, chosen)
    cine = reading.read(cases[name], data.label_map, codes=codes)
    time = frame - 1 if frame else min(cine.labels, default=cine.times[0])
    if time not in cine.times:
        raise UserError(f"--frame={frame} is not in the images of {name}: take a number from {cine.times[0] + 1} to {cine.times[-1] + 1}.")
    windows = next(decomposer(cine, [time]))
    truth = None
    if time in cine.labels:
        placement = trained_placement(decomposer.segmenter, cine)
        truth = resample_labels(cine.labels[time], placement, NUM_CLASSES)[len(windows) // 2]
    part = windows[len(windows) // 2]
    stem = Path(out or (trained.folder or Path()) / "decomposition") / f"{name}_frame{time + 1:02d}"
    paths = [stem.with_name(f"{stem.name}_{kind}.png") for kind in ("bases", "coefficients", "reconstruction")]
    bases_grid(paths[0], part)
    coefficients_grid(paths[1], part)
    reconstruction_grid(paths[2], part, truth)
    return paths


def bases_grid(path: str | Path, part: Decomposition) -> None:
    """All bases by falling energy: their two central slices, averaged over the channels, each to its own range."""
    depth, m = part.bases.shape[0], part.bases.shape[-1]
    columns = min(_MOST, m)
    rows = math.ceil(m / columns)
    height, width = part.bases.shape[1:3]
    figure, axes = _grid([_SMALL] * rows, [2 * _SMALL * width / height] * columns, gaps=(0.08, 0.22))
    for ax, basis in zip(axes.flat, by_energy(part), strict=False):
        _show_basis(ax, part, basis)
    for ax in axes.flat[m:]:
        ax.set_axis_off()
    _title(
        figure,
        f"{_name(part)}: the {m} bases X, by falling share of the reconstruction's energy",
        f"Slices {depth // 2} and {depth // 2 + 1} of {depth}, mean over the {part.bases.shape[3]} channels. {_COLOURS}",
    )
    figures.save(figure, path)


def coefficients_grid(path: str | Path, part: Decomposition, most: int = _MOST) -> None:
    """The bases of most energy, their coefficients A_n and what the backbone makes of these, A'_{c,n}, in one slice."""
    labels = argmax_labels(part.logits)
    through = list(_heart_slices(part, labels).values())
    middle = through[len(through) // 2]
    chosen = by_energy(part)[:most]
    figure, axes = _grid([_MEDIUM / 2, _MEDIUM, _MEDIUM], [_MEDIUM] * (len(chosen) + 1), gaps=(0.05, 0.05), left=0.3, bottom=0.25)
    axes[0, 0].spines[:].set_visible(False)
    axes[1, 0].set_title("frame", fontsize=8, pad=3)
    axes[2, 0].set_xlabel("mask", fontsize=8, labelpad=3)
    for ax in axes[1:, 0]:
        _show_image(ax, part.image[middle], _range(part))
    _show_mask(axes[2, 0], labels[middle])
    for column, basis in zip(axes[:, 1:].T, chosen, strict=True):
        _show_basis(column[0], part, basis)
        _show_signed(column[1], part.coefficients[middle // 2, :, :, basis])
        _show_signed(column[2], (part.mixed * part.cells[..., None])[middle // 2, :, :, basis])
    for ax, text in zip(axes[:, 0], ("X", "A (before)", "A' (after)"), strict=True):
        ax.set_ylabel(text, fontsize=8, labelpad=3)
    _title(
        figure,
        f"{_name(part)}, slice {_number(part, middle)}: coefficients before and after the backbone",
        f"The {len(chosen)} bases of most energy, with their share of it. {_COLOURS}",
    )
    figures.save(figure, path)


def reconstruction_grid(path: str | Path, part: Decomposition, truth: np.ndarray | None = None) -> None:
    """Base, middle and apex: the frame, its reconstruction, their difference and the mask; `truth` (d, h, w) as lines."""
    labels = argmax_labels(part.logits)
    rows = _heart_slices(part, labels if truth is None else truth)
    _, box_rows, box_columns = image_box(part.valid)
    box = slice(box_rows.min(), box_rows.max() + 1), slice(box_columns.min(), box_columns.max() + 1)
    limits = _range(part)
    extent = (limits[1] - limits[0]) / 2
    difference = part.image - part.reconstruction
    figure, axes = _grid([_LARGE] * len(rows), [_LARGE] * 4, gaps=(0.04, 0.04), left=0.3, bottom=0.3)
    for row, (name, index) in zip(axes, rows.items(), strict=True):
        _show_image(row[0], part.image[index][box], limits)
        _show_image(row[1], part.reconstruction[index][box], limits)
        row[2].imshow(difference[index][box], SIGNED, vmin=-extent, vmax=extent, interpolation="nearest")
        _show_image(row[3], part.image[index][box], limits)
        _show_mask(row[3], labels[index][box])
        if truth is not None:
            figures.outline(row[3], truth[index][box])
        row[0].set_ylabel(f"{name} (slice {_number(part, index)})", fontsize=8, labelpad=3)
    for ax, text in zip(axes[0], ("frame", "reconstruction", "frame − reconstruction", "mask"), strict=True):
        ax.set_title(text, fontsize=8, pad=3)
    quality = row_of([part])
    _title(
        figure,
        f"{_name(part)}: rebuilt from {part.bases.shape[-1]} bases",
        f"PSNR {quality['psnr']:.1f} dB, explained variance {quality['explained_variance']:.3g}, SSIM {quality['ssim']:.2f}. "
        "Difference: blue below 0, red above, full colour at half the frame's range.",
    )
    handles = [Patch(color=color, alpha=0.6, label=name) for name, color in figures.PALETTE.items()]
    if truth is not None:
        handles.append(Line2D([], [], color="0.3", linewidth=1.2, label="ground truth"))
    figure.legend(handles=handles, loc="lower right", ncols=4, fontsize=8, frameon=False, borderpad=0, borderaxespad=0.4)
    figures.save(figure, path)


def by_energy(part: Decomposition) -> np.ndarray:
    """The numbers of the bases (m,) by falling energy, the lower number first where two are equal."""
    return np.argsort(-part.energy, kind="stable")


def _heart_slices(part: Decomposition, labels: np.ndarray) -> dict[str, int]:
    """Base, middle and apex among the slices that hold image; see `figures.heart_slices`."""
    present = np.flatnonzero(part.valid.any((1, 2)))
    chosen = figures.heart_slices((labels > 0).sum((1, 2))[present])
    return {name: int(present[index]) for name, index in chosen.items()}


def _show_basis(ax: Axes, part: Decomposition, basis: int) -> None:
    """The two central slices of a basis side by side, with its number and its share of the energy."""
    centre = part.bases.shape[0] // 2
    pair = part.images_of_bases[centre - 1 : centre + 1, :, :, basis]
    _show_signed(ax, np.concatenate(pair, axis=1))
    ax.axvline(pair.shape[2] - 0.5, color="0.3", linewidth=0.8)
    ax.set_title(f"#{basis + 1}   {part.energy[basis] / (part.energy.sum() or 1):.1%}", fontsize=8, pad=3)


def _show_signed(ax: Axes, image: np.ndarray) -> None:
    largest = np.abs(image).max() or 1.0
    ax.imshow(image, SIGNED, vmin=-largest, vmax=largest, interpolation="nearest")


def _show_image(ax: Axes, image: np.ndarray, limits: tuple[float, float]) -> None:
    ax.imshow(image, "gray", vmin=limits[0], vmax=limits[1], interpolation="bilinear")


def _show_mask(ax: Axes, labels: np.ndarray) -> None:
    ax.imshow(figures.colours(labels), interpolation="nearest")


def _range(part: Decomposition) -> tuple[float, float]:
    low, high = np.percentile(part.image[part.valid], (1, 99.5))
    return float(low), float(high)


def _name(part: Decomposition) -> str:
    return f"{part.patient}, frame {part.frame + 1}"


def _number(part: Decomposition, index: int) -> int:
    """The number, from 1, of a slice of the window in the native stack."""
    return part.first_slice + index + 1


def _grid(
    heights: Sequence[float], widths: Sequence[float], gaps: tuple[float, float], left: float = 0.1, bottom: float = 0.1
) -> tuple[Figure, np.ndarray]:
    """A figure with axes (rows, columns) without ticks, of these sizes; everything in inches, gaps across and down."""
    wide = sum(widths) + gaps[0] * (len(widths) - 1)
    high = sum(heights) + gaps[1] * (len(heights) - 1)
    width, height = max(_NARROWEST, left + wide + 0.1), bottom + high + _TOP
    left = max(left, (width - wide) / 2) if width == _NARROWEST else left
    figure = Figure(figsize=(width, height))
    axes = figure.subplots(
        len(heights),
        len(widths),
        squeeze=False,
        gridspec_kw=dict(
            left=left / width,
            right=(left + wide) / width,
            bottom=bottom / height,
            top=(bottom + high) / height,
            wspace=gaps[0] / np.mean(widths),
            hspace=gaps[1] / np.mean(heights),
            width_ratios=widths,
            height_ratios=heights,
        ),
    )
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set(linewidth=0.5, color="0.6")
    return figure, axes


def _title(figure: Figure, title: str, below: str) -> None:
    height = figure.get_figheight()
    figure.text(0.5, 1 - 0.07 / height, title, fontsize=9.5, ha="center", va="top")
    figure.text(0.5, 1 - 0.25 / height, below, fontsize=8, color="0.35", ha="center", va="top")
