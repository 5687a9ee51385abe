"""Pictures of segmented cases (overlays, volume curves), and those that a training draws of its progress."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ica_unet_jax.data.case import Cine
from ica_unet_jax.evaluation import frames
from ica_unet_jax.inference.segmenters import Segmenter
from ica_unet_jax.metrics.clinical import volumes_ml
from ica_unet_jax.reporting import figures


def draw_overlay(path: Path, cine: Cine, labels: dict[int, np.ndarray]) -> None:
    """The picture of some frames of a case; see `figures.overlay_grid`."""
    images = {time: cine.frame(time) for time in labels}
    truths = {time: truth for time, truth in cine.labels.items() if time in labels}
    title = f"{cine.case.name} {cine.case.group}".strip()
    figures.overlay_grid(path, images, labels, truths, cine.spacing, title=title, phases=frames.phases(cine))


def draw_volumes(path: Path, cine: Cine, labels: dict[int, np.ndarray]) -> None:
    """The volume curves of a segmented cine; see `figures.volume_curves`."""
    volumes = volumes_ml(np.stack([labels[time] for time in cine.times]), cine.spacing)
    truths = {time: volumes_ml(truth, cine.spacing) for time, truth in cine.labels.items()}
    unit = "mL, by a nominal voxel size" if cine.case.nominal_spacing else "mL"
    title = f"{cine.case.name} {cine.case.group}".strip()
    figures.volume_curves(path, volumes, truths=truths, phases=frames.phases(cine), title=title, unit=unit)


def training_report(folder: Path, cines: Sequence[Cine], segmenter: Segmenter, count: int = 3) -> None:
    """Pictures for the end of a training: learning curves and overlays of the first `count` validation patients.

    Writes curves.png and validation/PATIENT.png into the run folder.
    """
    figures.compare_runs([str(folder)], folder / "curves.png")
    for cine in cines[:count]:
        labels, _ = frames.segment(segmenter, cine, sorted(cine.labels))
        draw_overlay(folder / "validation" / f"{cine.case.name}.png", cine, labels)
