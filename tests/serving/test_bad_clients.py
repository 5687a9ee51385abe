"""Whatever a client does, the server lives, its memory stays, and the next session is right."""

import random
import re
import socket
import struct
import time

import numpy as np
import pyigtl
import pytest
import wires
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wires import SHAPE, answer, cine, connect, everything, header, images, parsed, serving, stream, trivial_engine

from ica_unet_jax.runtime import memory
from ica_unet_jax.serving import mrd, openigtlink
from ica_unet_jax.streaming.segmenter import Result

LIMIT = 2**20
FRAMES = cine(2)
MATRIX = np.diag([1.25, 1.5, 10.0, 1.0])
SECRET = "Doe^Jane"


def mrd_session(frames=FRAMES):
    """The bytes of a session, in whose header and attributes a patient is named."""
    from ismrmrd import xsd

    pictures = images(frames)
    for image in pictures.values():
        image.meta = {"PatientName": SECRET}
    about = xsd.subjectInformationType(patientName=SECRET)
    return stream(header(SHAPE[0], subjectInformation=about), *pictures.values())


def igtl_session(frames=FRAMES):
    return b"".join(pyigtl.ImageMessage(frame, ijk_to_world_matrix=MATRIX, device_name=SECRET).pack() for frame in frames)


def mrd_right(found):
    answers = [message for message in parsed(found) if not isinstance(message, str)]
    return len(answers) == len(FRAMES) * SHAPE[0] and all((i.data[0, 0] == answer(FRAMES[i.phase][i.slice])).all() for i in answers)


def igtl_right(found):
    return all(answer(frame).tobytes() in found for frame in FRAMES)


PROTOCOLS = {
    "mrd": (mrd.Talk, mrd.refusal, mrd_session(), mrd_right),
    "openigtlink": (openigtlink.Talk, openigtlink.refusal, igtl_session(), igtl_right),
}


@pytest.fixture(params=PROTOCOLS)
def protocol(request):
    return PROTOCOLS[request.param]


def server(protocol, patience=20.0, **options):
    return serving(*protocol[:2], patience=patience, limit=LIMIT, **options)


def tried(port, data, half_close=True):
    """What comes back for these bytes, until the server closes it."""
    with connect(port) as connection:
        try:
            connection.sendall(data)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
        except OSError:  # the server has closed it already
            pass
        return everything(connection)


def next_session_is_right(port, protocol):
    return protocol[3](tried(port, protocol[2]))


def reset(connection):
    """Ends it as a killed process does, whose last bytes nobody took."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.slow  # one that dies is in the tests of each protocol
def test_a_hundred_clients_that_die_anywhere(protocol):
    random.seed(0)
    with server(protocol) as port:
        for _ in range(100):
            connection = connect(port)
            connection.sendall(protocol[2][: random.randrange(len(protocol[2]))])
            if random.random() < 0.5:
                reset(connection)
            else:
                connection.close()
        assert next_session_is_right(port, protocol)


def test_a_hundred_sessions(protocol):
    with server(protocol) as port:
        assert all(next_session_is_right(port, protocol) for _ in range(100))


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5])
def test_a_client_that_stalls_is_closed_after_the_time(protocol, part, capsys):
    with server(protocol, patience=0.3) as port:
        began = time.monotonic()
        tried(port, protocol[2][: int(part * len(protocol[2]))], half_close=False)
        assert 0.2 < time.monotonic() - began < 3
        assert next_session_is_right(port, protocol)
    assert capsys.readouterr().err.count("came for 0.3 s") == 1


def test_a_client_that_trickles_is_closed_after_the_time(protocol):
    """A byte now and then is no message."""
    with server(protocol, patience=0.3) as port, connect(port) as connection:
        began = time.monotonic()
        with pytest.raises(OSError):
            for byte in protocol[2]:
                connection.sendall(bytes([byte]))
                time.sleep(0.05)
        assert time.monotonic() - began < 3 and next_session_is_right(port, protocol)


def test_a_client_that_never_reads_is_closed_after_the_time(protocol, capsys):
    big = cine(40, (3, 200, 200))
    data = stream(header(3), *images(big).values()) if protocol is PROTOCOLS["mrd"] else igtl_session(big)
    with server(protocol, patience=0.5) as port, connect(port) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with pytest.raises(OSError):
            for _ in range(20):
                connection.sendall(data)
        assert next_session_is_right(port, protocol)
    assert re.search("nothing was taken for 0.5 s|came for 0.5 s", capsys.readouterr().err)


def test_the_second_client_is_told_and_the_first_goes_on(protocol, capsys):
    half = len(protocol[2]) // 2
    with server(protocol) as port, connect(port) as first:
        first.sendall(protocol[2][:half])
        time.sleep(0.05)
        assert b"busy with another client" in tried(port, protocol[2])
        first.sendall(protocol[2][half:])
        first.shutdown(socket.SHUT_WR)
        assert protocol[3](everything(first))
    assert capsys.readouterr().err.count("a client was refused") == 1


def test_no_log_names_a_patient(protocol, capsys):
    data = protocol[2]
    with server(protocol, patience=0.3) as port:
        assert next_session_is_right(port, protocol)
        for end in (len(data) // 2, len(data) - 3):
            tried(port, data[:end])
        tried(port, data + b"\x09\x09" + SECRET.encode() * 20)
        tried(port, data[:40] + SECRET.encode() + data[60:])
    logged = capsys.readouterr()
    assert "session 1 begins" in logged.err and "Doe" not in logged.err + logged.out


class Broken:
    """A segmenter with a fault of its own, which tells what it was given."""

    def reset(self):
        pass

    def push(self, frame, time_stamp, number) -> list[Result]:
        raise RuntimeError(SECRET)

    flush = reset


def test_a_fault_of_ours_ends_the_session_alone(protocol, capsys):
    first = [Broken()]
    engine = trivial_engine()
    good, engine._make = engine._make, lambda shape, spacing: first.pop() if first else good(shape, spacing)
    with server(protocol, engine=engine) as port:
        tried(port, protocol[2])
        engine._ready.clear()
        assert next_session_is_right(port, protocol)
    logged = capsys.readouterr().err
    assert "by a fault of this program (RuntimeError)" in logged and SECRET not in logged


LIES = {
    "a text of 4 GB": struct.pack("<HI", mrd.TEXT, 2**32 - 1),
    "a header of 4 GB": struct.pack("<HI", mrd.HEADER, 2**32 - 1),
    "attributes of 16 EB": struct.pack("<H", mrd.IMAGE) + bytes(198) + struct.pack("<Q", 2**64 - 1),
    "an image of 65535 cubed": struct.pack("<HHH", mrd.IMAGE, 1, 8) + bytes(12) + b"\xff" * 182 + bytes(8),
    "an array of 16 EB": struct.pack("<H3H2Q", mrd.NDARRAY, 8, 0, 2, 2**32, 2**32),
    "an array of many dimensions": struct.pack("<H3H", mrd.NDARRAY, 8, 0, 65535),
    "an acquisition of 65535 squared": struct.pack("<H", mrd.ACQUISITION) + b"\xff" * 340,
    "a waveform of 65535 squared": struct.pack("<H", mrd.WAVEFORM) + b"\xff" * 40,
    "an unknown message": struct.pack("<H", 4711),
    "entities": struct.pack("<HI", mrd.HEADER, 37) + b'<!DOCTYPE a [<!ENTITY b "ccc">]><a>&b;',
    "no XML": struct.pack("<HI", mrd.HEADER, 5) + b"<a><b",
    "a million slices": b"".join([struct.pack("<HI", mrd.HEADER, len(x := b"<h><encoding><encodingLimits><slice><maximum>999999</maximum></slice></encodingLimits></encoding></h>")), x]),
}  # fmt: skip
IGTL_LIES = {
    "a body of 16 EB": struct.pack(">H12s20sIIQQ", 1, b"IMAGE", b"d", 0, 0, 2**64 - 1, 0),
    "a text of 16 EB": struct.pack(">H12s20sIIQQ", 1, b"STRING", b"d", 0, 0, 2**64 - 1, 0),
    "version 9": struct.pack(">H12s20sIIQQ", 9, b"IMAGE", b"d", 0, 0, 0, 0),
    "no text": struct.pack(">H12s20sIIQQ", 1, b"\xff\xff", b"d", 0, 0, 0, 0),
    "an empty image": struct.pack(">H12s20sIIQQ", 1, b"IMAGE", b"d", 0, 0, 0, 0),
    "an image of 65535 cubed": struct.pack(">H12s20sIIQQ", 1, b"IMAGE", b"d", 0, 0, 72, 0)
    + struct.pack(">H4B3H12f6H", 1, 1, 5, 2, 2, *[65535] * 3, *[1.0] * 12, 0, 0, 0, *[65535] * 3),
}


@pytest.mark.parametrize("kind, lie", [("mrd", x) for x in LIES] + [("openigtlink", x) for x in IGTL_LIES])
def test_a_message_that_promises_too_much_ends_its_session_at_once(kind, lie, capsys):
    before = memory.resident_mb()
    with server(PROTOCOLS[kind]) as port:
        began = time.monotonic()
        tried(port, (LIES if kind == "mrd" else IGTL_LIES)[lie], half_close=False)
        assert time.monotonic() - began < 5 and memory.resident_mb() - before < 64
        assert next_session_is_right(port, PROTOCOLS[kind])
    lines = [line for line in capsys.readouterr().err.splitlines() if "session 1" in line]
    assert len(lines) == 2 and "ended:" in lines[1]


def changed(data, changes):
    """These bytes with some changed, put in or taken out."""
    data = bytearray(data)
    for place, kind, value in changes:
        at = place % (len(data) + 1)
        data[at : at + (len(value) if kind == 0 else 5 if kind == 1 else 0)] = b"" if kind == 1 else value
    return bytes(data)


NUMBERS = st.sampled_from([b"\xff" * 2, b"\xff" * 4, b"\0" * 4, b"\xff" * 8, b"\x7f\xff", b"\x05\0", b"\xfe\x03", b"\xf0\x03", b"\x04\x04"])
CHANGES = st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 2), NUMBERS | st.binary(min_size=1, max_size=12)), min_size=1, max_size=4)
NEAR = st.tuples(st.integers(0, 400), st.integers(0, 2), NUMBERS | st.binary(min_size=1, max_size=12)).map(lambda one: [one])
NOISE = st.binary(max_size=300)


def fuzz(kind, port, examples, look=lambda: None):
    """So many malformed sessions; `look` is called after each. How many there were, and whether the next session was right each 100."""
    protocol = PROTOCOLS[kind]
    seen, right = [], []

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.one_of(CHANGES.map(lambda c: changed(protocol[2], c)), NEAR.map(lambda c: changed(protocol[2], c)), NOISE))
    def one(data):
        tried(port, data)
        seen.append(look())
        if len(seen) % 100 == 1:
            right.append(next_session_is_right(port, protocol))

    one()
    return seen, right


@pytest.mark.parametrize("kind", PROTOCOLS)
def test_malformed_sessions(kind):
    with server(PROTOCOLS[kind]) as port:
        seen, right = fuzz(kind, port, 200)
    assert len(seen) >= 150 and all(right)


@pytest.mark.slow
@pytest.mark.parametrize("kind", PROTOCOLS)
def test_ten_thousand_malformed_sessions(kind, capsys):
    with wires.serving_alone(kind, LIMIT) as (port, held):
        before = held()
        seen, right = fuzz(kind, port, 10_000, held)
    with capsys.disabled():
        print(f"\n{kind}: {len(seen)} malformed sessions, {len(right)} right ones between; {before:.0f} MB before, {seen[-1]:.0f} after")
    assert len(seen) >= 10_000 and all(right) and max(seen) - before < 64
