"""What can be wrong with the files of one case, whatever the reader, a sentence each.

Frame numbers are 0-based here, from 1 in sentences.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ica_unet_jax.data.case import Case, Cine, Examination
from ica_unet_jax.data.nifti import SUFFIX, files_of
from ica_unet_jax.errors import UserError
from ica_unet_jax.labels import STRUCTURES

_SAME_INTENSITY = 0.01  # largest difference between a frame file and its cine, as a part of the frame's range
_FINER = 1.5  # slices that lie closer than the pixels of the image by this factor are none
_SLOWER = 0.5  # of the change from frame to frame; in ACDC slices change by 2.5 times as much and more, rows and columns by 0.9 and more
_STACK = 20  # slices; real stacks rarely have more, cines that were saved as one often
_FEW, _ALIKE = 5, 0.2  # slices that differ by less of the image's deviation: ACDC's do by 0.30 and more, its frames by 0.16 and less
_EXCHANGED = 0.2  # of the border; by so much more of the RV's than of the LV's is myocardium
_ANNEX = ".git/annex/objects"


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
        end, folder = path.resolve(strict=True), root.resolve()
    except (OSError, RuntimeError):  # RuntimeError: a link to itself, before Python 3.13
        if path.is_symlink() and _ANNEX in os.readlink(path).replace(os.sep, "/"):
            return f"{path} is a link to what git-annex has not fetched; `datalad get` or `git annex get` fetches it."
        return f"{path} is a link that leads nowhere; put the file itself there."
    # git-annex and DataLad keep files beside the cohort, in the repository that it belongs to.
    if any(end.is_relative_to(place) for place in (folder, *(above / _ANNEX for above in folder.parents))):
        return ""
    return f"{path} is a link that leads outside {root}; put the file itself there, as `cp -rL` does for all of a folder."


def of_image(path: Path, root: Path) -> str:
    """As `of_path`, of an image, which may be a pair of files."""
    there = (file for file in files_of(path) if file == path or file.is_symlink() or file.exists())
    return next(filter(None, (of_path(file, root) for file in there)), "")


def of_truth(case: Case) -> list[str]:
    """What names show to be wrong with ground truths, and a problem where there are frame files, as ACDC has them for ED and ES, but no
    ground truth of any.

    Patients whom a cohort's publishers keep for the test may have none.
    """
    if case.truth_problems or case.labelled or not case.frames or case.part == "test":
        return list(case.truth_problems)
    path = case.frames[min(case.frames)]
    truth = SUFFIX.sub(lambda suffix: "_gt" + suffix[0], path.name)
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


def of_cine_truth(path: Path, shape: Sequence[int], cine: Path, frames: np.ndarray) -> list[str]:
    """Whether a ground truth of that shape (t, s, h, w) is one of the whole cine."""
    if tuple(shape) != frames.shape:
        return [f"{path} has the shape {tuple(shape)[::-1]}, {cine.name} {frames.shape[::-1]}; export both on one grid."]
    return []


def with_hearts(seen: Examination) -> Examination:
    """With a problem for each file of a frame that labels nothing, for cohorts in which every labelled frame shows a heart."""
    cine = seen.cine
    seen.problems += [f"{path} labels nothing; remove it, or put the true one there."
                      for time, path in (sorted(cine.case.labels.items()) if cine else ()) if time in cine.labels and not cine.labels[time].any()]
    return seen


def find_frame(path: Path, volume: np.ndarray, cine: Path, frames: np.ndarray) -> int:
    """The number of the cine's frame that equals the image `volume` (s, h, w) of a file. Raises UserError where none does."""
    if volume.shape != frames.shape[1:]:
        raise UserError(f"{path} has the shape {volume.shape[::-1]}, the frames of {cine.name} {frames.shape[:0:-1]}; "
                        "export both on one grid.")
    nearest = min(range(len(frames)), key=lambda time: np.abs(volume - frames[time]).mean())
    if not _same(volume, frames[nearest]):
        raise UserError(f"{path} is no frame of {cine.name}, so that nothing tells which frame its ground truth is of; "
                        "correct one of the two, or remove the cine, so that the frame stands alone.")
    return nearest


def of_order(cine: Cine) -> list[str]:
    """A remark where RV and LV seem exchanged: the cavity of the LV lies within the myocardium, that of the RV beside it."""
    if not cine.labels:
        return []
    labels = np.concatenate(list(cine.labels.values()))
    rv, lv = (_enclosed(labels, STRUCTURES[name]) for name in ("RV", "LV"))
    if rv < lv + _EXCHANGED:
        return []
    return [f"{cine.case.image}: what is taken as RV lies within the myocardium, and what is taken as LV does not; they seem exchanged, see --label_map."]


def _enclosed(labels: np.ndarray, cavity: int) -> float:
    """The share of a cavity's border in the plane that is myocardium; 0 where there is no such cavity."""
    pairs = [np.moveaxis(labels, axis, 0) for axis in (1, 2)]
    sides = [(one, other) for part in pairs for one, other in ((part[1:], part[:-1]), (part[:-1], part[1:]))]
    outside = np.concatenate([other[(one == cavity) & (other != cavity)] for one, other in sides])
    return float(np.mean(outside == STRUCTURES["MYO"])) if outside.size else 0.0


def of_axes(cine: Cine) -> tuple[list[str], list[str]]:
    """Whether the axes of a case are in the order (x, y, z, t): problems and remarks."""
    path, (times, slices, *plane) = cine.case.image, cine.frames.shape
    stored = f", turned from {cine.turn.start} to {cine.turn.end} by --reorient," if cine.turn.moves else ""
    advice = ("its affine is not true, or too oblique for letters, so leave --reorient out" if cine.turn.moves else
              "save it as (x, y, z, t), or let --reorient turn it, if its affine is true")
    if max(cine.spacing[1:]) > _FINER * cine.spacing[0]:
        sizes = " x ".join(f"{size:g}" for size in cine.spacing[::-1])
        return [f"{path}{stored} has voxels of {sizes} mm, so that its slices do not lie along the third axis; {advice}."], []
    if slices > min(plane):
        return [f"{path}{stored} has more slices than rows or columns ({plane[1]} x {plane[0]} x {slices}), so that its axes are in another "
                f"order; {advice}."], []
    if slow := _slow_axis(cine.frames[~cine.empty]):
        return [f"{path}{stored} changes less from {slow} to {slow} than from frame to frame, so that its {slow}s seem to be frames; "
                "save it as (x, y, z, t)."], []
    alike = times == 1 and slices > _FEW and np.abs(np.diff(cine.frames[0, :, ::4, ::4], axis=0)).mean() < _ALIKE * cine.frames[0].std()
    if alike or slices > max(_STACK, times):
        return [], [f"{path} is {times} x {slices} slices; if these are frames, save it as (x, y, z, t), of one slice as (x, y, 1, t)."]
    return [], []


def _slow_axis(frames: np.ndarray) -> str:
    """The axis along which a cine (t, s, y, x) changes so much less than along the first that it is probably time; "" for none."""
    few, middle = frames[:, :, ::4, ::4], frames[:, frames.shape[1] // 2]
    for name, part, axis in (("slice", few, 1), ("row", middle, 1), ("column", middle, 2)):
        if min(part.shape[0], part.shape[axis]) > 2 and _change(part, axis) < _SLOWER * _change(part, 0):
            return name
    return ""


def _change(frames: np.ndarray, axis: int) -> float:
    return np.abs(np.diff(frames, axis=axis)).mean(dtype=np.float64)
