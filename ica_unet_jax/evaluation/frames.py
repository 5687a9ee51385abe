"""Frames of a case: segmented by a trained network, and judged against their ground truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ica_unet_jax.data import heart
from ica_unet_jax.data.case import Cine
from ica_unet_jax.data.geometry import Placement, argmax_labels, resample_labels
from ica_unet_jax.inference import roi
from ica_unet_jax.inference.options import ORACLE, USUAL, Options
from ica_unet_jax.inference.postprocessing import largest_components
from ica_unet_jax.inference.segmenters import Segmenter, Watch
from ica_unet_jax.labels import NUM_CLASSES, STRUCTURES
from ica_unet_jax.metrics import cases
from ica_unet_jax.metrics.surface import NSD_MM


def segment(
    segmenter: Segmenter, cine: Cine, times: Sequence[int], chosen: Options = USUAL, watch: Watch | None = None
) -> tuple[dict[int, np.ndarray], dict[int, Placement]]:
    """Some frames of a case, each seen with its neighbours, by number.

    `chosen`: its `window`, `neighbour_frames` and `largest_component` count. A window that follows goes from one of these
    frames to the next; the oracle's does not move with the beat. `watch` is called with the logits of each.

    Returns:
      labels (s, h, w) uint8 of each frame, and the placement of the window through which it was seen.
    """
    clean = largest_components if chosen.largest_component else np.asarray
    frames, placement, windows = _frames_and_times(segmenter, cine, times)
    if chosen.neighbour_frames == "itself":
        windows = [(time,) * len(around) for time, around in zip(times, windows, strict=True)]
    kind = chosen.seen_through(segmenter.config.data)
    window = roi.Window(heart.on_heart(placement, cine.labels.values())) if kind == ORACLE else roi.open_window(kind, placement)
    labels, placements = {}, {}
    for time, (volume, seen_at) in zip(times, segmenter.labels(frames, window, windows, watch), strict=True):
        labels[time], placements[time] = clean(volume), seen_at
    return labels, placements


def segment_and_doubt(segmenter: Segmenter, cine: Cine, times: Sequence[int]) -> tuple[dict[int, np.ndarray], dict[int, float]]:
    """Labels (s, h, w) uint8 of some frames of a case, and how unsure the network is of them (`Segmenter.unsure`), by number."""
    unsure: list[float] = []
    labels, _ = segment(segmenter, cine, times, watch=segmenter.noting(unsure))
    return labels, dict(zip(times, unsure, strict=True))


def logits(segmenter: Segmenter, cine: Cine, times: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """(frame number, native logits (s, h, w, 4)) of some frames of a case, one after the other, as the network is trained.

    That is through the window on the labelled heart, where it was trained so.
    """
    frames, _, windows = _frames_and_times(segmenter, cine, times)
    yield from zip(times, segmenter.logits(frames, trained_placement(segmenter, cine), windows), strict=True)


def trained_placement(segmenter: Segmenter, cine: Cine) -> Placement:
    """Where the network's windows lie in training: round the image centre or on the labelled heart."""
    placement = segmenter.place(cine.frames.shape[1:], cine.spacing)
    return heart.on_heart(placement, cine.labels.values()) if segmenter.config.data.train_window == "heart" else placement


def _frames_and_times(segmenter: Segmenter, cine: Cine, times: Sequence[int]) -> tuple:
    """What `Segmenter.logits` and `labels` want for some frames of a case."""
    windows = [cine.window(time, segmenter.config.model.reach, segmenter.config.data.cyclic) for time in times]
    frames = dict(zip(cine.times, cine.frames, strict=True))
    return frames, segmenter.place(cine.frames.shape[1:], cine.spacing), windows


def judge(
    cine: Cine, labels: dict[int, np.ndarray], placements: dict[int, Placement], nsd_mm: float = NSD_MM
) -> list[cases.Row]:
    """A row for each labelled frame of a case, as `cases.summarize` wants them.

    labels, placements: as `segment` gives them; nsd_mm: tolerance of the normalized surface Dice.
    """
    names = phases(cine)
    about = dict(patient=cine.case.name, group=cine.case.group, nominal_spacing=cine.case.nominal_spacing)
    return [
        about
        | dict(frame=time + 1, phase=names.get(time, ""), labelled_outside=int(np.count_nonzero(truth[~placements[time].inside])))
        | cases.case_metrics(labels[time], truth, cine.spacing, nsd_mm)
        for time, truth in sorted(cine.labels.items())
    ]


def through_the_grid(truth: np.ndarray, placement: Placement) -> np.ndarray:
    """A ground truth (s, h, w) as the model's grid can hold it, back on the native grid: what a network that makes no error answers."""
    windows = resample_labels(truth, placement, NUM_CLASSES)
    return argmax_labels(placement.backward(np.eye(NUM_CLASSES, dtype=np.float32)[windows]))


def judge_positions(segmenter: Segmenter, cine: Cine, nsd_mm: float = NSD_MM, chosen: Options = USUAL) -> list[cases.Row]:
    """`judge` with every labelled frame at each position of a snippet: the mean of its figures.

    A stream's frame may fall on any of them. `chosen`: as `segment` takes it.
    """
    readings, usual, times = [], segmenter.position, sorted(cine.labels)
    for position in range(segmenter.config.model.answered):
        segmenter.position = position
        readings.append(judge(cine, *segment(segmenter, cine, times, chosen), nsd_mm))
    segmenter.position = usual
    return [cases.mean_row(rows) for rows in zip(*readings, strict=True)]


def phases(cine: Cine) -> dict[int, str]:
    """{frame: "ED" or "ES"}: as Info.cfg says, otherwise the labelled frames of the largest and smallest LV cavity."""
    if cine.case.ed is not None and cine.case.es is not None:
        return {cine.case.es: "ES", cine.case.ed: "ED"}
    volume = {time: np.count_nonzero(truth == STRUCTURES["LV"]) for time, truth in sorted(cine.labels.items())}
    if len(set(volume.values())) < 2:
        return {}
    return {min(volume, key=volume.get): "ES", max(volume, key=volume.get): "ED"}


def stacks(cine: Cine, labels: dict[int, np.ndarray]) -> tuple[np.ndarray, np.ndarray | None]:
    """Labels (frames, s, h, w) of a whole cine, and its ground truth where all frames have one."""
    truths = cine.labels if len(cine.labels) == len(cine.times) else None
    stack = np.stack([labels[time] for time in cine.times])
    return stack, None if truths is None else np.stack([truths[time] for time in cine.times])
