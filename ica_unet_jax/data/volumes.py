"""NIfTI files as arrays with the axes (time, slice, y, x): the stored order (x, y, z, t) transposed.

Spacing is read from the header's voxel sizes and never from the affine, because the affines of ACDC frames have unit
scale.
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np

from ica_unet_jax.config import NUM_CLASSES
from ica_unet_jax.errors import UserError

_UNREADABLE = (OSError, EOFError, ValueError, OverflowError, MemoryError, zlib.error,
               nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError)


def spacing_of(image: nib.Nifti1Image) -> tuple[float, float, float]:
    """(dz, dy, dx) in mm from the header's voxel sizes."""
    dx, dy, dz = (float(zoom) for zoom in image.header.get_zooms()[:3])
    return dz, dy, dx


def _open(path: Path) -> tuple[nib.Nifti1Image, np.ndarray]:
    """The image and its scaled array (x, y, z[, t]), whatever its type. Raises UserError."""
    if not Path(path).is_file():
        raise UserError(f"{path} does not exist; check the name.")
    try:
        image = nib.load(path)
        array = np.asanyarray(image.dataobj)
    except _UNREADABLE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} cannot be read as NIfTI ({reason[:120]}); copy or download it again.") from error
    if not isinstance(image, nib.Nifti1Image):
        raise UserError(f"{path} is {type(image).__name__}, no NIfTI volume; save it as NIfTI-1.")
    if array.dtype.kind not in "biuf":
        raise UserError(f"{path} holds {array.dtype} values; save it with one real number a voxel.")
    if array.ndim not in (3, 4) or 0 in array.shape:
        raise UserError(f"{path} has the shape {array.shape}; save it as (x, y, z) or (x, y, z, t).")
    return image, array


def _stored_zooms(image: nib.Nifti1Image, path: Path) -> np.ndarray:
    """The voxel sizes as they stand in the file: nibabel turns 0 into 1 when it loads an image."""
    header = type(image.header)
    with nib.openers.ImageOpener(path) as file:
        block = file.read(header.template_dtype.itemsize)
    return np.abs(header(block, check=False)["pixdim"][1:4])


def zoom_problem(image: nib.Nifti1Image, path: Path) -> str:
    """What is wrong with the voxel sizes of a file, or ""."""
    zooms = _stored_zooms(image, path)
    if all(np.isfinite(zoom) and zoom > 0 for zoom in zooms):
        return ""
    sizes = " x ".join(f"{zoom:g}" for zoom in zooms)
    return f"{path} has voxels of {sizes} mm; write the true voxel size into its header."


def open_frames(path: Path) -> tuple[nib.Nifti1Image, np.ndarray, list[str]]:
    """The image, its frames float32 (t, s, h, w) and what is wrong with them. Raises UserError if unreadable."""
    image, array = _open(path)
    volume = array[..., None] if array.ndim == 3 else array
    with np.errstate(over="ignore"):  # beyond float32 is infinite, which is reported
        frames = np.ascontiguousarray(volume.T, dtype=np.float32)
    problems = list(filter(None, [zoom_problem(image, path)]))
    for time, frame in enumerate(frames):
        where = f"{path}, frame {time + 1}," if len(frames) > 1 else f"{path}"
        if not np.isfinite(frame).all():
            problems.append(f"{where} holds NaN or infinite values; export it again.")
        elif frame.min() == frame.max():
            problems.append(f"{where} is constant ({frame.flat[0]:g}), so it shows nothing; export it again.")
    return image, frames, problems


def read_volume(path: str | Path) -> tuple[np.ndarray, nib.Nifti1Image]:
    """Any 3D or 4D NIfTI image as float32 (t, s, h, w), t = 1 for 3D, and the nibabel image for its header.

    Raises UserError if it cannot be read, has voxels of no size, or is NaN, infinite or constant.
    """
    image, frames, problems = open_frames(Path(path))
    if problems:
        raise UserError(problems[0])
    return frames, image


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


def read_labels(path: Path, mapping: dict[int, int]) -> np.ndarray:
    """A ground truth as uint8 (s, h, w). Raises UserError for labels that are none."""
    _, array = _open(path)
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    if array.ndim == 4:
        raise UserError(f"{path} has {array.shape[3]} frames; save each labelled frame as its own 3D file.")
    values = np.unique(array)
    mapped = np.array([mapping.get(value, value) for value in values.tolist()])
    unknown = values[~np.isin(mapped, range(NUM_CLASSES))]
    if unknown.size:
        odd = ", ".join(f"{value:g}" for value in unknown[:5])
        raise UserError(f"{path} holds the labels {odd}, known are 0 to {NUM_CLASSES - 1}; "
                        "correct it or use --label_map.")
    return np.ascontiguousarray(mapped.astype(np.uint8)[np.searchsorted(values, array)].T)
