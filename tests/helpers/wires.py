"""Servers on this machine with a segmenter that takes no time, cines for them, and MRD messages made by ismrmrd itself."""

import contextlib
import io
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
from places import ROOT

from ica_unet_jax.data.geometry import place
from ica_unet_jax.errors import UserError
from ica_unet_jax.runtime.listening import listening
from ica_unet_jax.serving.engine import Engine
from ica_unet_jax.serving.server import Server
from ica_unet_jax.streaming.segmenter import Result

SPACING = (10.0, 1.5, 1.25)
SHAPE = (3, 8, 6)


def answer(frame):
    """The labels that `Trivial` gives."""
    return (np.asarray(frame) % 4).astype(np.uint8)


class Trivial:
    """Has the methods of a `StreamingSegmenter`; its `labels` tell each frame from the others. Waits a frame with `waits`."""

    def __init__(self, shape=SHAPE, spacing=SPACING, waits=False, labels=answer):
        self.shape, self.spacing, self.waits, self.labels = tuple(shape), tuple(spacing), waits, labels
        self.reset()

    def reset(self):
        self.kept = []

    def push(self, frame, time_stamp=None, number=None):
        if frame.shape != self.shape or not np.isfinite(frame).all():
            raise UserError(f"Frame {number} is bad.")
        self.kept.append((frame, number, time_stamp))
        return [] if self.waits and len(self.kept) < 2 else [self._result(*self.kept.pop(0))]

    def flush(self):
        kept, self.kept = self.kept, []
        return [self._result(*one) for one in kept]

    def _result(self, frame, number, time_stamp):
        labels = self.labels(frame)
        volumes = {name: float((labels == k).sum()) for k, name in enumerate(("RV", "MYO", "LV"), 1)}
        return Result(number, labels, volumes, time_stamp, time.perf_counter(), 0.0, place(self.shape, self.spacing, (4, 32, 32), 1.5))


def trivial_engine(waits=False, labels=answer, **options):
    return Engine(lambda shape, spacing: Trivial(shape, spacing, waits, labels), **options)


@contextlib.contextmanager
def serving(talk, refusal, engine=None, **options):
    """A server in a thread of this process; gives its port."""
    server = Server(listening("127.0.0.1", 0), talk, refusal, engine or trivial_engine(), **options)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    port = server.port
    try:
        yield port
    finally:
        server.stop()
        thread.join(5)
        assert not thread.is_alive()


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def everything(connection):
    """What comes until the other side closes; b"" with what was lost by a reset."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while data := connection.recv(2**16):
            found += data
    return found


def cine(frames=4, shape=SHAPE, seed=0):
    """Frames (t, s, h, w) of whole numbers."""
    return np.random.default_rng(seed).integers(0, 1000, (frames, *shape)).astype(np.uint16)


def images(frames, phases=None, **fields):
    """ismrmrd's images of each slice of each frame, as {(frame, slice): image}, a stack along z, 10 mm apart."""
    import ismrmrd

    found = {}
    for t, frame in enumerate(frames):
        for k, pixels in enumerate(frame):
            repetition, phase = divmod(t, phases or len(frames))
            image = ismrmrd.Image.from_array(pixels, transpose=False)
            values = dict(slice=k, phase=phase, repetition=repetition, image_type=1, image_series_index=2, image_index=t + 1)
            values |= dict(position=(1.0, 2.0, 10.0 * k), read_dir=(1.0, 0.0, 0.0), phase_dir=(0.0, 1.0, 0.0), slice_dir=(0.0, 0.0, 1.0))
            values |= dict(field_of_view=(pixels.shape[1] * SPACING[2], pixels.shape[0] * SPACING[1], 8.0)) | fields
            for name, value in values.items():
                setattr(image, name, value)
            found[t, k] = image
    return found


def header(slices, **more):
    """ismrmrd's header of a measurement with so many slices."""
    from ismrmrd import xsd

    space = xsd.encodingSpaceType(matrixSize=xsd.matrixSizeType(x=6, y=8, z=1), fieldOfView_mm=xsd.fieldOfViewMm(x=7.5, y=12.0, z=8.0))
    limits = xsd.encodingLimitsType(slice=xsd.limitType(minimum=0, maximum=slices - 1, center=0))
    encoding = xsd.encodingType(encodedSpace=space, reconSpace=space, encodingLimits=limits, trajectory=xsd.trajectoryType.CARTESIAN)
    return xsd.ismrmrdHeader(experimentalConditions=xsd.experimentalConditionsType(H1resonanceFrequency_Hz=1), encoding=[encoding], **more)


def stream(*messages, close=True):
    """The bytes that ismrmrd's own serializer makes of these."""
    from ismrmrd.serialization import ProtocolSerializer

    out = io.BytesIO()
    serializer = ProtocolSerializer(out)
    for message in messages:
        serializer.serialize(message)
    if close:
        serializer.close()
    return out.getvalue()


def parsed(data):
    """What ismrmrd's own deserializer reads; it ends at the close, which has to be the end."""
    from ismrmrd.serialization import ProtocolDeserializer

    source = io.BytesIO(data)
    found = list(ProtocolDeserializer(source).deserialize())
    assert not source.read()
    return found


ALONE = """
import sys
from ica_unet_jax.runtime.listening import listening
from ica_unet_jax.serving import mrd, openigtlink
from ica_unet_jax.serving.server import Server
import wires

talks = {"mrd": mrd, "openigtlink": openigtlink}[sys.argv[1]]
server = Server(listening("127.0.0.1", 0), talks.Talk, talks.refusal, wires.trivial_engine(), limit=int(sys.argv[2]))
print(server.port, flush=True)
server.run()
"""


@contextlib.contextmanager
def serving_alone(kind, limit):
    """The same in a process of its own; gives its port, and what tells its resident memory in MB (on Linux)."""
    command = [sys.executable, "-c", ALONE, kind, str(limit)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment) as process:
        statm = Path(f"/proc/{process.pid}/statm")
        try:
            yield int(process.stdout.readline()), lambda: int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
        finally:
            process.kill()
