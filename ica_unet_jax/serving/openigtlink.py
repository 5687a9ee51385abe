"""OpenIGTLink, by which 3D Slicer and navigation systems talk: IMAGE messages come in, and go back with labels in the same place.

pyigtl packs and unpacks the messages; their lengths are checked here, before.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from pyigtl.messages import ImageMessage, MessageBase

from ica_unet_jax.errors import UserError
from ica_unet_jax.serving import geometry
from ica_unet_jax.serving.session import Frame, now
from ica_unet_jax.serving.wire import Malformed, Over, Wire
from ica_unet_jax.streaming.segmenter import Result

UNKNOWN_ERROR, BUSY = 2, 6  # codes of a STATUS message
LABELS = "_labels"  # behind the name of the device whose images they are of
NAME = 20  # characters of a device's name
PLACE = 0.01  # mm; slices nearer than this are one place
MOST_SLICES = 1024
_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_UNREADABLE = (struct.error, KeyError, ValueError, TypeError, IndexError, OverflowError, NotImplementedError)


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


def to_lps(message: ImageMessage) -> np.ndarray:
    """The matrix (4, 4) from (i, j, k) to mm, LPS."""
    matrix = np.asarray(message.ijk_to_world_matrix, float)
    return _TO_LPS @ matrix if message.world_coordinate_system == "ras" else matrix


class Stack:
    """Collects slices, which come without a number, by their places: where one comes again, a frame is complete.

    After the first round it is known how many there are, and a frame is complete with its last one.

    Args:
      slices: in a frame; None where nobody says.
      limit: bytes that may wait; beyond Malformed is raised.
    """

    def __init__(self, slices: int | None, limit: int):
        self.left_out = 0
        self._told, self._count, self._limit = slices, slices, limit
        self._kind: Any = None
        self._parts: dict[int, ImageMessage] = {}

    def add(self, message: ImageMessage) -> list[list[ImageMessage]]:
        """The frames that this slice completes."""
        matrix = to_lps(message)
        normal = np.cross(matrix[:3, 0], matrix[:3, 1])
        length = np.linalg.norm(normal)
        if not np.isfinite(matrix).all() or not length:
            raise Malformed("an image came whose matrix is none")
        place = round(float(self._centre(message, matrix) @ normal / length / PLACE))
        kind = message.image.shape, tuple(np.round(matrix[:3, :2].ravel(), 3))
        found = []
        if kind != self._kind:
            self.left_out += bool(self._parts)
            self._kind, self._count, self._parts = kind, self._told, {}
        if place in self._parts:
            if self._count is None:
                self._count = len(self._parts)
                found.append(list(self._parts.values()))
            else:
                self.left_out += 1
            self._parts = {}
        self._parts[place] = message
        if len(self._parts) > MOST_SLICES or sum(part.image.nbytes for part in self._parts.values()) > self._limit:
            raise Malformed("more slices came for one frame than any has")
        if len(self._parts) == self._count:
            found.append(list(self._parts.values()))
            self._parts = {}
        return found

    def close(self) -> list[list[ImageMessage]]:
        """At the end: the first and only round, where there was no other."""
        if self._parts and self._count is None:
            return [list(self._parts.values())]
        self.left_out += bool(self._parts)
        return []

    @staticmethod
    def _centre(message: ImageMessage, matrix: np.ndarray) -> np.ndarray:
        depth, height, width = message.image.shape
        return (matrix @ [(width - 1) / 2, (height - 1) / 2, (depth - 1) / 2, 1.0])[:3]


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
        except _UNREADABLE:
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
        except _UNREADABLE:
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
        columns, rows, normal = axes[:, 0] / lengths[0], axes[:, 1] / lengths[1], normal / np.linalg.norm(normal)
    dx, dy, dz = (float(length) for length in lengths)
    lie = geometry.lie(np.array([matrix[:3, 3] for matrix in matrices]), columns.tolist(), rows.tolist(), normal.tolist(), (dz, dy, dx))
    ordered = [messages[i] for i in lie.order]
    return Frame(np.concatenate([message.image for message in ordered]), lie.spacing, lie.codes, None, arrived, ordered)


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
