"""What can be wrong with the files of one case, whatever the reader, a sentence each.

Frame numbers are 0-based here, from 1 in sentences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ica_unet_jax.data.case import Case
from ica_unet_jax.errors import UserError

_SAME_INTENSITY = 0.01  # largest difference between a frame file and its cine, as a part of the frame's range


def attempt(problems: list[str], read: Callable, *arguments: Any) -> Any:
    """What `read` returns, or None and its complaint among the problems."""
    try:
        return read(*arguments)
    except UserError as error:
        problems.append(str(error))
        return None


def of_path(path: Path, root: Path) -> str:
    """Why a path below `root`, the folder of the cohort, must not be opened, or ""."""
    if not f"{path.relative_to(root)}".isprintable():
        return f"{str(path.relative_to(root))!a} in {root} has a name that cannot be written; rename it."
    if path.is_dir():
        return f"{path} is a folder where a file is expected; put the file itself there."
    try:
        inside = path.resolve(strict=True).is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # RuntimeError: a link to itself, before Python 3.13
        return f"{path} is a link that leads nowhere; put the file itself there."
    return "" if inside else f"{path} is a link that leads outside {root}; put the file itself there."


def of_truth(case: Case) -> list[str]:
    """A problem where there are frame files, as ACDC has them for ED and ES, and no ground truth of any."""
    if case.labels or not case.frames:
        return []
    path = case.frames[min(case.frames)]
    suffix = ".nii.gz" if path.name.endswith(".gz") else ".nii"
    truth = path.name.removesuffix(suffix) + "_gt" + suffix
    return [f"{path} has no ground truth, nor has another frame of {case.name}; add {truth}."]


def of_frame(path: Path, time: int, volume: np.ndarray, cine: Path, frames: np.ndarray) -> list[str]:
    """Whether a frame file with the image `volume` (s, h, w) is the frame of the cine that its name says."""
    if time >= len(frames):
        return [f"{path} is frame {time + 1}, but {cine.name} has {len(frames)} frames; rename or remove it."]
    if volume.shape != frames.shape[1:]:
        return [f"{path} has the shape {volume.shape[::-1]}, the frames of {cine.name} {frames.shape[:0:-1]}; "
                "export both on one grid."]
    if not np.isfinite([volume, frames[time]]).all() or _same(volume, frames[time]):
        return []
    twin = next((f" (it is frame {other + 1})" for other in range(len(frames)) if _same(volume, frames[other])), "")
    return [f"{path} is not frame {time + 1} of {cine.name}{twin}; correct its number or its content."]


def _same(frame: np.ndarray, other: np.ndarray) -> bool:
    """Equal up to the rounding of a change of type; NaN and infinity are reported elsewhere."""
    frame, other = (np.nan_to_num(volume).astype(np.float64) for volume in (frame, other))
    return np.abs(frame - other).max() <= _SAME_INTENSITY * np.ptp(other)


def of_labels(path: Path, time: int, shape: Sequence[int], cine: Path | None, times: Sequence[int],
              image_shape: Sequence[int]) -> list[str]:
    """Whether a ground truth of that shape (s, h, w) has an image among the frames `times`, and its shape."""
    if time not in times:
        there = f"{cine.name} has {len(times)} frames" if cine else "that frame is not there"
        return [f"{path} labels frame {time + 1}, but {there}; add the image or remove the file."]
    if tuple(shape) != tuple(image_shape):
        return [f"{path} has the shape {shape[::-1]}, its image {image_shape[::-1]}; export both on one grid."]
    return []
