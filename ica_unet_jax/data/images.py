"""Reads the NIfTI files of a case and compares them with each other: what all readers of such files have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path

import nibabel as nib
import numpy as np

from ica_unet_jax.data import checks, orientation
from ica_unet_jax.data.case import Case, Cine, Examination
from ica_unet_jax.data.nifti import check_frames, open_frames, spacing_of, stem
from ica_unet_jax.data.truths import Truth, read_labels, read_truth

_SAME_AFFINE = 0.01  # mm; ground truths are often saved with rounded affines
_SAME_SIZE = 0.01  # of a voxel, as a part of it


def examine(case: Case, label_map: Mapping[int, int], with_labels: bool) -> Examination:
    """As `reading.Reader.examine`, of a case of NIfTI files. The case of what is found has its phases placed in the cine."""
    seen = Examination(problems=list(case.problems), remarks=list(case.remarks))
    problems = seen.problems
    volumes, images = {}, {}
    if case.cine and (opened := checks.attempt(problems, check_frames, case.cine)):
        image, frames, found, empty = opened
        problems += found
        # What is learnt from or judged must be whole; of another cine the rest is worth having.
        (problems if with_labels and case.labelled else seen.remarks).extend(empty)
        if image.ndim == 3 and (with_labels or stem(case.cine).lower().endswith("_4d")):
            problems.append(f"{case.cine} is 3D {image.shape} where a cine (x, y, z, t) is expected; replace it, or "
                            "name a single frame NAME_frameNN.nii.gz.")
        else:
            case = _placed(case, frames, problems) if with_labels else case
            seen.cine = _cine(case, frames, range(len(frames)), image)
    for time, path in sorted(case.frames.items()):
        if opened := checks.attempt(problems, check_frames, path):
            image, frames, found, empty = opened
            problems += found + empty
            if len(frames) > 1:
                problems.append(f"{path} has {len(frames)} frames where one is expected; name a cine NAME_4d.nii.gz.")
            else:
                volumes[time], images[time] = frames[0], image
    if seen.cine:
        for time, volume in volumes.items():
            problems += checks.of_frame(case.frames[time], time, volume, case.cine, seen.cine.frames)
    elif volumes and not case.cine:
        shapes = sorted({volume.shape[::-1] for volume in volumes.values()})
        if len(shapes) == 1:
            seen.cine = _cine(case, np.stack(list(volumes.values())), volumes, images[min(images)])
            _compare_frames(seen, case, images)
        else:
            problems.append(f"{case.frames[min(volumes)].parent}: the frames of {case.name} differ in shape "
                            f"({' and '.join(map(str, shapes))}); export them on one grid.")
    elif with_labels and (case.truth or case.labels) and not (case.cine or case.frames or case.problems or case.truth_problems):
        problems.append(f"{case.truth or case.labels[min(case.labels)]} has no image; add {case.name}_4d.nii.gz.")
    if with_labels:
        _examine_labels(seen, case, label_map)
        _examine_truth(seen, case, label_map)
    if seen.cine and not seen.problems:
        seen.remarks += checks.of_order(seen.cine)
    return seen


def _compare_frames(seen: Examination, case: Case, images: Mapping[int, nib.Nifti1Image]) -> None:
    """Whether frames without a cine, of one shape, are on one grid: that of the first stands for all of them."""
    place, first = case.frames[min(images)].parent, images[min(images)]
    codes = {orientation.codes_of(image.header) or "without orientation" for image in images.values()}
    if len(codes) > 1:
        seen.problems.append(f"{place}: the frames of {case.name} lie differently in the patient ({' and '.join(sorted(codes))}); export them on one grid.")
    for time, image in images.items():
        if not np.allclose(spacing_of(image), spacing_of(first), rtol=_SAME_SIZE, atol=0):
            sizes = " and ".join(" x ".join(f"{size:g}" for size in spacing_of(one)[::-1]) for one in (first, image))
            seen.problems.append(f"{case.frames[time]} has other voxels than {case.frames[min(images)].name} ({sizes} mm); export both on one grid.")
        elif len(codes) == 1 and not np.allclose(image.affine, first.affine, rtol=0, atol=_SAME_AFFINE):
            seen.remarks.append(f"{case.frames[time]} has another affine than {case.frames[min(images)].name}, which stands for both.")


def examine_file(path: Path, whole: bool = True) -> Examination:
    """An image by itself, 3D or 4D, whatever its name; if not `whole`, its frames may hold anything. Raises UserError if unreadable."""
    image, frames, problems, empty = check_frames(path) if whole else (*open_frames(path), [])
    return Examination(_cine(Case(stem(path), cine=path), frames, range(len(frames)), image), problems, empty)


def _examine_labels(seen: Examination, case: Case, label_map: Mapping[int, int]) -> None:
    """Adds the ground truths to the cine, if there is one, and what is to be said of them."""
    for time, path in sorted(case.labels.items()):
        truth = checks.attempt(seen.problems, read_labels, path, label_map)
        if not truth or not seen.cine:
            continue
        seen.cine.labels[time] = truth.volumes[0]
        times, shape = seen.cine.times, seen.cine.frames.shape[1:]
        seen.problems += checks.of_labels(path, time, truth.shape[1:], case.cine, times, shape)
        _compare(seen, path, truth, case.cine or case.frames.get(time))
    seen.problems += checks.of_truth(case)
    if case.labels:
        bare = sorted(set(case.frames) - set(case.labels))
        seen.remarks += [f"{case.frames[time]} has no ground truth and is not trained on." for time in bare]


def _examine_truth(seen: Examination, case: Case, label_map: Mapping[int, int]) -> None:
    """Adds the labelled frames of a ground truth of the whole cine."""
    truth = case.truth and checks.attempt(seen.problems, read_truth, case.truth, label_map)
    if not truth or not seen.cine:
        return
    if problems := checks.of_cine_truth(case.truth, truth.shape, case.cine, seen.cine.frames):
        seen.problems += problems
        return
    if beyond := [time for time in case.labelled_frames if time >= truth.shape[0]]:
        seen.problems.append(f"{case.truth} has {truth.shape[0]} frames, but --labelled_frames names frame {beyond[0] + 1}; correct the flag.")
    labels = {time: np.zeros(truth.shape[1:], np.uint8) for time in set(case.labelled_frames).difference(beyond)}
    labels |= {time: volume for time, volume in truth.volumes.items() if volume.any()}
    seen.cine.labels.update(sorted(labels.items()))
    if not labels:
        seen.problems.append(f"{case.truth} labels nothing in any frame; remove it, or name its frames without a heart by --labelled_frames.")
    _compare(seen, case.truth, truth, case.cine)


def _compare(seen: Examination, path: Path, truth: Truth, image: Path | None) -> None:
    """Takes note of what a ground truth holds and of what is odd about it; `image` is what it belongs to."""
    seen.stored |= truth.stored
    if truth.rounded:
        seen.remarks.append(f"{path} holds labels that are no whole numbers, but close to them; they are rounded.")
    if not np.allclose(truth.affine, seen.cine.affine, rtol=0, atol=_SAME_AFFINE):
        seen.remarks.append(f"{path} has another affine than {image.name if image else 'its image'}; voxels are "
                            "matched by index all the same.")


def _placed(case: Case, frames: np.ndarray, problems: list[str]) -> Case:
    """The case with its phases among the labels: each is the frame of the cine `frames` (t, s, h, w) that equals it."""
    times: dict[str, int] = {}
    labels = dict(case.labels)
    for phase in case.phases:
        opened = checks.attempt(problems, open_frames, phase.image)
        if opened and len(opened[1]) > 1:
            problems.append(f"{phase.image} has {len(opened[1])} frames where one is expected; save the frame of {phase.name} alone.")
            continue
        time = opened and checks.attempt(problems, checks.find_frame, phase.image, opened[1][0], case.cine, frames)
        if time is None:
            continue
        if time in labels:
            problems.append(f"{phase.image} is frame {time + 1} of {case.cine.name}, which {labels[time].name} labels already; correct one of the two.")
        times[phase.name], labels[time] = time, phase.labels
    return dataclasses.replace(case, ed=times.get("ED", case.ed), es=times.get("ES", case.es), labels=labels, phases=())


def _cine(case: Case, frames: np.ndarray, times: Iterable[int], image: nib.Nifti1Image) -> Cine:
    return Cine(case, frames, tuple(times), {}, spacing_of(image), image.affine, image.header)
