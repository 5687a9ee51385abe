"""Images in DICOM files: what their headers tell, and their pixels. A file holds one image or, in the enhanced form, many.

Whether a file is DICOM its first bytes say, not its name. No name, birth date or number of a patient is read here.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ica_unet_jax.errors import UserError
from ica_unet_jax.runtime import packages

_MAGIC = b"DICM"  # behind a preamble
_PREAMBLE = 128  # bytes
_FEW, _FOLDERS = 8, 256  # files of a folder and folders that are looked into, to see whether there is DICOM
CLASSIC = "1.2.840.10008.5.1.4.1.1.4"  # MR images, one in a file
_ENHANCED = ("1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4")  # many
_DIRECTORY = "1.2.840.10008.1.3.10"  # DICOMDIR, which a CD has
_PHASE = {"P", "PHASE", "PHASE MAP", "PHASE CONTRAST M", "VELOCITY", "VELOCITY MAP"}  # of the image type: no anatomy
_TAGS = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "InstanceNumber", "ImageType", "Rows", "Columns",
    "SamplesPerPixel", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "TriggerTime",
    "TemporalPositionIdentifier", "RescaleSlope", "RescaleIntercept", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
)  # fmt: skip
_INSTALL = 'pip install "ica-unet-jax[dicom]"'


@dataclasses.dataclass(frozen=True)
class Image:
    """What is known of an image before its pixels are read.

    `kind` and `uid` are the class and the number of its file's object. `frame` counts from 0 in its file. `position`, of the first pixel, and `orientation`, along a row and along a column, are DICOM's
    (left, back, head), in mm; `spacing` is (dy, dx) and `thickness` that of the slice, in mm. `moment` is in ms after the R wave, None
    where nothing says; `order` is where the scanner counts it.
    """

    path: Path
    frame: int
    kind: str
    uid: str
    study: str
    series: str
    number: int
    instance: int
    order: int
    shape: tuple[int, int]
    spacing: tuple[float, float]
    thickness: float
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    moment: float | None
    scale: tuple[float, float]

    @property
    def normal(self) -> np.ndarray:
        """(3,): at right angles to the image."""
        return np.cross(self.orientation[:3], self.orientation[3:])

    @property
    def told(self) -> str:
        """Which image it is, in words."""
        return f"series {self.number}, image {self.instance}" + (f", frame {self.frame + 1}" if self.frame else "")


def silent_pydicom(path: Path) -> Any:
    """pydicom, and highdicom too, silent: their warnings and logs quote what stands in a header, and show tracebacks of what is told in a sentence.

    Raises UserError, about the DICOM at `path`, where it is not installed.
    """
    packages.require(f"{path} is or holds DICOM, which", "dicom", ("pydicom", "highdicom"), "convert it to NIfTI")
    import pydicom

    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    for name in ("pydicom", "highdicom"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return pydicom


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM does."""
    try:
        with path.open("rb") as file:
            return file.read(_PREAMBLE + len(_MAGIC))[_PREAMBLE:] == _MAGIC
    except OSError:
        return False


def holds_dicom(root: Path) -> bool:
    """Whether a file is DICOM, or a folder holds some among the first files of its first folders; a large one is not read to the end."""
    if root.is_file():
        return is_dicom(root)
    for number, (folder, _, names) in enumerate(os.walk(root, followlinks=True)):  # what a link leads to is named, not read
        if any(is_dicom(Path(folder, name)) for name in sorted(names)[:_FEW]):
            return True
        if number == _FOLDERS:
            break
    return False


def files_below(root: Path) -> Iterator[Path]:
    """The file itself, or all files of a folder and of those in it, in the order of their names, and links to folders, which are not entered.

    Raises UserError where one cannot be listed.
    """
    if root.is_file():
        yield root
        return

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be listed ({error.strerror}); make it readable.") from error

    for folder, below, names in os.walk(root, onerror=refuse):
        below.sort()
        yield from (Path(folder, name) for name in sorted(names))
        yield from (path for name in below if (path := Path(folder, name)).is_symlink())


def read_headers(path: Path) -> list[Image]:
    """The MR images of a file, of which no pixel is read; none where it is something else.

    Raises UserError where it cannot be read.
    """
    data = read_dataset(path, _TAGS)
    try:
        kind = str(data.get("SOPClassUID", ""))
        if kind not in (CLASSIC, *_ENHANCED, "") or data.file_meta.get("MediaStorageSOPClassUID") == _DIRECTORY:
            return []
        if not kind or not data.get("Rows") or not data.get("SOPInstanceUID"):
            raise UserError(f"{path} is cut off: its header ends before the size of the image; copy it from the archive again.")
        return _classic(path, data) if kind == CLASSIC else _enhanced(path, data)
    except UserError:
        raise
    except (AttributeError, IndexError, TypeError):  # without a place in the patient: no slice of a stack
        return []
    except Exception as error:  # values are parsed where they are asked for
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(f"{path} cannot be read as DICOM ({type(error).__name__}); copy it from the archive again.")


def read_dataset(path: Path, tags: Sequence[str] | None = None) -> Any:
    """The dataset of a file, or some `tags` of it, without its pixels. Raises UserError where it cannot be read."""
    pydicom = silent_pydicom(path)
    try:
        with warnings.catch_warnings(action="ignore"):
            return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=None if tags is None else list(tags))
    except Exception as error:  # whatever a parser makes of damaged bytes
        raise _unreadable(path, error) from error


def read_pixels(images: Sequence[Image]) -> list[np.ndarray]:
    """Each image as float32 (h, w), scaled as its header says; a file is opened once.

    Raises UserError where one is cut off, or packed in a way that nothing here unpacks.
    """
    found: dict[tuple[Path, int], np.ndarray] = {}
    for path, own in itertools.groupby(sorted(images, key=lambda image: image.path), key=lambda image: image.path):
        array = _array(path)
        for image in own:
            plane = np.asarray(array if array.ndim == 2 else array[image.frame], np.float32)
            with np.errstate(all="ignore"):  # scaling beyond all bounds gives infinity, which is reported
                slope, intercept = np.float32(image.scale)
                found[path, image.frame] = plane * slope + intercept
    return [found[image.path, image.frame] for image in images]


def _array(path: Path) -> np.ndarray:
    """The stored numbers of a file, (h, w) or (frames, h, w)."""
    pydicom = silent_pydicom(path)
    try:
        with warnings.catch_warnings(action="ignore"):
            data = pydicom.dcmread(path)
            syntax = data.file_meta.TransferSyntaxUID
            if syntax.is_compressed and not pydicom.pixels.get_decoder(syntax).is_available:
                raise UserError(f"{path} is compressed ({syntax.name}), and nothing here unpacks that: {_INSTALL} brings what does, or export it "
                                "uncompressed.")
            return data.pixel_array
    except UserError:
        raise
    except Exception as error:  # whatever a decoder makes of damaged bytes
        raise UserError(f"{path} is damaged: its pixels are cut off or cannot be unpacked ({type(error).__name__}); copy it from the archive "
                        "again.") from error


def _classic(path: Path, data: Any) -> list[Image]:
    if not _shows_anatomy(data):
        return []
    instance = int(data.get("InstanceNumber") or 0)
    return [_image(path, 0, data, instance, int(data.get("TemporalPositionIdentifier") or instance), data.ImagePositionPatient,
                   data.ImageOrientationPatient, data, data.get("TriggerTime"), (data.get("RescaleSlope") or 1, data.get("RescaleIntercept") or 0))]  # fmt: skip


def _enhanced(path: Path, data: Any) -> list[Image]:
    """What all frames have in common stands in shared groups, the rest in those of each frame."""
    if not _shows_anatomy(data):
        return []
    [shared] = data.SharedFunctionalGroupsSequence
    found = []
    for number, own in enumerate(data.PerFrameFunctionalGroupsSequence):

        def group(name: str, own: Any = own) -> Any:
            chosen = own.get(name) or shared.get(name)
            return chosen[0] if chosen else {}

        content, scale, measures = group("FrameContentSequence"), group("PixelValueTransformationSequence"), group("PixelMeasuresSequence")
        found.append(_image(path, number, data, int(data.get("InstanceNumber") or 0), int(content.get("TemporalPositionIndex") or number),
                            group("PlanePositionSequence").ImagePositionPatient, group("PlaneOrientationSequence").ImageOrientationPatient,
                            measures, group("CardiacSynchronizationSequence").get("NominalCardiacTriggerDelayTime"),
                            (scale.get("RescaleSlope", 1), scale.get("RescaleIntercept", 0))))  # fmt: skip
    return found


def _shows_anatomy(data: Any) -> bool:
    return int(data.get("SamplesPerPixel") or 1) == 1 and not _PHASE & set(data.get("ImageType") or ())


def _image(path: Path, frame: int, data: Any, instance: int, order: int, position: Any, orientation: Any, measures: Any, moment: Any,
           scale: tuple[Any, Any]) -> Image:  # fmt: skip
    """Raises TypeError for an image whose place in the patient is none."""
    numbers = [tuple(float(x) for x in values) for values in (measures.PixelSpacing, position, orientation)]
    if [len(values) for values in numbers] != [2, 3, 6] or not np.isfinite(sum(numbers, ())).all() or min(numbers[0]) <= 0:
        raise TypeError("no place in the patient")
    spacing, place, directions = numbers
    return Image(
        path=path,
        frame=frame,
        kind=str(data.SOPClassUID),
        uid=str(data.SOPInstanceUID),
        study=str(data.StudyInstanceUID),
        series=str(data.SeriesInstanceUID),
        number=int(data.get("SeriesNumber") or 0),
        instance=instance,
        order=order,
        shape=(int(data.Rows), int(data.Columns)),
        spacing=spacing,
        thickness=float(measures.get("SliceThickness") or 0),
        position=place,
        orientation=directions,
        moment=None if moment in (None, "") else float(moment),
        scale=(float(scale[0]), float(scale[1])),
    )
