"""Ground truths as labels of ours: whole numbers of NIfTI files, mapped where a cohort numbers its structures otherwise."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np

from ica_unet_jax.data.nifti import open_image
from ica_unet_jax.errors import UserError
from ica_unet_jax.labels import NUM_CLASSES

_ROUNDED = 1e-3  # of a label: so far scaling by a slope takes it from its whole number


def parse_label_map(text: str) -> dict[int, int]:
    """'1:3,2:2,3:1' as {1: 3, 2: 2, 3: 1}; labels that are not named stay as they are.

    Raises UserError for anything but from:to pairs with a target among the classes, or a label that is mapped twice.
    """
    mapping: dict[int, int] = {}
    for pair in filter(None, text.split(",")):
        match = re.fullmatch(r"\s*(\d{1,5})\s*:\s*(\d{1,5})\s*", pair)
        if not match or int(match[2]) >= NUM_CLASSES:
            raise UserError(f"--label_map={text}: '{pair.strip()}' is not from:to with a target of 0 to "
                            f"{NUM_CLASSES - 1}; write for example 1:3,2:2,3:1.")
        if int(match[1]) in mapping:
            raise UserError(f"--label_map={text}: label {match[1]} is mapped twice; name it once.")
        mapping[int(match[1])] = int(match[2])
    return mapping


class Truth(NamedTuple):
    """A ground truth: `volumes` uint8 (s, h, w) by frame, the whole file's `shape` (t, s, h, w) and `affine` (4, 4), the labels as
    they are `stored`, and whether they were `rounded`, as a scaling may ask for."""

    volumes: dict[int, np.ndarray]
    shape: tuple[int, ...]
    affine: np.ndarray
    stored: set[int]
    rounded: bool


def read_labels(path: Path, mapping: Mapping[int, int]) -> Truth:
    """The ground truth of a frame, as that of frame 0. Raises UserError for labels that are none."""
    image, array, _ = open_image(path)
    if array.ndim == 4 and array.shape[3] > 1:
        raise UserError(f"{path} has {array.shape[3]} frames; save each labelled frame as its own 3D file.")
    return _truth(path, image, array.reshape(*array.shape[:3], 1), [0], mapping)


def read_truth(path: Path, mapping: Mapping[int, int]) -> Truth:
    """The ground truth of a cine, of which those frames are read that hold anything. Raises UserError for labels that are none."""
    image, array, _ = open_image(path)
    array = array.reshape(*array.shape[:3], -1)
    return _truth(path, image, array, [time for time in range(array.shape[3]) if array[..., time].any()], mapping)


def _truth(path: Path, image: nib.Nifti1Image, array: np.ndarray, times: list[int], mapping: Mapping[int, int]) -> Truth:
    read = {time: _labels(path, array[..., time], mapping) for time in times}
    volumes = {time: volume for time, (volume, _, _) in read.items()}
    stored = {label for _, labels, _ in read.values() for label in labels}
    return Truth(volumes, array.T.shape, image.affine, stored, any(rounded for _, _, rounded in read.values()))


def _labels(path: Path, array: np.ndarray, mapping: Mapping[int, int]) -> tuple[np.ndarray, list[int], bool]:
    """The labels (s, h, w) of stored ones (x, y, z), what these are, and whether they were rounded."""
    values = np.unique(array)
    with np.errstate(invalid="ignore"):  # infinity is no whole number, and reported
        whole = np.rint(values)
        near = np.abs(values - whole) <= _ROUNDED
    labels = np.where(near, whole, values)
    mapped = np.array([mapping.get(label, label) for label in labels.tolist()])
    unknown = labels[~np.isin(mapped, range(NUM_CLASSES))]
    if unknown.size:
        odd = ", ".join(f"{value:.9g}" for value in unknown[:5])
        raise UserError(f"{path} holds the labels {odd}, known are 0 to {NUM_CLASSES - 1}; "
                        "correct it or use --label_map.")
    volume = np.ascontiguousarray(mapped.astype(np.uint8)[np.searchsorted(values, array)].T)
    return volume, [int(label) for label in labels], bool(np.any(labels != values))
