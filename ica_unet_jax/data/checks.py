"""What can be wrong between the files of one case, a sentence each. Frame numbers are 0-based here, from 1 in sentences."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

_SAME_INTENSITY = 0.01  # largest difference between a frame file and its cine, as a part of the frame's range


def zero_based(text: str | None) -> int | None:
    """A frame number counted from 1 as one counted from 0; None for what is no number."""
    return int(text) - 1 if text and re.fullmatch(r"-?\d{1,6}", text) else None


def of_info(path: Path | None, info: Mapping[str, str], cine: Path | None, count: int | None) -> list[str]:
    """What Info.cfg says that cannot be; `count` is the number of frames of the cine, if there is one."""
    problems = []
    for key in ("ED", "ES", "NbFrame"):
        if key not in info:
            continue
        number = zero_based(info[key])
        if number is None or number < 0:
            problems.append(f"{path}: {key} is '{info[key][:20]}'; write a frame number counted from 1.")
        elif count is not None and key == "NbFrame" and number + 1 != count:
            problems.append(f"{path}: NbFrame is {number + 1}, but {cine.name} has {count} frames; "
                            "correct the one that is wrong.")
        elif count is not None and number >= count:
            problems.append(f"{path}: {key} is {number + 1}, but {cine.name} has {count} frames; correct it.")
    return problems


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
