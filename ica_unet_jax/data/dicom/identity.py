"""Who a study is of. Read only where a user asks that it be kept: nothing else in this package knows it."""

from __future__ import annotations

import re
from pathlib import Path

from ica_unet_jax.data.dicom import images

_TAGS = {"patient_name": "PatientName", "patient_number": "PatientID", "birth_date": "PatientBirthDate", "study_date": "StudyDate"}


def read(path: Path) -> dict[str, str]:
    """Name, number and birth date of a patient and the date of the study, as a file has them. Raises UserError where it cannot be read."""
    data = images.read_dataset(path, tuple(_TAGS.values()))
    return {name: str(data.get(tag, "")) for name, tag in _TAGS.items()}


def file_name(identity: dict[str, str]) -> str:
    """The patient's number as a part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", identity["patient_number"]).strip("._") or "unnumbered"
