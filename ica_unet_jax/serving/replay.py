"""A scanner to try an MRD server on: plays a NIfTI cine as slices, and counts and keeps the masks that come back."""

from __future__ import annotations

import contextlib
import ctypes
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ismrmrd import ImageHeader, xsd
from ismrmrd.constants import IMTYPE_MAGNITUDE
from ismrmrd.meta import Meta

from ica_unet_jax.data import saving
from ica_unet_jax.data.case import Cine
from ica_unet_jax.errors import UserError
from ica_unet_jax.inference import turning
from ica_unet_jax.runs import provenance
from ica_unet_jax.runtime.files import check_place, write_json
from ica_unet_jax.serving import mrd
from ica_unet_jax.serving.wire import MEGABYTE, Ended, Gone, Wire
from ica_unet_jax.streaming.tally import percentiles

PATIENCE = 60.0  # s for an answer
LISTENING = re.compile(r"listens on (\S+):(\d+)")  # what `serve` says


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


class Client:
    """A session with an MRD server. Raises UserError where there is none."""

    def __init__(self, host: str, port: int, cine: Cine):
        try:
            self._wire = Wire(socket.create_connection((host, port), timeout=PATIENCE), PATIENCE, 1024 * MEGABYTE)
        except OSError as error:
            raise UserError(f"no server answers on {host}:{port} ({error.strerror or error}): start one with serve --workdir=RUN.") from error
        self._cine, slices = cine, cine.frames.shape[1]
        self.labels = np.zeros(cine.frames.shape, np.uint8)  # of the first repetition
        self.sent: dict[int, float] = {}  # by the number of the frame from 0: when its last slice had been sent, s
        self.masked: dict[int, float] = {}  # when the first bytes of its mask came
        self.told: list[str] = []
        self._slices, self._ended = slices, ""
        self._reader = threading.Thread(target=self._read, name="answers", daemon=True)
        self._reader.start()

    def play(self, count: int, rate: float, order: Sequence[tuple[int, int]] | None = None) -> None:
        """Sends `count` frames, `rate` a second (0: at once), and waits for the answers. Raises UserError where the server ends it.

        `order`: of (frame, slice), each once; by default as they are.
        """
        order = order or [(number, index) for number in range(count) for index in range(self._slices)]
        left = {number: self._slices for number in range(count)}
        header = header_text(self._cine)
        try:
            self._wire.send(struct.pack("<H1024s", mrd.CONFIG_FILE, b"ica_unet"), struct.pack("<HI", mrd.HEADER, len(header)), header)
            start = time.perf_counter()
            for number, index in order:
                if rate:
                    time.sleep(max(0.0, start + number / rate - time.perf_counter()))
                self._wire.send(slice_message(self._cine, number, index))
                left[number] -= 1
                if not left[number]:
                    self.sent[number] = time.perf_counter()
            self._wire.send(mrd.close_message())
        except Ended as error:
            self._ended = self._ended or str(error)
        self._reader.join()
        self._wire.close()
        if self._ended:
            raise UserError(f"the server ended the session: {self._ended}. {' '.join(self.told)}".strip())

    def _read(self) -> None:
        wire = self._wire
        try:
            while True:
                [kind] = struct.unpack("<H", wire.message(2))
                first = time.perf_counter()
                if kind == mrd.CLOSE:
                    return
                if kind == mrd.TEXT:
                    self.told.append(wire.read(wire.number("<I")).rstrip(b"\0").decode(errors="replace"))
                elif kind == mrd.IMAGE:
                    self._keep(first)
                else:
                    raise Gone(f"it sent a message of kind {kind}")
        except Ended as error:
            self._ended = str(error)
        except (ValueError, IndexError) as error:
            self._ended = f"it sent an answer to nothing that was played ({type(error).__name__})"
            self._wire.close()

    def _keep(self, first: float) -> None:
        header = ImageHeader.from_buffer_copy(self._wire.read(ctypes.sizeof(ImageHeader)))
        self._wire.skip(self._wire.number("<Q"))
        columns, rows, _ = header.matrix_size
        labels = np.frombuffer(self._wire.read(2 * columns * rows), "<u2").reshape(rows, columns)
        number = header.repetition * len(self.labels) + header.phase
        self.masked.setdefault(number, first)
        if not header.repetition:
            self.labels[header.phase, header.slice] = labels


def replay(
    source: str | Path, host: str, port: int, *, rate: float = 22.0, seconds: float = 0.0, output: str | Path = "", json_file: str | Path = ""
) -> dict[str, Any]:
    """Plays a NIfTI cine against an MRD server, and returns what came of it.

    Args:
      source: 3D or 4D NIfTI file.
      rate: frames a second; 0: as fast as the server takes them.
      seconds: for so long, from the start again when it is used up; 0: once.
      output: the masks go there, if named.
      json_file: the counts and latencies go there, if named.

    Raises:
      UserError: no readable file, no server, a place that cannot be written or is the source, or the server ended the session.
    """
    for name, file in (("output", output), ("json", json_file)):
        if file and Path(file).resolve() == Path(source).resolve():
            raise UserError(f"--{name}={file} is the file that is played: choose another place.")
        if file:
            check_place(file)
    cine = turning.read(Path(source))
    client = Client(host, port, cine)
    client.play(max(1, round(seconds * rate)) if seconds and rate else len(cine.frames), rate)
    waits = [1e3 * (client.masked[number] - client.sent[number]) for number in client.sent if number in client.masked]
    summary = {
        "frames": len(client.sent),
        "answered": len(waits),
        "without_mask": [time + 1 for time in range(len(cine.frames)) if time not in client.masked],
        "sent_to_mask_ms": percentiles(waits),
        "rate": rate,
        "seconds": seconds,
        "input": str(source),
        "shape": list(cine.frames.shape[1:]),
        "told": client.told,
        "provenance": provenance.this_process(),
    }
    if output:
        saving.save_labels(Path(output), client.labels, cine.header)
    if json_file:
        write_json(json_file, summary)
    return summary


def describe(summary: dict[str, Any]) -> str:
    """What came of it, in two lines, and what the server had to say."""
    times = "  ".join(f"{key} " + ("–" if v is None else f"{v:.1f}") for key, v in summary["sent_to_mask_ms"].items())
    lines = [f"{summary['frames']} frames sent, {summary['answered']} answered", f"last slice sent to first byte of the mask (ms) {times}"]
    if without := summary["without_mask"]:
        lines.append(f"{len(without)} frames of the file have no mask, as they were not played, refused or dropped: {', '.join(map(str, without))}")
    return "\n".join(lines + summary["told"])


@contextlib.contextmanager
def own_server(arguments: Sequence[str]) -> Iterator[int]:
    """The port of a server in a process of its own, started with these flags of `serve`, for the block. Raises UserError."""
    command = [sys.executable, "-m", "ica_unet_jax.serve", *arguments, "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            found = next((match for line in process.stdout if (match := LISTENING.search(line))), None)
            if not found:
                raise UserError("the server did not start: what it said stands above.")
            yield int(found[2])
        finally:
            process.terminate()
