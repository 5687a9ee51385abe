"""NIfTI files as arrays with the axes (time, slice, y, x): the stored order (x, y, z, t) transposed.

Spacing is read from the header's voxel sizes and never from the affine, because the affines of ACDC frames have unit
scale. A file is read whole, so that the checksum of a .gz is verified, and its header is believed only as far as the
file is long.
"""

from __future__ import annotations

import gzip
import io
import logging
import math
import re
import zlib
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np

from ica_unet_jax.errors import BadData, UserError
from ica_unet_jax.labels import NUM_CLASSES

nib.imageglobals.logger.setLevel(logging.CRITICAL)  # what it mends in a header is reported here, or harmless

_UNREADABLE = (OSError, EOFError, ValueError, KeyError, TypeError, OverflowError, MemoryError, zlib.error,
               nib.wrapstruct.WrapStructError, nib.filebasedimages.ImageFileError,
               nib.spatialimages.HeaderDataError, nib.spatialimages.HeaderTypeError)
_NIFTI2 = 540  # length of its header, which is its first number
_LONGEST = 2**35  # bytes
_MORE = 2**20  # bytes behind the voxels
_ZOOMS = (0.01, 100.0)  # mm; what lies beyond is no voxel of a heart
_LARGEST = 1e30  # intensity; beyond it float32 arithmetic overflows


def spacing_of(image: nib.Nifti1Image) -> tuple[float, float, float]:
    """(dz, dy, dx) in mm from the header's voxel sizes."""
    dx, dy, dz = (float(zoom) for zoom in image.header.get_zooms()[:3])
    return dz, dy, dx


def _parse(path: Path) -> tuple[nib.Nifti1Image, np.ndarray, np.ndarray]:
    """The image, its scaled array, and the voxel sizes as they are stored: nibabel turns 0 into 1 when it loads."""
    with (gzip.open if path.name.endswith(".gz") else open)(path, "rb") as file:
        data, kind, stored = _read(file)
    image = kind.from_bytes(data)
    with np.errstate(all="ignore"):  # scaling beyond all bounds gives infinity, which is reported
        array = np.asanyarray(image.dataobj)
    return image, array, np.abs(stored["pixdim"][1:4])


def _read(file: io.BufferedIOBase) -> tuple[bytes, type[nib.Nifti1Image], nib.Nifti1Header]:
    """The bytes of an image, its kind and its header as stored.

    A .gz can unpack to a thousand times its size, so no more is read than the header promises, and a little.
    """
    data = file.read(_NIFTI2)
    numbers = [int.from_bytes(data[:4], order) for order in ("little", "big")]
    kind = nib.Nifti2Image if _NIFTI2 in numbers else nib.Nifti1Image
    length = kind.header_class.template_dtype.itemsize
    if len(data) < length:
        raise ValueError("it is too short for an image")
    stored = kind.header_class(data[:length], check=False)
    if bytes(stored["magic"])[:3] not in (b"n+1", b"n+2"):
        raise ValueError("it does not begin as a .nii does")
    if int(stored["datatype"]) not in nib.nifti1.data_type_codes.code:
        raise ValueError(f"its data type {stored['datatype']} is unknown")
    offset = int(stored["vox_offset"]) or kind.header_class.single_vox_offset
    claimed = max(0, offset) + math.prod(stored.get_data_shape()) * stored.get_data_dtype().itemsize
    if claimed > _LONGEST:
        raise ValueError(f"its header promises {claimed} bytes, which no cine has")
    data += file.read(max(0, claimed - len(data)))
    if claimed > len(data):
        raise ValueError(f"it holds {len(data)} bytes where its header promises {claimed}")
    if len(file.read(_MORE + 1)) > _MORE:  # up to the end, where the checksum of a .gz is verified
        raise ValueError(f"it holds far more than the {claimed} bytes that its header promises")
    return data, kind, stored


def _open(path: Path) -> tuple[nib.Nifti1Image, np.ndarray, np.ndarray]:
    """The image, its scaled array (x, y, z[, t]), whatever its type, and the stored voxel sizes. Raises UserError."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist; check the name.")
    try:
        image, array, zooms = _parse(path)
    except _UNREADABLE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} cannot be read as NIfTI ({reason[:120]}); copy or download it again.") from error
    if array.dtype.kind not in "biuf":
        raise UserError(f"{path} holds {array.dtype} values; save it with one real number a voxel.")
    if array.ndim not in (3, 4) or 0 in array.shape:
        raise UserError(f"{path} has the shape {array.shape}; save it as (x, y, z) or (x, y, z, t).")
    return image, array, zooms


def open_frames(path: Path) -> tuple[nib.Nifti1Image, np.ndarray, list[str]]:
    """The image, its frames float32 (t, s, h, w) and what is wrong with its header. Raises UserError if unreadable."""
    image, array, zooms = _open(path)
    volume = array[..., None] if array.ndim == 3 else array
    with np.errstate(over="ignore"):  # beyond float32 is infinite, which is reported
        frames = np.ascontiguousarray(volume.T, dtype=np.float32)
    problems = []
    if not all(_ZOOMS[0] <= zoom <= _ZOOMS[1] for zoom in zooms):
        sizes = " x ".join(f"{zoom:g}" for zoom in zooms)
        problems.append(f"{path} has voxels of {sizes} mm; write the true voxel size into its header.")
    if not np.isfinite(image.affine).all():
        problems.append(f"{path} has an affine that is not finite; write the true orientation into its header.")
    return image, frames, problems


def check_frames(path: Path) -> tuple[nib.Nifti1Image, np.ndarray, list[str]]:
    """`open_frames`, and what is wrong with the frames as well."""
    image, frames, problems = open_frames(path)
    for time, frame in enumerate(frames):
        where = f"{path}, frame {time + 1}," if len(frames) > 1 else f"{path}"
        low, high = frame.min(), frame.max()
        if not np.isfinite([low, high]).all():
            problems.append(f"{where} holds NaN or infinite values; export it again.")
        elif max(-low, high) > _LARGEST:
            problems.append(f"{where} holds values beyond {_LARGEST:g}; export it again.")
        elif low == high:
            problems.append(f"{where} is constant ({low:g}), so it shows nothing; export it again.")
    return image, frames, problems


def read_volume(path: str | Path) -> tuple[np.ndarray, nib.Nifti1Image]:
    """Any 3D or 4D NIfTI image as float32 (t, s, h, w), t = 1 for 3D, and the nibabel image for its header.

    Raises UserError if it cannot be read, has voxels of no size, or is NaN, infinite or constant.
    """
    image, frames, problems = check_frames(Path(path))
    if problems:
        raise BadData(problems)
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


def read_labels(path: Path, mapping: Mapping[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A ground truth as uint8 (s, h, w), and its affine (4, 4). Raises UserError for labels that are none."""
    image, array, _ = _open(path)
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
    return np.ascontiguousarray(mapped.astype(np.uint8)[np.searchsorted(values, array)].T), image.affine
