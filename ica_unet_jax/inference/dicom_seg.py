"""Masks as DICOM SEG: a series with one object for each time of the cine, as archives and viewers in hospitals read it.

The standard wants name, number and birth date of the patient in it, as the images have them: without these no archive can file it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import ica_unet_jax
from ica_unet_jax.data.dicom import images
from ica_unet_jax.data.dicom.grid import Grid
from ica_unet_jax.data.dicom.images import Image
from ica_unet_jax.labels import STRUCTURES
from ica_unet_jax.reporting.case_report import RESEARCH
from ica_unet_jax.reporting.figures import PALETTE
from ica_unet_jax.runtime.files import replacing

_CODES = {"RV": "RightVentricle", "MYO": "LeftVentricleMyocardium", "LV": "LeftVentricle"}  # of SNOMED CT, as pydicom names them
_NAMES = {"RV": "right ventricular cavity", "MYO": "left ventricular myocardium", "LV": "left ventricular cavity"}
_MAY_LACK = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime")
_SERIES = 1000  # added to the number of the series of the images
_PRODUCT = "ica_unet_jax"


def save(folder: Path, grid: Grid, labels: np.ndarray, network: str) -> list[Path]:
    """Writes FOLDER/001.dcm and so on, and returns their paths; a time without any label has none, as the standard knows no empty object.

    Args:
      grid: of the images.
      labels: (t, s, h, w) uint8 on that grid.
      network: the name of what made the labels.
    """
    images.library(folder)
    import highdicom

    series, paths = highdicom.UID(), []
    headers = {path: _filled(images.read_dataset(path)) for path in dict.fromkeys(image.path for image in grid.stack.images)}
    for time in np.flatnonzero(labels.any(axis=(1, 2, 3))):
        sources = grid.sources(int(time))
        with warnings.catch_warnings(action="ignore"):
            made = _segmentation(headers, sources, labels[time], series, int(time), network)
        paths.append(folder / f"{time + 1:03d}.dcm")
        with replacing(paths[-1]) as temporary:
            made.save_as(temporary)
    for old in set(folder.glob("[0-9][0-9][0-9].dcm")) - set(paths):  # of an earlier call: the series would be of two
        old.unlink()
    return paths


def _segmentation(headers: dict[Path, Any], sources: Sequence[Image], labels: np.ndarray, series: str, time: int, network: str) -> Any:
    import highdicom

    first, *others = [headers[path] for path in dict.fromkeys(image.path for image in sources)]
    made = highdicom.seg.Segmentation(
        source_images=[first],  # these must be of one series, and no two at one place
        further_source_images=others,
        pixel_array=labels,
        plane_positions=[highdicom.PlanePositionSequence("PATIENT", image.position) for image in sources],
        segmentation_type="BINARY",
        segment_descriptions=_descriptions(network),
        series_instance_uid=series,
        series_number=_SERIES + sources[0].number,
        sop_instance_uid=highdicom.UID(),
        instance_number=time + 1,
        manufacturer=_PRODUCT,
        manufacturer_model_name=_PRODUCT,
        software_versions=ica_unet_jax.__version__,
        device_serial_number="none",
        content_label="HEART",
        content_description=RESEARCH,
        series_description=f"{_PRODUCT}, time by time",
    )
    _refer(made, sources)
    return made


def _refer(made: Any, sources: Sequence[Image]) -> None:
    """Names the image that each mask is of: highdicom knows it of one series alone, and not of frames at one place."""
    from highdicom.sr import CodedConcept
    from pydicom import Dataset
    from pydicom.sr.codedict import codes

    places = np.array([image.position for image in sources])
    for group in made.PerFrameFunctionalGroupsSequence:
        own = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        source = sources[int(np.argmin(np.linalg.norm(places - own, axis=1)))]
        item, derivation = Dataset(), Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.kind, source.uid
        if source.kind != images.CLASSIC:
            item.ReferencedFrameNumber = source.frame + 1
        item.SpatialLocationsPreserved = "YES"
        item.PurposeOfReferenceCodeSequence = [CodedConcept.from_code(codes.DCM.SourceImageForImageProcessingOperation)]
        derivation.SourceImageSequence = [item]
        derivation.DerivationCodeSequence = [CodedConcept.from_code(codes.DCM.Segmentation)]
        group.DerivationImageSequence = [derivation]


def _descriptions(network: str) -> list[Any]:
    import highdicom
    from pydicom.sr.codedict import codes

    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=network, family=codes.DCM.ArtificialIntelligence, version=ica_unet_jax.__version__, source=_PRODUCT
    )
    return [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=_NAMES[name],
            segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=getattr(codes.SCT, _CODES[name]),
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
            display_color=highdicom.color.CIELabColor.from_rgb(*(int(PALETTE[name][i : i + 2], 16) for i in (1, 3, 5))),
        )
        for name, number in STRUCTURES.items()
    ]


def _filled(header: Any) -> Any:
    """The header with what the standard wants and may be empty."""
    for name in _MAY_LACK:
        if name not in header:
            setattr(header, name, "")
    return header
