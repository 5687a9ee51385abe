"""Masks as DICOM SEG: a series with one object for each time of the cine, as archives and viewers in hospitals read it.

The standard wants in it what the images tell of patient and study, name, number and birth date among that: without these no archive can
file it. Nothing of it may be in a sentence.
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
from ica_unet_jax.errors import UserError
from ica_unet_jax.labels import STRUCTURES
from ica_unet_jax.reporting.case_report import RESEARCH
from ica_unet_jax.reporting.figures import PALETTE
from ica_unet_jax.runtime.files import replacing

_CODES = {"RV": "RightVentricle", "MYO": "LeftVentricleMyocardium", "LV": "LeftVentricle"}  # of SNOMED CT, as pydicom names them
_NAMES = {"RV": "right ventricular cavity", "MYO": "left ventricular myocardium", "LV": "left ventricular cavity"}
_MAY_LACK = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime")
_SERIES = 1000  # added to the number of the series of the images
_PRODUCT = "ica_unet_jax"
_FILES = "[0-9][0-9][0-9].dcm"


def save(folder: Path, grid: Grid, labels: np.ndarray, network: str) -> list[Path]:
    """Writes FOLDER/001.dcm and so on, and returns their paths; a time without any label has none, as the standard knows no empty object.

    Args:
      grid: of the images.
      labels: (t, s, h, w) uint8 on that grid.
      network: the name of what made the labels.

    Raises UserError where the headers of the images do not allow it, or a file of somebody else has such a name.
    """
    images.silent_pydicom(folder)
    import highdicom

    wanted = {folder / f"{time + 1:03d}.dcm": int(time) for time in np.flatnonzero(labels.any(axis=(1, 2, 3)))}
    there = {path: _is_own(path) for path in sorted(folder.glob(_FILES))}
    if foreign := [path for path, own in there.items() if path in wanted and not own]:
        raise UserError(f"{foreign[0]} is there already and not written by {_PRODUCT}: remove it, or choose another --output.")
    series = highdicom.UID()
    step = float(grid.header().get_zooms()[2])
    files = {image.path: image for image in grid.stack.images}
    headers = {path: _filled(images.read_dataset(path), image, step) for path, image in files.items()}
    for path, time in wanted.items():
        sources = grid.sources(time)
        with replacing(path) as temporary:
            try:
                with warnings.catch_warnings(action="ignore"):
                    _segmentation(headers, sources, labels[time], series, time, network).save_as(temporary)
            except OSError:
                raise
            except Exception as error:  # whatever highdicom makes of a header; its words quote what stands there
                raise UserError(f"{path} cannot be written: something in the header of {sources[0].path} is not as DICOM wants it "
                                f"({type(error).__name__}); the other results are there. Correct it, or take the masks as NIfTI.") from None
    for path in there.keys() - wanted.keys():  # of an earlier call: the series would be of two
        if there[path]:
            path.unlink()
    return list(wanted)


def _is_own(path: Path) -> bool:
    """Whether a file is a DICOM SEG that was written here."""
    try:
        header = images.read_dataset(path, ("Modality", "Manufacturer"))
    except UserError:
        return False
    return (header.get("Modality"), header.get("Manufacturer")) == ("SEG", _PRODUCT)


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


def _filled(header: Any, image: Image, step: float) -> Any:
    """The header of an image's file as the standard wants it; `step` in mm is from slice to slice.

    What is missing or, as often after making anonymous, no value of its kind, is empty. Of a file with several stacks that of the image counts.
    """
    from highdicom import PatientSexValues, PixelMeasuresSequence, PlaneOrientationSequence
    from pydicom.uid import generate_uid
    from pydicom.valuerep import DA, TM

    kinds = {"DA": DA, "TM": TM}
    for tag in list(header.keys()):
        try:
            if (kind := kinds.get(header[tag].VR)) is not None:
                kind(header[tag].value)
        except Exception:  # values are parsed where they are asked for
            del header[tag]
    if header.get("PatientSex") not in {sex.value for sex in PatientSexValues}:
        header.PatientSex = ""
    for name in _MAY_LACK:
        if name not in header:
            setattr(header, name, "")
    if not header.get("FrameOfReferenceUID"):
        header.FrameOfReferenceUID = generate_uid(entropy_srcs=[image.study])
    measures = PixelMeasuresSequence(image.spacing, image.thickness or step, step)
    if image.kind == images.CLASSIC:
        header.SliceThickness = measures[0].SliceThickness
    else:
        [shared] = header.SharedFunctionalGroupsSequence
        shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = measures, PlaneOrientationSequence("PATIENT", image.orientation)
    return header
