"""Judges a trained model on a cohort: labelled frames against their ground truth, whole cines over time, pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ica_unet_jax.config import DataConfig
from ica_unet_jax.data import cohort, heart, reading, splits
from ica_unet_jax.data.case import Case, Cine
from ica_unet_jax.data.geometry import Placement
from ica_unet_jax.errors import UserError
from ica_unet_jax.evaluation import pages
from ica_unet_jax.inference import roi, segmenters
from ica_unet_jax.inference.postprocessing import largest_components
from ica_unet_jax.inference.segmenters import Segmenter
from ica_unet_jax.labels import STRUCTURES
from ica_unet_jax.metrics import cases
from ica_unet_jax.metrics.clinical import volumes_ml
from ica_unet_jax.metrics.over_time import behaviour, mean_behaviour
from ica_unet_jax.metrics.surface import NSD_MM
from ica_unet_jax.reporting import figures
from ica_unet_jax.runs import provenance, run_folder
from ica_unet_jax.runtime.files import write_json, write_text
from ica_unet_jax.runtime.progress import Progress

WINDOWS = (*roi.WINDOWS, "oracle")
NEIGHBOUR_FRAMES = ("cine", "itself")


def evaluate(
    run_dir: str | Path,
    out: str | Path = "",
    *,
    data_dir: str | Path = "",
    label_map: str | None = None,
    split: str = "val",
    which: str = "latest",
    window: str | None = None,
    cines: int = 3,
    largest_component: bool = False,
    mirror: bool = False,
    neighbour_frames: str = "cine",
    nsd_mm: float = NSD_MM,
    pictures: bool = True,
    skip_bad_cases: bool = False,
) -> Path:
    """Judges every labelled frame of the chosen patients; returns the folder with the results.

    It holds cases.csv (a line for each frame), table.md, summary.json and, unless told otherwise, pictures/ (overlays
    of each patient, volume curves of each whole cine).

    Args:
      run_dir: of the training.
      out: folder to write into; empty: evaluation_SPLIT in `run_dir`, with _best, _WINDOW, _largest_component, _mirror, _itself
        and, as in _nsd_1mm, another tolerance where these are asked for.
      data_dir, label_map: the cohort; by default the training's.
      split: "val" or "test" of the run's split, or "all" patients of the cohort.
      which: "latest" or "best" checkpoint.
      window: where the model looks, one of `WINDOWS`: at the image centre; where it finds the heart, from one of the
        frames that are segmented to the next; or, for comparison only, where the ground truth has the heart. By default as
        the network was trained.
      cines: so many patients that have a cine are segmented whole, for the figures over time.
      largest_component: keep the largest component of each structure alone.
      mirror: average with the three mirror images.
      neighbour_frames: one of `NEIGHBOUR_FRAMES`: a frame is seen between its neighbours in the cine, or, to tell what
        these are worth, as its own neighbour on both sides.
      nsd_mm: tolerance of the normalized surface Dice, in mm.
      pictures: draw overlays and volume curves.
      skip_bad_cases: leave bad cases out, which the summary and the table then name.

    Raises:
      UserError: no such run, patients that the cohort lacks, or none with a ground truth, an unknown `neighbour_frames`.
      BadData: all that is wrong with the chosen patients that have one.
    """
    if neighbour_frames not in NEIGHBOUR_FRAMES:
        raise UserError(f"--neighbour_frames={neighbour_frames} is unknown: give one of {', '.join(NEIGHBOUR_FRAMES)}.")
    segmenter = segmenters.load(run_dir, which, mirror=mirror)
    data = segmenter.config.data
    window = window or data.window
    label_map = data.label_map if label_map is None else label_map
    data = dataclasses.replace(data, data_dir=str(data_dir) or data.data_dir, label_map=label_map)
    trained = run_folder.read_split(run_dir)
    chosen = choose_cases(trained, data, split)
    labelled = [case for case in chosen if case.labels]
    found, left_out = cohort.screen(labelled, lambda case: bool(reading.read(case, label_map)), skip_bad_cases)
    labelled = [case for case in labelled if case.name in found]
    options = {which: which == "best", window: window != data.window, "largest_component": largest_component, "mirror": mirror}
    options |= {neighbour_frames: neighbour_frames != "cine", f"nsd_{nsd_mm:g}mm": nsd_mm != NSD_MM}
    name = "_".join(["evaluation", split, *(option for option, chosen in options.items() if chosen)])
    folder = Path(out or Path(run_dir) / name)
    seen = dict(largest_component=largest_component, window=window, neighbour_frames=neighbour_frames)

    rows, over_time = [], {}
    with Progress(len(labelled), unit="patient") as progress:
        for done, case in enumerate(labelled, start=1):
            cine = reading.read(case, label_map)
            whole = bool(case.cine) and len(cine.times) > 2 and len(over_time) < cines
            times = cine.times if whole else sorted(cine.labels)
            snippets = segmenter.config.model.answered > 1
            if pictures or whole or not snippets:
                labels, placements = segment(segmenter, cine, times, **seen)
            rows += judge_positions(segmenter, cine, nsd_mm, **seen) if snippets else judge(cine, labels, placements, nsd_mm)
            if pictures:
                draw_overlay(folder / "pictures" / f"{case.name}.png", cine, labels)
            if whole:
                if pictures:
                    draw_volumes(folder / "pictures" / f"{case.name}_volumes.png", cine, labels)
                over_time[case.name] = behaviour(*stacks(cine, labels), cine.spacing)
            progress.update(done)

    summary = {
        "split": split,
        "metrics_version": cases.METRICS_VERSION,
        "notes": notes(trained, labelled, split, which, window, left_out, neighbour_frames),
        "patients": [case.name for case in labelled],
        "patients_without_ground_truth": [case.name for case in chosen if not case.labels],
        "left_out": left_out,
        "checkpoint": which,
        "checkpoint_step": segmenter.step,
        "window": window,
        "largest_component": largest_component,
        "mirror": mirror,
        "neighbour_frames": neighbour_frames,
        "nsd_mm": nsd_mm,
        **cases.summarize(rows),
        "over_time": over_time,
        "over_time_mean": mean_behaviour(over_time.values()),
        "provenance": {
            "training": provenance.read(run_dir),
            "evaluation": provenance.this_process(),
        },
    }
    cases.write_cases_csv(folder / "cases.csv", rows)
    write_text(folder / "table.md", pages.page(Path(run_dir).resolve().name, summary, rows))
    write_json(folder / "summary.json", summary)
    return folder


def training_report(folder: Path, cines: Sequence[Cine], segmenter: Segmenter, count: int = 3) -> None:
    """Pictures for the end of a training: learning curves and overlays of the first `count` validation patients.

    Writes curves.png and validation/PATIENT.png into the run folder.
    """
    figures.compare_runs([str(folder)], folder / "curves.png")
    for cine in cines[:count]:
        labels, _ = segment(segmenter, cine, sorted(cine.labels))
        draw_overlay(folder / "validation" / f"{cine.case.name}.png", cine, labels)


def choose_cases(trained: splits.Split, data: DataConfig, split: str) -> list[Case]:
    """The cases of `split` in the cohort that `data` names; `trained` is the run's split.

    Raises:
      UserError: the cohort lacks some of them, or none of the chosen has a ground truth.
    """
    found = cohort.open_cohort(data, write=False)
    wanted = [] if split == "all" else trained.get(split, [])
    missing = sorted(set(wanted) - {case.name for case in found})
    if missing:
        few = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise UserError(
            f"--split={split} of this run names {len(missing)} of {len(wanted)} patients that "
            f"--data_dir={data.data_dir} lacks ({few}): "
            "give the data of the training, or --split=all for a cohort of its own."
        )
    chosen = splits.select(trained, found, split)
    if not any(case.labels for case in chosen):
        raise UserError(
            f"--data_dir={data.data_dir} holds no ground truth of the chosen patients: "
            "add NAME_frameNN_gt.nii.gz files, or segment without judging by ica_unet_jax.predict."
        )
    return chosen


def notes(
    trained: splits.Split, chosen: Iterable[Case], split: str, which: str, window: str = "centre",
    left_out: Iterable[str] = (), neighbour_frames: str = "cine",
) -> list[str]:  # fmt: skip
    """What a reader of the figures has to know."""
    training = sorted(set(trained["train"]) & {case.name for case in chosen})
    found = []
    if training:
        found.append(f"contains training patients ({len(training)} by name)")
    if which == "best" and split != "test":
        found.append("the checkpoint was chosen on the validation patients")
    if left_out:
        found.append(f"bad cases were left out: {', '.join(left_out)}")
    if window == "oracle":
        found.append("the window was centred on the ground truth, which nobody has")
    if neighbour_frames == "itself":
        found.append("each frame was shown as its own neighbour")
    return found


def segment(
    segmenter: Segmenter,
    cine: Cine,
    times: Sequence[int],
    largest_component: bool = False,
    window: str = "centre",
    neighbour_frames: str = "cine",
) -> tuple[dict[int, np.ndarray], dict[int, Placement]]:
    """Some frames of a case, each seen with its neighbours as `neighbour_frames` says, by number.

    Returns:
      labels (s, h, w) uint8 of each frame, and the placement of the window through which it was seen.
    """
    clean = largest_components if largest_component else np.asarray
    frames, placement, windows = _frames_and_times(segmenter, cine, times)
    if neighbour_frames == "itself":
        windows = [(time,) * len(around) for time, around in zip(times, windows, strict=True)]
    found = zip(times, segmenter.labels(frames, open_window(window, placement, cine), windows), strict=True)
    labels, placements = {}, {}
    for time, (volume, seen_at) in found:
        labels[time], placements[time] = clean(volume), seen_at
    return labels, placements


def open_window(kind: str, placement: Placement, cine: Cine) -> roi.Window:
    """The window named by one of `WINDOWS`; the oracle's does not move with the beat."""
    if kind != "oracle":
        return roi.open_window(kind, placement)
    return roi.Window(heart.on_heart(placement, cine.labels.values()))


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


def judge_positions(segmenter: Segmenter, cine: Cine, nsd_mm: float = NSD_MM, **seen: Any) -> list[cases.Row]:
    """`judge` with every labelled frame at each position of a snippet: the mean of its figures.

    A stream's frame may fall on any of them. `seen`: what `segment` is told.
    """
    readings, usual, times = [], segmenter.position, sorted(cine.labels)
    for position in range(segmenter.config.model.answered):
        segmenter.position = position
        readings.append(judge(cine, *segment(segmenter, cine, times, **seen), nsd_mm))
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


def draw_overlay(path: Path, cine: Cine, labels: dict[int, np.ndarray]) -> None:
    """The picture of some frames of a case; see `figures.overlay_grid`."""
    frames = {time: cine.frame(time) for time in labels}
    truths = {time: truth for time, truth in cine.labels.items() if time in labels}
    title = f"{cine.case.name} {cine.case.group}".strip()
    figures.overlay_grid(path, frames, labels, truths, cine.spacing, title=title, phases=phases(cine))


def draw_volumes(path: Path, cine: Cine, labels: dict[int, np.ndarray]) -> None:
    """The volume curves of a segmented cine; see `figures.volume_curves`."""
    volumes = volumes_ml(np.stack([labels[time] for time in cine.times]), cine.spacing)
    truths = {time: volumes_ml(truth, cine.spacing) for time, truth in cine.labels.items()}
    unit = "mL, by a nominal voxel size" if cine.case.nominal_spacing else "mL"
    title = f"{cine.case.name} {cine.case.group}".strip()
    figures.volume_curves(path, volumes, truths=truths, phases=phases(cine), title=title, unit=unit)
