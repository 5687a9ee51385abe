"""Studies as scanners write them: a short-axis cine as DICOM files, with identifiers of a patient who does not exist."""

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

APEX = np.array([0.66, -0.57, -0.49]) / np.linalg.norm([0.66, -0.57, -0.49])  # where a left ventricle points, as DICOM counts
SHORT_AXIS = ((0.6536, 0.7568, 0.0), tuple(np.cross(-APEX, (0.6536, 0.7568, 0.0))))  # rows run along the first, columns along the second
AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
SECRETS = ("Zyxwv", "Quorra", "19410523", "PID-77031", "ACC-5512", "Hospital-Of-Nowhere")  # no output may hold them
TIMES = np.array([0.0, 40, 80, 120])


def dataset(study: str, series: str, number: int, instance: int, kind=MRImageStorage) -> Dataset:
    """A dataset with what all images of a scanner have."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = kind
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid(entropy_srcs=[series, str(number), str(instance)])
    data.SpecificCharacterSet = "ISO_IR 100"
    data.PatientName, data.PatientBirthDate, data.PatientID, data.AccessionNumber = f"{SECRETS[0]}^{SECRETS[1]}", *SECRETS[2:5]
    data.InstitutionName, data.PatientSex = SECRETS[5], "F"
    data.StudyDate, data.StudyTime, data.StudyID, data.ReferringPhysicianName = "20200101", "120000", "1", "Dr^Nobody"
    data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = study, series, generate_uid(entropy_srcs=[study])
    data.SeriesNumber, data.InstanceNumber, data.Modality, data.Manufacturer = number, instance, "MR", "Test"
    data.ImageType, data.SeriesDescription, data.PatientPosition = ["ORIGINAL", "PRIMARY", "M"], "cine", "HFS"
    data.ScanningSequence, data.SequenceVariant, data.ScanOptions, data.MRAcquisitionType = "GR", "SK", "CG", "2D"
    data.EchoTime, data.EchoTrainLength, data.PositionReferenceIndicator = 1.2, 1, ""
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    return data


def write_image(path: Path, pixels: np.ndarray, position, orientation, *, study="1.2.3", series="1.2.3.4", number=5, instance=1, time=None,
                spacing=(1.5, 1.5), thickness=8.0, slope=None, **tags) -> pydicom.Dataset:
    """One image (h, w) as a file of its own; `tags` are set last."""
    data = dataset(study, series, number, instance)
    data.Rows, data.Columns = pixels.shape
    data.ImagePositionPatient = [f"{x:.6f}" for x in position]
    data.ImageOrientationPatient = [f"{x:.8f}" for direction in orientation for x in direction]
    data.PixelSpacing, data.SliceThickness, data.RepetitionTime = list(spacing), thickness, 40
    if time is not None:
        data.TriggerTime, data.NominalInterval = f"{time:g}", 800
    if slope is not None:
        data.RescaleSlope, data.RescaleIntercept, data.RescaleType = *slope, "US"
    data.PixelData = pixels.astype(np.int16).tobytes()
    for name, value in tags.items():
        setattr(data, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return data


def positions(count: int, step: float = 10.0) -> list[np.ndarray]:
    """Of the first pixel of slices from the base to the apex."""
    return [np.array([-100.0, -120, 60]) + step * i * APEX for i in range(count)]


def write_cine(folder: Path, frames: np.ndarray, *, study="1.2.3", number=5, one_series_a_slice=False, times=TIMES, step=10.0,
               orientation=SHORT_AXIS, skip=(), first=0, start=0.0, **more) -> None:
    """A cine (t, s, h, w), a file for each image, in the order that a scanner has: slice by slice. `skip` holds (t, s) that are not written.

    `times` are those of all slices, in ms, or a list of them for each slice; `start` is where the first slice lies, in mm towards the apex.
    """
    for s, position in enumerate(start * APEX + place for place in positions(frames.shape[1], step)):
        chosen = number + s if one_series_a_slice else number
        own = times[s] if isinstance(times, list) else times[: len(frames)]
        for t, time in enumerate(own):
            if (t, s) not in skip:
                instance = 1 + t + (0 if one_series_a_slice else s * len(own))
                write_image(folder / f"IM{chosen:03d}_{first + instance:05d}", frames[t, s], position, orientation, study=study,
                            series=f"{study}.{chosen}", number=chosen, instance=first + instance, time=time, **more)


def write_enhanced(path: Path, frames: np.ndarray, *, study="1.2.3", number=5, times=TIMES, step=10.0, first_slice=0, orientation=SHORT_AXIS,
                   beside=None) -> None:  # fmt: skip
    """A cine (t, s, h, w) as one multi-frame file, slices before times; `beside` is an axial one in the same file."""
    stacks = [(orientation, frames)] + ([] if beside is None else [(AXIAL, beside)])
    data = dataset(study, f"{study}.{number}", number, 1, EnhancedMRImageStorage)
    data.Rows, data.Columns = frames.shape[2:]
    data.NumberOfFrames = sum(part.shape[0] * part.shape[1] for _, part in stacks)

    def item(**tags):
        made = Dataset()
        for name, value in tags.items():
            setattr(made, name, value)
        return made

    shared = item(
        PixelMeasuresSequence=Sequence([item(PixelSpacing=[1.5, 1.5], SliceThickness=8.0)]),
        PixelValueTransformationSequence=Sequence([item(RescaleSlope=2, RescaleIntercept=-3, RescaleType="US")]),
    )
    data.SharedFunctionalGroupsSequence = Sequence([shared])
    data.PerFrameFunctionalGroupsSequence = Sequence(
        item(
            PlanePositionSequence=Sequence([item(ImagePositionPatient=[f"{x:.6f}" for x in position])]),
            PlaneOrientationSequence=Sequence([item(ImageOrientationPatient=[f"{x:.8f}" for direction in directions for x in direction])]),
            CardiacSynchronizationSequence=Sequence([item(NominalCardiacTriggerDelayTime=float(times[t]))]),
            FrameContentSequence=Sequence([item(TemporalPositionIndex=t + 1, InStackPositionNumber=s + 1, StackID="1")]),
        )
        for directions, part in stacks
        for t in range(len(part))
        for s, position in enumerate(positions(first_slice + part.shape[1], step)[first_slice:])
    )
    data.PixelData = b"".join(part.astype(np.int16).tobytes() for _, part in stacks)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
