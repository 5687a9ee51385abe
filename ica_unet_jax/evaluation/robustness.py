"""What a trained network loses by each of the `CORRUPTIONS`, and whether the doubts of `metrics.doubts` tell where it fails."""

from __future__ import annotations

import csv
import dataclasses
import sys
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from ica_unet_jax.data import reading
from ica_unet_jax.data.case import Cine
from ica_unet_jax.errors import UserError
from ica_unet_jax.evaluation import frames, judging
from ica_unet_jax.evaluation.corruptions import CORRUPTIONS
from ica_unet_jax.inference import segmenters, turning
from ica_unet_jax.inference.options import ROBUST, choose
from ica_unet_jax.inference.segmenters import Segmenter
from ica_unet_jax.labels import NUM_CLASSES, STRUCTURES
from ica_unet_jax.metrics import doubts
from ica_unet_jax.metrics.overlap import structure_dice
from ica_unet_jax.reporting.markup import number, plain_table
from ica_unet_jax.runs.trained import Trained, find
from ica_unet_jax.runtime.files import replacing, write_text
from ica_unet_jax.runtime.progress import Progress

UPRIGHT = "as they are"
LOW = 0.8  # a frame of a lower mean Dice is a failure, which doubts should find
SIGNS = [sign for sign in doubts.SIGNS if sign != "jump"]  # single frames do not jump
COLUMNS = ("corruption", "patient", "frame", *(f"{kind}_{name}" for kind in ("dice", "whole") for name in STRUCTURES), *SIGNS)

Row = dict[str, Any]


def robustness(network: str | Path | Trained, out: str | Path = "", *, split: str = "val", seed: int = 0, **given: Any) -> Path:
    """Judges the labelled frames of the chosen patients, as they are and corrupted; returns the folder with robustness.csv and robustness.md.

    Args:
      network: as `trained.find` finds it.
      out: folder to write into; empty: `robustness` in the run folder.
      split: as in `judging.evaluate`.
      seed: of what is drawn; each patient and corruption has draws of its own.
      given: options of `options.ROBUST`.

    Raises:
      UserError: no such network, patients that the cohort lacks, or none with a ground truth.
      BadData: all that is wrong with a patient.
    """
    chosen, trained = choose(ROBUST, given), find(network)
    if not (out or trained.folder):
        raise UserError(f"--out is not given: {trained.name} has no folder; name one for the results.")
    segmenter, limits = segmenters.load_as(trained, chosen), trained.doubt_limits
    data = chosen.cohort(segmenter.config.data)
    patients = judging.choose_cases(trained.split, data, split, None if chosen.data_dir else trained.began_in)
    codes = turning.codes_for(trained, segmenter.config.data, chosen)
    labelled, rows = [case for case in patients if case.labelled], []
    if told := turning.remark(trained, labelled, codes):
        print(f"note: {told}", file=sys.stderr)
    with Progress(len(labelled), unit="patient") as progress:
        for done, case in enumerate(labelled, start=1):
            rows += judge(segmenter, reading.read(case, data.label_map, codes=codes), seed)
            progress.update(done)
    folder = Path(out or trained.folder / "robustness")
    write_csv(folder / "robustness.csv", rows)
    write_text(folder / "robustness.md", page(rows, limits))
    return folder


def judge(segmenter: Segmenter, cine: Cine, seed: int = 0) -> list[Row]:
    """A row for each labelled frame of a case, as it is and under each corruption that leaves something to be judged.

    "whole" is the Dice in the same slices of what is found in the case as it is.
    """
    rows = []
    cine = _seen(segmenter, cine)
    upright, sure = frames.segment_and_doubt(segmenter, cine, sorted(cine.labels))
    found = dataclasses.replace(cine, frames=cine.frames[:1], times=cine.times[:1], labels=upright)  # whose labels move as the truth does
    for name, corrupt in {UPRIGHT: lambda cine, random: cine, **CORRUPTIONS}.items():
        draws = [seed, *(zlib.crc32(text.encode()) for text in (name, cine.case.name))]
        seen, whole = (corrupt(one, np.random.default_rng(draws)) for one in (cine, found))
        times = sorted(time for time, truth in seen.labels.items() if truth.any())
        labels, unsure = (upright, sure) if name == UPRIGHT else frames.segment_and_doubt(segmenter, seen, times)
        for time in times:
            scores = {
                f"{kind}_{structure}": score
                for kind, volume in (("dice", labels[time]), ("whole", whole.labels[time]))
                for structure, score in structure_dice(volume, seen.labels[time]).items()
            }
            rows.append(dict(corruption=name, patient=cine.case.name, frame=time + 1) | scores | doubts.of_frame(labels[time]) | {"unsure": unsure[time]})
    return rows


def _seen(segmenter: Segmenter, cine: Cine) -> Cine:
    """The case without the frames that the network does not look at: those that are no labelled frame, nor near one."""
    if segmenter.config.data.cyclic:  # a beat with frames missing is not closed
        return cine
    near = {time for labelled in cine.labels for time in cine.window(labelled, segmenter.config.model.reach)}
    kept = [i for i, time in enumerate(cine.times) if time in near]
    return dataclasses.replace(cine, frames=cine.frames[kept], times=tuple(cine.times[i] for i in kept))


def write_csv(path: str | Path, rows: Iterable[Row]) -> None:
    """Rows of `judge`. UserError where it cannot be written."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()} for row in rows)


def read_csv(path: str | Path) -> list[Row]:
    """The rows that `write_csv` wrote. UserError for a file that is none of these."""
    numbers = [name for name in COLUMNS if name not in ("corruption", "patient", "frame")]
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            return [row | {"frame": int(row["frame"])} | {name: float(row[name]) for name in numbers} for row in csv.DictReader(file)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read as a table of corruptions ({error}): make it again.") from error


def page(rows: Sequence[Row], limits: Mapping[str, float]) -> str:
    """The two tables in Markdown: what each corruption costs, and how well doubts, beyond these limits, find failures."""
    patients = len({row["patient"] for row in rows})
    return "\n".join(
        [
            f"**What corruption costs** (Dice, mean over {patients} patients, labelled frames; the loss is against what is found in the images as they are, "
            "in the same slices)",
            "",
            costs(rows),
            "",
            f"**Do doubts find failures?** {failures(rows, limits)}",
            "",
            doubts_table(rows, limits),
            "",
        ]
    )


def costs(rows: Sequence[Row]) -> str:
    """The Dice under each corruption, and what it loses."""
    lines, lost = [], losses(rows)
    for name in (UPRIGHT, *CORRUPTIONS):
        dice = _mean_dice(rows, name, "dice")
        loss = number(lost[name], 3, signed=True) if name in lost else ""
        lines.append([name, *(number(value, 3) for value in (*dice, float(np.mean(dice)))), loss])
    return plain_table(["Images", *STRUCTURES, "mean", "loss"], lines, [False, *[True] * 5])


def losses(rows: Sequence[Row]) -> dict[str, float]:
    """{corruption: the change of the mean Dice, against what is found in the same slices of the images as they are}."""
    return {name: float(np.mean(_mean_dice(rows, name, "dice")) - np.mean(_mean_dice(rows, name, "whole"))) for name in CORRUPTIONS}


def failures(rows: Sequence[Row], limits: Mapping[str, float]) -> str:
    """How many frames fail, and how well the number of signs tells, alone and with how unsure the network is."""
    failed, several = _failed(rows), _signs(rows, limits)
    entropy = np.array([row["unsure"] for row in rows])
    order = several + entropy / np.log(NUM_CLASSES + 1)  # which is less than one sign more
    alone, unsure, both = (number(auc(score, failed), 3) for score in (several, entropy, order))
    return (
        f"Of {len(rows)} frames, as they are and corrupted, {int(failed.sum())} have a mean Dice below {LOW}. The number of signs in a frame finds them with an area under the ROC "
        f"curve of {alone}, how unsure the network is with {unsure}, both together (among frames with as many signs the less sure one first) with {both}."
    )


def doubts_table(rows: Sequence[Row], limits: Mapping[str, float]) -> str:
    """For each sign of doubt that has a limit, the share of failures and of other frames that show it."""
    failed = _failed(rows)
    found = [[doubts.SIGNS[sign], *_counts(np.array([row[sign] > limits[sign] for row in rows]), failed)] for sign in SIGNS if sign in limits]
    found.append(["any of these", *_counts(_signs(rows, limits) > 0, failed)])
    return plain_table(["Sign", f"frames below {LOW}", "other frames"], found, [False, True, True])


def _failed(rows: Sequence[Row]) -> np.ndarray:
    return np.array([np.mean([row[f"dice_{name}"] for name in STRUCTURES]) < LOW for row in rows])


def _signs(rows: Sequence[Row], limits: Mapping[str, float]) -> np.ndarray:
    """How many signs each frame shows."""
    return np.array([len(doubts.beyond({sign: row[sign] for sign in SIGNS}, limits)) for row in rows])


def auc(score: np.ndarray, positive: np.ndarray) -> float:
    """Probability that a positive has the higher score than a negative, ties counted half: the area under the ROC curve; NaN without either."""
    ranks = stats.rankdata(score)
    count, others = int(positive.sum()), int((~positive).sum())
    return (ranks[positive].sum() - count * (count + 1) / 2) / (count * others) if count and others else float("nan")


def _counts(told: np.ndarray, failed: np.ndarray) -> list[str]:
    return [f"{100 * np.mean(told[group]):.0f} %" if group.any() else number(None, 0) for group in (failed, ~failed)]


def _mean_dice(rows: Sequence[Row], corruption: str, kind: str) -> list[float]:
    """The Dice of each structure under one corruption: the mean over the frames of a patient, then over patients."""
    patients: dict[str, list[Row]] = {}
    for row in rows:
        if row["corruption"] == corruption:
            patients.setdefault(row["patient"], []).append(row)
    return [float(np.mean([np.mean([row[f"{kind}_{name}"] for row in several]) for several in patients.values()])) for name in STRUCTURES]
