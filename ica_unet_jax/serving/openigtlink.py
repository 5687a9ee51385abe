"""OpenIGTLink, by which 3D Slicer and navigation systems talk: IMAGE messages come in, and go back with labels in the same place.

pyigtl packs and unpacks the messages; their lengths are checked here, before.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
from pyigtl.messages import ImageMessage, MessageBase

from ica_unet_jax.errors import UserError
from ica_unet_jax.serving import geometry
from ica_unet_jax.serving.session import Frame, now
from ica_unet_jax.serving.stacking import Stack, to_lps
from ica_unet_jax.serving.wire import Malformed, Over, Wire
from ica_unet_jax.streaming.segmenter import Result

UNKNOWN_ERROR, BUSY = 2, 6  # codes of a STATUS message
LABELS = "_labels"  # behind the name of the device whose images they are of
NAME = 20  # characters of a device's name
UNREADABLE = (struct.error, KeyError, ValueError, TypeError, IndexError, OverflowError, NotImplementedError)


class Status(MessageBase):
    """A STATUS message, which pyigtl lacks: a code, and a text for people."""

    def __init__(self, code: int, text: str):
        super().__init__(device_name="ica_unet")
        self._message_type, self._code, self._text = "STATUS", code, text

    def _pack_content(self) -> bytes:
        return struct.pack(">Hq20s", self._code, 0, b"ica_unet") + self._text.encode() + b"\0"


def refusal(text: str) -> bytes:
    """What a client gets that cannot be served."""
    return Status(BUSY, text).pack()


class Talk:
    """The server's side of a session; see `session.Talk`. `slices`: in a frame, where images are single slices."""

    def __init__(self, wire: Wire, slices: int | None = None):
        self._wire, self._stack = wire, Stack(slices, wire.limit)

    @property
    def left_out(self) -> int:
        return self._stack.left_out

    def frames(self) -> Iterator[Frame]:
        while True:
            try:
                header = self._wire.message(MessageBase.IGTL_HEADER_SIZE)
            except Over:
                break
            message = self._image(header)
            if message is None:
                continue
            if len(message.image) > 1:
                yield from self._frames([[message]])
            else:
                yield from self._frames(self._stack.add(message))
        yield from self._frames(self._stack.close())

    def _image(self, header: bytes) -> ImageMessage | None:
        """None for what is no image of one value a voxel."""
        try:
            fields = MessageBase.parse_header(header)
        except UNREADABLE:
            raise Malformed("the header of a message cannot be read") from None
        if not 1 <= fields["header_version"] <= 3:
            raise Malformed(f"a message of the unknown version {fields['header_version']} came")
        if fields["message_type"] != "IMAGE":
            self._wire.skip(fields["body_size"])
            return None
        body, message = self._wire.read(fields["body_size"]), ImageMessage()
        try:
            with np.errstate(all="ignore"):
                message.unpack(fields, body)
        except UNREADABLE:
            raise Malformed("an image cannot be read") from None
        if not message.image.size:
            raise Malformed("an image without pixels came")
        return message if message.image.ndim == 3 else None

    def _frames(self, complete: list[list[ImageMessage]]) -> Iterator[Frame]:
        arrived = now()
        for messages in complete:
            try:
                yield _frame(messages, arrived)
            except UserError as error:
                self.refuse(str(error))

    def answer(self, frame: Frame, result: Result) -> None:
        first, parts = 0, []
        for message in frame.origin:
            depth = len(message.image)
            parts.append(_labels(message, result.labels[first : first + depth], result.volumes_ml))
            first += depth
        self._wire.send(*parts)

    def refuse(self, text: str) -> None:
        self._wire.send(Status(UNKNOWN_ERROR, text).pack())

    def end(self) -> None:
        """The client has closed it already: OpenIGTLink knows no other end."""


def _frame(messages: list[ImageMessage], arrived: float) -> Frame:
    """A frame of a volume, or of slices in whatever order. Raises UserError where the voxels have no size."""
    matrices = [to_lps(message) for message in messages]
    axes, one = matrices[0][:3, :3], len(messages) == 1
    lengths = np.linalg.norm(axes, axis=0)
    with np.errstate(all="ignore"):
        normal = axes[:, 2] if one else np.cross(axes[:, 0], axes[:, 1])
        directions = [axes[:, 0] / lengths[0], axes[:, 1] / lengths[1], normal / np.linalg.norm(normal)]
    dx, dy, dz = (float(length) for length in lengths)
    lie = geometry.lie(np.array([matrix[:3, 3] for matrix in matrices]), *(along.tolist() for along in directions), (dz, dy, dx))
    ordered = [messages[i] for i in lie.order]
    pixels = np.concatenate([message.image for message in ordered])
    cine = messages[0].device_name if one else None  # slices of a frame may have a name each
    return Frame(pixels, lie.spacing, lie.codes, cine, arrived, ordered)


def _labels(source: ImageMessage, labels: np.ndarray, volumes: dict[str, float]) -> bytes:
    """The message with labels (d, h, w) where an image lies."""
    message = ImageMessage(
        np.ascontiguousarray(labels, np.uint8),
        ijk_to_world_matrix=source.ijk_to_world_matrix,
        world_coordinate_system=source.world_coordinate_system,
        timestamp=source.timestamp,
        device_name=source.device_name[: NAME - len(LABELS)] + LABELS,
    )
    message.header_version = min(source.header_version, 2)  # what the client understands
    if message.header_version > 1:
        message.metadata = {f"Volume{name}_ml": f"{volume:.2f}" for name, volume in volumes.items()}
    return message.pack()
