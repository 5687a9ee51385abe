"""The last seconds of a stream as a GIF: base, middle and apex with the structures in colour."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.animation import PillowWriter
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ica_unet_jax.errors import UserError
from ica_unet_jax.reporting import figures
from ica_unet_jax.runtime.files import replacing
from ica_unet_jax.streaming.segmenter import Answer, Result

_TILE = 2.2  # inches


class Recorder:
    """Keeps the last `size` answered frames with their results."""

    def __init__(self, size: int):
        self.kept: collections.deque[Answer] = collections.deque(maxlen=max(1, size))

    def add(self, answers: Sequence[Answer]) -> None:
        self.kept.extend(answers)

    def save(self, path: str | Path, spacing: Sequence[float], rate: float) -> None:
        """Writes them at `rate` frames a second. Raises UserError where nothing was answered or nothing can be written."""
        if not self.kept:
            raise UserError(f"--gif={path}: no frame was answered, so there is nothing to draw.")
        images, results = zip(*self.kept, strict=True)
        animate(path, images, [result.labels for result in results], spacing, rate, [_title(r) for r in results])


def _title(result: Result) -> str:
    volumes = ", ".join(f"{name} {volume:.0f}" for name, volume in result.volumes_ml.items())
    return f"frame {result.number}   {volumes} mL"


def animate(
    path: str | Path,
    images: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    spacing: Sequence[float],
    rate: float,
    titles: Sequence[str],
) -> None:
    """Writes images and labels, (s, h, w) each, as a GIF of `rate` frames a second.

    Args:
      path: of the GIF file.
      spacing: (dz, dy, dx) in mm.
      titles: one each.
    """
    seen = np.stack(labels) > 0
    slices = figures.heart_slices(seen.sum((0, 2, 3)))
    box = figures.heart_box(seen.any((0, 1)), spacing)
    height, width = ((part.stop - part.start) * step for part, step in zip(box, spacing[1:], strict=True))
    low, high = np.percentile(images[0][:, *box], (1, 99.5))
    size = _TILE * len(slices), _TILE * height / width + 0.35
    figure = Figure(figsize=size)
    FigureCanvasAgg(figure)
    layout = dict(left=0, right=1, bottom=0, top=1 - 0.3 / size[1], wspace=0.02)
    axes = figure.subplots(1, len(slices), squeeze=False, gridspec_kw=layout)[0]
    text = figure.text(0.5, 1 - 0.15 / size[1], "", ha="center", va="center", fontsize=9, family="monospace")
    layers = []
    for ax, index in zip(axes, slices.values(), strict=True):
        ax.set_axis_off()
        image = ax.imshow(images[0][index][box], "gray", vmin=low, vmax=high, aspect="auto", interpolation="bilinear")
        mask = ax.imshow(figures.colours(labels[0][index][box]), aspect="auto", interpolation="nearest")
        layers.append((index, image, mask))
    writer = PillowWriter(fps=rate)
    with replacing(path) as temporary, writer.saving(figure, str(temporary), dpi=90):
        for frame, found, title in zip(images, labels, titles, strict=True):
            text.set_text(title)
            for index, image, mask in layers:
                image.set_data(frame[index][box])
                mask.set_data(figures.colours(found[index][box]))
            writer.grab_frame()
