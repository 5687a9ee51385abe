"""Writes arrays as NIfTI with the geometry of another image, and nothing else of its header: extensions and texts may hold names."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from ica_unet_jax.data.nifti import read_header
from ica_unet_jax.runtime.files import replacing

_LABELS = "labels: 1 RV, 2 myocardium, 3 LV"
_GEOMETRY = (
    "pixdim", "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
    "srow_x", "srow_y", "srow_z", "toffset",
)  # fmt: skip


def save_labels(path: str | Path, labels: np.ndarray, like: nib.Nifti1Header) -> None:
    """Writes labels (t, s, h, w) as NIfTI uint8 with the geometry, units and shape that `like` tells, 3D or 4D.

    That these are labels the header says. Raises UserError where they cannot be written.
    """
    array = labels.T.reshape(like.get_data_shape()).astype(np.uint8)
    _save(path, array, like, _LABELS, "label")


def holds_our_labels(path: Path) -> bool:
    """Whether `save_labels` wrote a file, by its header alone."""
    header = read_header(path)
    return header is not None and bytes(header["descrip"].item()).decode(errors="replace") == _LABELS


def save_frame(path: str | Path, frame: np.ndarray, like: nib.Nifti1Header) -> None:
    """Writes an image (s, h, w) as it is typed, with the geometry and units that `like` tells. Raises UserError where it cannot be written."""
    _save(path, frame.T, like, "cine MRI", "none")


def _save(path: str | Path, array: np.ndarray, like: nib.Nifti1Header, text: str, intent: str) -> None:
    kind = nib.Nifti2Image if isinstance(like, nib.Nifti2Header) else nib.Nifti1Image
    header = kind.header_class(endianness=like.endianness)
    for field in _GEOMETRY:
        header[field] = like[field]
    header.set_data_dtype(array.dtype)
    header.set_intent(intent, name="")
    header["descrip"] = text
    with replacing(path) as temporary:
        nib.save(kind(array, like.get_best_affine(), header), temporary)
