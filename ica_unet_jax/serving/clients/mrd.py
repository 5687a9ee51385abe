"""A scanner: plays a cine to an MRD server, slice after slice."""

from __future__ import annotations

import ctypes
import struct
import time

import numpy as np
from ismrmrd import ImageHeader, xsd
from ismrmrd.constants import IMTYPE_MAGNITUDE
from ismrmrd.meta import Meta

from ica_unet_jax.data.case import Cine
from ica_unet_jax.serving import mrd
from ica_unet_jax.serving.clients.client import WireClient
from ica_unet_jax.serving.wire import Gone


class Mrd(WireClient):
    """See `WireClient`; a part is a slice."""

    @property
    def parts(self) -> int:
        return self.cine.frames.shape[1]

    def begin(self) -> bytes:
        header = header_text(self.cine)
        return struct.pack("<H1024s", mrd.CONFIG_FILE, b"ica_unet") + struct.pack("<HI", mrd.HEADER, len(header)) + header

    def message(self, number: int, index: int) -> bytes:
        return slice_message(self.cine, number, index)

    def end(self) -> None:
        self.wire.send(mrd.close_message())

    def answer(self) -> bool:
        wire = self.wire
        [kind] = struct.unpack("<H", wire.message(2))
        first = time.perf_counter()
        if kind == mrd.TEXT:
            self.told.append(wire.read(wire.number("<I")).rstrip(b"\0").decode(errors="replace"))
        elif kind == mrd.IMAGE:
            header = ImageHeader.from_buffer_copy(wire.read(ctypes.sizeof(ImageHeader)))
            wire.skip(wire.number("<Q"))
            columns, rows, _ = header.matrix_size
            labels = np.frombuffer(wire.read(2 * columns * rows), "<u2").reshape(rows, columns)
            self.keep(header.repetition, header.phase, labels, first, header.slice)
        elif kind != mrd.CLOSE:
            raise Gone(f"it sent a message of kind {kind}")
        return kind != mrd.CLOSE


def directions(cine: Cine) -> tuple[np.ndarray, np.ndarray]:
    """The directions of x, y and the slices in LPS, a column each, and the centre of the first voxel in mm, by the affine."""
    to_lps = np.diag([-1.0, -1.0, 1.0])
    axes, origin = to_lps @ cine.affine[:3, :3], to_lps @ cine.affine[:3, 3]
    lengths = np.linalg.norm(axes, axis=0)
    if not np.isfinite(cine.affine).all() or not lengths.all():
        return np.eye(3), np.zeros(3)
    return axes / lengths, origin


def header_text(cine: Cine) -> bytes:
    """The measurement's header, which says how many slices and phases there are."""
    frames, slices, rows, columns = cine.frames.shape
    dz, dy, dx = cine.spacing
    space = xsd.encodingSpaceType(
        matrixSize=xsd.matrixSizeType(x=columns, y=rows, z=1),
        fieldOfView_mm=xsd.fieldOfViewMm(x=columns * dx, y=rows * dy, z=dz),
    )

    def up_to(count: int) -> xsd.limitType:
        return xsd.limitType(minimum=0, maximum=count - 1, center=count // 2)

    limits = xsd.encodingLimitsType(slice=up_to(slices), phase=up_to(frames))
    encoding = xsd.encodingType(encodedSpace=space, reconSpace=space, encodingLimits=limits, trajectory=xsd.trajectoryType.CARTESIAN)
    conditions = xsd.experimentalConditionsType(H1resonanceFrequency_Hz=63_870_000)
    return xsd.ToXML(xsd.ismrmrdHeader(experimentalConditions=conditions, encoding=[encoding])).encode()


def slice_message(cine: Cine, number: int, index: int) -> bytes:
    """Slice `index` of frame `number`, from 0; after the last frame the first one follows, of the next repetition."""
    frames, _, rows, columns = cine.frames.shape
    dz, dy, dx = cine.spacing
    axes, origin = directions(cine)
    header = ImageHeader(version=1, data_type=5, channels=1, image_type=IMTYPE_MAGNITUDE, image_series_index=1, slice=index)
    header.repetition, header.phase = divmod(number, frames)
    header.image_index = (number * cine.frames.shape[1] + index) % 2**16
    header.matrix_size, header.field_of_view = (columns, rows, 1), (columns * dx, rows * dy, dz)
    centre = origin + axes @ np.array([(columns - 1) / 2 * dx, (rows - 1) / 2 * dy, index * dz])
    header.position, header.read_dir, header.phase_dir, header.slice_dir = map(tuple, (centre, *axes.T))
    return mrd.image_message(header, Meta(), cine.frames[number % frames, index].astype("<f4"))
