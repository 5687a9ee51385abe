"""A screen: plays a cine to an OpenIGTLink server, a volume a frame, as 3D Slicer sends it."""

from __future__ import annotations

import struct
import time

import numpy as np
from pyigtl.messages import ImageMessage, MessageBase

from ica_unet_jax.serving.clients.client import WireClient
from ica_unet_jax.serving.openigtlink import UNREADABLE
from ica_unet_jax.serving.wire import Gone, Malformed, Over

CODES = struct.Struct(">Hq20s")  # before a STATUS message's text


class OpenIGTLink(WireClient):
    """See `WireClient`. A frame's number is the second of its time stamp, which comes back with the labels."""

    def message(self, number: int, index: int) -> bytes:
        pixels = self.cine.frames[number % len(self.labels)].astype(np.float32)
        return ImageMessage(pixels, self.cine.affine, "ras", timestamp=float(number), device_name="cine").pack()

    def end(self) -> None:
        self.wire.finish()

    def answer(self) -> bool:
        try:
            header = self.wire.message(MessageBase.IGTL_HEADER_SIZE)
        except Over:
            return False
        first = time.perf_counter()
        try:
            fields = MessageBase.parse_header(header)
            body, message = self.wire.read(fields["body_size"]), ImageMessage()
            if fields["message_type"] == "IMAGE":
                message.unpack(fields, body)
        except UNREADABLE as error:
            raise Malformed(f"it sent what is no message of OpenIGTLink ({type(error).__name__})") from None
        if fields["message_type"] == "STATUS":
            self.told.append(body[CODES.size :].rstrip(b"\0").decode(errors="replace"))
        elif fields["message_type"] == "IMAGE":
            self.keep(*divmod(round(message.timestamp), len(self.labels)), message.image, first)
        else:
            raise Gone(f"it sent a message of kind {fields['message_type']}")
        return True
