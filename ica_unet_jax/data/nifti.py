"""NIfTI files as arrays with the axes (time, slice, y, x): the stored order (x, y, z, t) transposed.

Spacing is read from the header's voxel sizes and never from the affine, because the affines of ACDC frames have unit
scale. A file is read whole, so that the checksum of a .gz is verified, and its header is believed only as far as the
file is long. Whether it is packed its first bytes say, not its name. A pair of .hdr and .img is read as the .nii that it
could be.
"""

from __future__ import annotations

import gzip
import io
import logging
import math
import re
import zlib
from collections.abc import Iterable
from pathlib import Path

import nibabel as nib
import numpy as np

from ica_unet_jax.errors import BadData, UserError

nib.imageglobals.logger.setLevel(logging.CRITICAL)  # what it mends in a header is reported here, or harmless

SUFFIX = re.compile(r"\.(?:nii|img|hdr)(?:\.gz)?$", re.IGNORECASE)
_UNREADABLE = (OSError, EOFError, ValueError, KeyError, TypeError, OverflowError, MemoryError, zlib.error,
               nib.wrapstruct.WrapStructError, nib.filebasedimages.ImageFileError,
               nib.spatialimages.HeaderDataError, nib.spatialimages.HeaderTypeError)
_NIFTI2 = 540  # length of its header, which is its first number
_LONGEST = 2**35  # bytes
_MORE = 2**20  # bytes behind the voxels
_ZOOMS = (0.01, 100.0)  # mm; what lies beyond is no voxel of a heart
_LARGEST = 1e30  # intensity; beyond it float32 arithmetic overflows
_PACKED = b"\x1f\x8b"
_POINTERS = {b"version https://git-lfs": ("Git LFS", "git lfs pull"), b"/annex/objects/": ("git-annex", "git annex get")}


def spacing_of(image: nib.Nifti1Image) -> tuple[float, float, float]:
    """(dz, dy, dx) in mm from the header's voxel sizes."""
    dx, dy, dz = (float(zoom) for zoom in image.header.get_zooms()[:3])
    return dz, dy, dx


def stem(path: Path) -> str:
    """A file's name without .nii, .nii.gz or what else ends an image's name."""
    return SUFFIX.sub("", path.name)


def files_of(path: Path) -> list[Path]:
    """What an image consists of: its header before it, where that is a file of its own."""
    suffix = SUFFIX.search(path.name)
    if not suffix or suffix[0][1:4].lower() == "nii":
        return [path]
    upper = suffix[0][1:4].isupper()
    header, image = (f"{stem(path)}.{kind.upper() if upper else kind}{suffix[0][4:]}" for kind in ("hdr", "img"))
    return [path.with_name(header), path.with_name(image)]


def read_header(path: Path) -> nib.Nifti1Header | None:
    """The header of an image, of which no more is read; None where it has none."""
    try:
        with _unpacked(files_of(path)[0]) as file:
            data = file.read(_NIFTI2)
        kind = _kind(data)
        return kind.header_class(data[: kind.header_class.template_dtype.itemsize])
    except _UNREADABLE:
        return None


def promised(path: Path, least: int) -> int | None:
    """The bytes that an image takes unpacked, at `least` so many a voxel, by its header, of which no more is read; None where it has none."""
    files = files_of(path)
    try:
        with _unpacked(files[0]) as file:
            kind, stored = _header(file.read(_NIFTI2), _magic(files))
        offset, voxels = _extent(files, kind, stored)
        return offset + voxels * max(least, stored.get_data_dtype().itemsize)
    except _UNREADABLE:
        return None


def _unpacked(path: Path) -> io.BufferedIOBase:
    with open(path, "rb") as file:
        packed = file.read(len(_PACKED)) == _PACKED
    return (gzip.open if packed else open)(path, "rb")


def _kind(data: bytes) -> type[nib.Nifti1Image]:
    numbers = [int.from_bytes(data[:4], order) for order in ("little", "big")]
    return nib.Nifti2Image if _NIFTI2 in numbers else nib.Nifti1Image


def _parse(path: Path) -> tuple[nib.Nifti1Image, np.ndarray, np.ndarray]:
    """The image, its scaled array, and the voxel sizes as they are stored: nibabel turns 0 into 1 when it loads."""
    data, kind, stored = _read(files_of(path))
    image = kind.from_bytes(data)
    with np.errstate(all="ignore"):  # scaling beyond all bounds gives infinity, which is reported
        array = np.asanyarray(image.dataobj)
    return image, array, np.abs(stored["pixdim"][1:4])


def _read(files: list[Path]) -> tuple[bytes, type[nib.Nifti1Image], nib.Nifti1Header]:
    """The bytes of an image as a single file, its kind and its header as stored; `files` as `files_of` has them."""
    with _unpacked(files[0]) as file:
        data = file.read(_NIFTI2)
        kind, stored = _header(data, _magic(files))
        offset, count = _extent(files, kind, stored)
        claimed = offset + count * stored.get_data_dtype().itemsize
        if len(files) == 1:
            return _rest(file, data, claimed), kind, stored
    with _unpacked(files[1]) as file:
        voxels = _rest(file, b"", claimed)[offset:]
    whole, single = stored.copy(), kind.header_class.single_vox_offset
    whole["magic"], whole["vox_offset"] = kind.header_class.single_magic, single
    return whole.binaryblock + bytes(single - len(whole.binaryblock)) + voxels, kind, stored


def _magic(files: list[Path]) -> bytes:
    """How the sign of an image begins that consists of these files."""
    return b"n+" if len(files) == 1 else b"ni"


def _extent(files: list[Path], kind: type[nib.Nifti1Image], stored: nib.Nifti1Header) -> tuple[int, int]:
    """At which byte the voxels begin, and how many there are, by the header. Raises ValueError where a side is below 0."""
    shape = stored.get_data_shape()
    if min(shape, default=0) < 0:
        raise ValueError(f"its header promises {' x '.join(map(str, shape))} voxels")
    offset = int(stored["vox_offset"]) or (kind.header_class.single_vox_offset if len(files) == 1 else 0)
    return max(0, offset), math.prod(shape)


def _header(data: bytes, magic: bytes) -> tuple[type[nib.Nifti1Image], nib.Nifti1Header]:
    """The kind of an image and its header as stored, by its first bytes. Raises ValueError where they are none."""
    for sign, (system, command) in _POINTERS.items():
        if data.startswith(sign):
            raise ValueError(f"it is a pointer of {system}, not the file itself: `{command}` fetches that")
    kind = _kind(data)
    length = kind.header_class.template_dtype.itemsize
    if len(data) < length:
        raise ValueError("it is too short for an image")
    stored = kind.header_class(data[:length], check=False)
    if bytes(stored["magic"])[:3] not in (magic + b"1", magic + b"2"):
        raise ValueError("it does not begin as a NIfTI file does")
    if int(stored["datatype"]) not in nib.nifti1.data_type_codes.code:
        raise ValueError(f"its data type {stored['datatype']} is unknown")
    return kind, stored


def _rest(file: io.BufferedIOBase, data: bytes, claimed: int) -> bytes:
    """`data`, which was read, and what follows up to the length that the header claims.

    A .gz can unpack to a thousand times its size, so no more is read than the header promises, and a little.
    """
    if claimed > _LONGEST:
        raise ValueError(f"its header promises {claimed} bytes, which no cine has")
    data += file.read(max(0, claimed - len(data)))
    if claimed > len(data):
        raise ValueError(f"it holds {len(data)} bytes where its header promises {claimed}")
    if len(file.read(_MORE + 1)) > _MORE:  # up to the end, where the checksum of a .gz is verified
        raise ValueError(f"it holds far more than the {claimed} bytes that its header promises")
    return data


def open_image(path: Path) -> tuple[nib.Nifti1Image, np.ndarray, np.ndarray]:
    """The image, its scaled array (x, y, z[, t]), whatever its type, and the stored voxel sizes. Raises UserError."""
    path = Path(path)
    for file in files_of(path):
        if not file.is_file():
            raise UserError(f"{file} does not exist; " + ("check the name." if file == path else f"put it beside {path.name}."))
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
    image, array, zooms = open_image(path)
    volume = array[..., None] if array.ndim == 3 else array
    with np.errstate(over="ignore"):  # beyond float32 is infinite, which is reported
        frames = np.ascontiguousarray(volume.T, dtype=np.float32)
    problems = check_zooms(path, zooms)
    if not np.isfinite(image.affine).all():
        problems.append(f"{path} has an affine that is not finite; write the true orientation into its header.")
    if image.header.get_intent()[0] == "label":
        problems.append(f"{path} holds labels and no image, as its header says; name ground truths NAME_frameNN_gt.nii.gz and "
                        "put predictions elsewhere.")
    return image, frames, problems


def check_zooms(path: Path, zooms: Iterable[float]) -> list[str]:
    """A problem where no voxel of a heart has such sizes, in mm."""
    zooms = list(zooms)
    if all(_ZOOMS[0] <= zoom <= _ZOOMS[1] for zoom in zooms):
        return []
    sizes = " x ".join(f"{zoom:g}" for zoom in zooms)
    return [f"{path} has voxels of {sizes} mm; write the true voxel size into its header."]


def check_frames(path: Path) -> tuple[nib.Nifti1Image, np.ndarray, list[str], list[str]]:
    """`open_frames`, and what is wrong with the frames as well; apart from the rest that some, not all, show nothing."""
    image, frames, problems = open_frames(path)
    faults, empty = check_intensities(path, frames)
    return image, frames, problems + faults, empty


def check_intensities(name: Path | str, frames: np.ndarray) -> tuple[list[str], list[str]]:
    """What is wrong with frames (t, s, h, w), and apart from that which of them show nothing, where not all do."""
    faults: dict[tuple[str, str], list[int]] = {}  # times by what is to be said of one frame, and of several
    empty: set[tuple[str, str]] = set()
    for time, frame in enumerate(frames):
        low, high = frame.min(), frame.max()
        if not np.isfinite([low, high]).all():
            fault = tuple(f"{verb} NaN or infinite values; export it again." for verb in ("holds", "hold"))
        elif max(-low, high) > _LARGEST:
            fault = tuple(f"{verb} values beyond {_LARGEST:g}; export it again." for verb in ("holds", "hold"))
        elif low == high:
            fault = tuple(f"{subject} constant ({low:g}), so {shows} nothing; export it again." for subject, shows in (("is", "it shows"), ("are", "they show")))
            empty.add(fault)
        else:
            continue
        faults.setdefault(fault, []).append(time)
    told = {fault: _told(name, times, fault, len(frames)) for fault, times in faults.items()}
    apart = empty if sum(len(faults[fault]) for fault in empty) < len(frames) else set()
    return [told[fault] for fault in told if fault not in apart], [told[fault] for fault in told if fault in apart]


def _told(name: Path | str, times: list[int], fault: tuple[str, str], count: int) -> str:
    """A sentence about some frames of an image."""
    one, several = fault
    if len(times) == 1:
        return f"{name}, frame {times[0] + 1}, {one}" if count > 1 else f"{name} {one}"
    runs = np.split(times, np.flatnonzero(np.diff(times) > 1) + 1)
    listed = ", ".join(f"{run[0] + 1}" if len(run) == 1 else f"{run[0] + 1} to {run[-1] + 1}" for run in runs)
    return f"{name}, frames {listed}, {several}"


def read_volume(path: str | Path) -> tuple[np.ndarray, nib.Nifti1Image]:
    """Any 3D or 4D NIfTI image as float32 (t, s, h, w), t = 1 for 3D, and the nibabel image for its header.

    Raises UserError if it cannot be read, has voxels of no size, or is NaN, infinite or constant.
    """
    image, frames, problems, empty = check_frames(Path(path))
    if problems or empty:
        raise BadData(problems + empty)
    return frames, image
