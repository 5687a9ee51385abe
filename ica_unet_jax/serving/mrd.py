"""The MRD protocol, by which scanners and OpenRecon containers talk (FIRE): slices come in, label images go back.

A message is its number (uint16) and what that number says; all numbers are little-endian. See the streaming protocol of ISMRMRD.
"""

from __future__ import annotations

import ctypes
import re
import struct
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from ismrmrd import AcquisitionHeader, ImageHeader, WaveformHeader
from ismrmrd.constants import IMTYPE_IMAG, IMTYPE_MAGNITUDE, IMTYPE_PHASE, IMTYPE_RGB
from ismrmrd.meta import Meta

from ica_unet_jax.errors import UserError
from ica_unet_jax.labels import STRUCTURES
from ica_unet_jax.serving import geometry
from ica_unet_jax.serving.assembling import Assembler, Slice
from ica_unet_jax.serving.session import Frame, now
from ica_unet_jax.serving.wire import Malformed, Wire
from ica_unet_jax.streaming.segmenter import Result

CONFIG_FILE, CONFIG_TEXT, HEADER, CLOSE, TEXT, ACQUISITION, IMAGE, WAVEFORM, NDARRAY = 1, 2, 3, 4, 5, 1008, 1022, 1026, 1030
CONFIG_FILE_BYTES = 1024
LONGEST_TEXT = 4 * 2**20  # bytes of a header or of an image's attributes
LABEL_SERIES = 100  # more than the number of the images' series
LUT = "MicroDeltaHotMetal.pal"  # a palette of the scanner's own
TYPES = {code: np.dtype(name) for code, name in enumerate(("<u2", "<i2", "<u4", "<i4", "<f4", "<f8", "<c8", "<c16"), start=1)}
PARALLEL = 0.01  # by which parts of unit vectors may differ
PASSED_BY = (IMTYPE_PHASE, IMTYPE_IMAG, IMTYPE_RGB)


class Image(NamedTuple):
    """What comes with the pixels of an image."""

    header: ImageHeader
    meta: Meta


def text_message(text: str) -> bytes:
    """TEXT: of which the other side is free to make what it wants."""
    data = text.encode() + b"\0"
    return struct.pack("<HI", TEXT, len(data)) + data


def close_message() -> bytes:
    return struct.pack("<H", CLOSE)


def refusal(text: str) -> bytes:
    """What a client gets that cannot be served."""
    return text_message(f"ERROR {text}") + close_message()


def image_message(header: ImageHeader, meta: Meta, pixels: np.ndarray) -> bytes:
    """IMAGE, with the pixels as bytes in the order (z, y, x)."""
    attributes = meta.serialize().encode()
    header.attribute_string_len = len(attributes)
    return b"".join([struct.pack("<H", IMAGE), bytes(header), struct.pack("<Q", len(attributes)), attributes, pixels.tobytes()])


def parse(data: bytes) -> ElementTree.Element:
    """XML without entities, with which a few bytes can stand for gigabytes. Raises Malformed."""
    if b"\0" in data or b"<!" in data.replace(b"<!--", b""):
        raise Malformed("XML with a document type, or not in UTF-8, came, which no header needs")
    try:
        return ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError):
        raise Malformed("what should be XML is none") from None


def slices_by(header: bytes) -> int | None:
    """Slices of a frame, by a measurement's header; None where it does not say. Some clients send a text that is no header."""
    header = header.strip(b"\0 \r\n\t")
    if not header.startswith(b"<"):
        return None
    limit = parse(header).find("{*}encoding/{*}encodingLimits/{*}slice/{*}maximum")
    if limit is None:
        return None
    if not re.fullmatch(r"\s*[0-9]{1,4}\s*", limit.text or "") or int(limit.text) > 1023:
        raise Malformed("the header's number of slices is none")
    return int(limit.text) + 1


class Talk:
    """The server's side of a session; see `session.Talk`.

    Args:
      wire: the connection.
      slices: in a frame; None: as the header says.
      reorder: see `Assembler`.
    """

    def __init__(self, wire: Wire, slices: int | None = None, reorder: int = 2):
        self._wire, self._told = wire, slices
        self._assembler = Assembler(slices, reorder, wire.limit)

    @property
    def left_out(self) -> int:
        return self._assembler.left_out

    def frames(self) -> Iterator[Frame]:
        while True:
            [kind] = struct.unpack("<H", self._wire.message(2))
            if kind == CLOSE:
                break
            if kind == IMAGE:
                if part := self._image():
                    if len(part.pixels) > 1:
                        self._assembler.count = self._assembler.count or 1
                    yield from self._frames(self._assembler.add(part))
            elif kind == HEADER:
                slices = slices_by(self._text(LONGEST_TEXT))
                self._assembler.count = self._told or slices
            else:
                self._pass_by(kind)
        yield from self._frames(self._assembler.close())

    def _text(self, longest: int) -> bytes:
        size = self._wire.number("<I")
        if size > longest:
            raise Malformed(f"a text promises {size} bytes, more than any has")
        return self._wire.read(size)

    def _pass_by(self, kind: int) -> None:
        """What is not for us. Of an unknown message nobody can tell where it ends."""
        wire = self._wire
        if kind == CONFIG_FILE:
            wire.skip(CONFIG_FILE_BYTES)
        elif kind in (CONFIG_TEXT, TEXT):
            wire.skip(wire.number("<I"))
        elif kind == ACQUISITION:
            head = AcquisitionHeader.from_buffer_copy(wire.read(ctypes.sizeof(AcquisitionHeader)))
            wire.skip(head.number_of_samples * (4 * head.trajectory_dimensions + 8 * head.active_channels))
        elif kind == WAVEFORM:
            head = WaveformHeader.from_buffer_copy(wire.read(ctypes.sizeof(WaveformHeader)))
            wire.skip(4 * head.channels * head.number_of_samples)
        elif kind == NDARRAY:
            code, _, dimensions = struct.unpack("<3H", wire.read(6))
            if code not in TYPES or dimensions > 16:
                raise Malformed("an array of unknown type, or of too many dimensions, came")
            size = TYPES[code].itemsize
            for _ in range(dimensions):
                size *= wire.number("<Q")
            wire.skip(size)
        else:
            raise Malformed(f"a message of the unknown kind {kind} came")

    def _image(self) -> Slice | None:
        """None for what shows no magnitude, as phase images."""
        header = ImageHeader.from_buffer_copy(self._wire.read(ctypes.sizeof(ImageHeader)))
        size = self._wire.number("<Q")
        if size > LONGEST_TEXT:
            raise Malformed(f"the attributes of an image promise {size} bytes, more than any have")
        attributes = self._wire.read(size).strip(b"\0 \r\n\t")
        columns, rows, slices = header.matrix_size
        if header.data_type not in TYPES or not columns * rows * slices * header.channels:
            raise Malformed("an image of unknown type, or without pixels, came")
        kind = TYPES[header.data_type]
        data = self._wire.read(columns * rows * slices * header.channels * kind.itemsize)
        if header.image_type in PASSED_BY or header.channels > 1:
            return None
        pixels = np.frombuffer(data, kind).reshape(slices, rows, columns)
        pixels = np.abs(pixels) if kind.kind == "c" else pixels
        cine = (header.image_series_index, header.average, header.contrast, header.set)
        time, index = (header.repetition, header.phase), header.slice if slices == 1 else 0
        return Slice(cine, time, index, pixels, Image(header, _meta(attributes)))

    def _frames(self, complete: list[list[Slice]]) -> Iterator[Frame]:
        arrived = now()
        for parts in complete:
            try:
                yield _frame(parts, arrived)
            except UserError as error:
                self.refuse(str(error))

    def answer(self, frame: Frame, result: Result) -> None:
        first, parts = 0, []
        for image in frame.origin:
            depth = image.header.matrix_size[2]
            parts.append(_labels(image, result.labels[first : first + depth], result.volumes_ml))
            first += depth
        self._wire.send(*parts)

    def refuse(self, text: str) -> None:
        self._wire.send(text_message(f"WARNING {text}"))

    def end(self) -> None:
        self._wire.send(close_message())


def _meta(attributes: bytes) -> Meta:
    """An image's attributes. Raises Malformed."""
    if not attributes:
        return Meta()
    parse(attributes)
    try:
        return Meta.deserialize(attributes.decode())
    except (AssertionError, AttributeError, TypeError, ValueError):
        raise Malformed("the attributes of an image are none") from None


def _directions(image: Image) -> np.ndarray:
    """Along x, along y and from slice to slice, a row each, of the image as it lies there, which may not be as it was measured."""
    header = image.header
    try:
        in_plane = np.array([[float(value) for value in image.meta[name]] for name in ("ImageRowDir", "ImageColumnDir")]).reshape(2, 3)
    except (KeyError, ValueError, TypeError):
        in_plane = np.array([header.read_dir, header.phase_dir], float)
    return np.vstack([in_plane, header.slice_dir])


def _frame(parts: list[Slice], arrived: float) -> Frame:
    """A frame of its slices, in the order in which they lie. Raises UserError where they do not fit together."""
    images: list[Image] = [part.origin for part in parts]
    head = images[0].header
    if len({(*image.header.matrix_size, *np.round(image.header.field_of_view, 2)) for image in images}) > 1:
        raise UserError("The slices of a frame differ in size: the frame is left out.")
    directions = np.nan_to_num([_directions(image) for image in images])
    with np.errstate(over="ignore"):
        if np.ptp(directions, axis=0).max() > PARALLEL:
            raise UserError("The slices of a frame are not parallel: the frame is left out.")
    size = [head.field_of_view[axis] / head.matrix_size[axis] for axis in (2, 1, 0)]
    lie = geometry.lie(np.array([image.header.position for image in images]), *directions[0].tolist(), tuple(size))
    pixels = np.concatenate([parts[i].pixels for i in lie.order])
    return Frame(pixels, lie.spacing, lie.codes, parts[0].cine, arrived, [images[i] for i in lie.order])


def _labels(image: Image, labels: np.ndarray, volumes: dict[str, float]) -> bytes:
    """The message with labels (d, h, w) in the geometry of an image, whose attributes it keeps."""
    header = ImageHeader.from_buffer_copy(image.header)
    header.data_type, header.channels, header.image_type = 1, 1, IMTYPE_MAGNITUDE
    header.image_series_index = (header.image_series_index + LABEL_SERIES) % 2**16
    meta = Meta(image.meta)
    meta |= {
        "DataRole": ["Image", "Quantitative", "Segmentation"],  # so that the scanner leaves the values as they are
        "ImageProcessingHistory": ["ICA-UNet"],
        "ImageComments": [f"{STRUCTURES[name]} {name}: {volume:.1f} mL" for name, volume in volumes.items()],
        "SeriesDescriptionAdditional": "ICA_UNet_labels",
        "Keep_image_geometry": 1,
        "LUTFileName": LUT,
        "WindowCenter": 2,
        "WindowWidth": 4,
        **{f"Volume{name}_ml": f"{volume:.2f}" for name, volume in volumes.items()},
    }
    return image_message(header, meta, labels.astype("<u2"))
