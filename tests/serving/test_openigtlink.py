"""An OpenIGTLink session, by pyigtl's own client: labels come back where the images lie."""

import struct
import time

import numpy as np
import pyigtl
import pytest
from wires import answer, cine, connect, everything, serving, trivial_engine

from ica_unet_jax.serving import openigtlink

MATRIX = np.array([[1.25, 0, 0, 5], [0, 1.5, 0, -7], [0, 0, 10, 20], [0, 0, 0, 1]], float)


@pytest.fixture
def client():
    """pyigtl's client, connected to a server."""
    with serving(openigtlink.Talk, openigtlink.refusal) as port:
        client = pyigtl.OpenIGTLinkClient("127.0.0.1", port)
        yield client
        client.stop()


def asked(client, image, matrix=MATRIX, name="scanner", timeout=5, **more):
    """The answer to an image (k, j, i)."""
    client.send_message(pyigtl.ImageMessage(image, ijk_to_world_matrix=matrix, device_name=name, **more))
    return client.wait_for_message(f"{name}_labels", timeout)


@pytest.mark.parametrize("system", ["lps", "ras"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_a_volume_gets_its_labels_with_the_same_transform(client, dtype, system):
    for frame in cine(2):
        frame = (frame % 200).astype(dtype)
        found = asked(client, frame, world_coordinate_system=system)
        assert found.image.dtype == np.uint8 and (found.image == answer(frame)).all()
        assert np.allclose(found.ijk_to_world_matrix, MATRIX, atol=1e-4) and found.world_coordinate_system == system


def test_volumes_are_metadata_where_the_client_knows_such(client):
    frame = cine(1)[0]
    message = pyigtl.ImageMessage(frame, ijk_to_world_matrix=MATRIX, device_name="scanner")
    message.header_version, message.metadata = 2, {"a": "b"}
    client.send_message(message)
    found = client.wait_for_message("scanner_labels", timeout=5)
    assert found.metadata == {f"Volume{name}_ml": f"{(answer(frame) == k).sum():.2f}" for k, name in enumerate(("RV", "MYO", "LV"), 1)}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_slices_become_frames_by_their_places(count):
    """Where there is one round alone it is known by the client's end."""
    frames = cine(count)
    with serving(openigtlink.Talk, openigtlink.refusal) as port, connect(port) as connection:
        connection.sendall(pyigtl.TransformMessage(np.eye(4), device_name="tool").pack())
        for frame in frames:
            for k in (0, 2, 1):
                at = MATRIX.copy()
                at[2, 3] += 10 * k
                connection.sendall(pyigtl.ImageMessage(frame[k : k + 1], ijk_to_world_matrix=at, device_name=f"slice{k}").pack())
        connection.shutdown(1)
        found = everything(connection)
    places = [found.index(answer(part).tobytes()) for frame in frames for part in frame]
    assert found.count(b"IMAGE") == 3 * count and places == sorted(places) and found.count(b"slice2_labels") == count


def test_two_devices_are_two_cines():
    """Each is answered as if the other was not there, by a network that waits for the next frame of a cine."""
    begun = []
    engine = trivial_engine(waits=True)
    ready = engine.ready
    engine.ready = lambda *geometry: begun.append(geometry) or ready(*geometry)
    with serving(openigtlink.Talk, openigtlink.refusal, engine) as port, connect(port) as connection:
        for name, frame in zip("aabba", cine(5), strict=True):
            connection.sendall(pyigtl.ImageMessage(frame, ijk_to_world_matrix=MATRIX, device_name=name).pack())
        connection.shutdown(1)
        assert everything(connection).count(b"_labels") == 5
    assert len(begun) == 3


def test_a_bad_image_is_told_and_the_next_is_answered(client):
    frame = cine(1)[0]
    assert asked(client, np.full_like(frame, np.nan, np.float32), name="bad", timeout=0.3) is None
    tiny = MATRIX @ np.diag([1e-5, 1, 1, 1])
    assert asked(client, frame, tiny, name="bad", timeout=0.3) is None
    assert (asked(client, frame).image == answer(frame)).all()


def test_the_second_client_is_told_that_the_server_is_busy(client):
    assert asked(client, cine(1)[0]) is not None
    with connect(client.port) as second:
        began = time.monotonic()
        found = everything(second)
    version, kind, _, _, _, size, _ = struct.unpack(">H12s20sIIQQ", found[:58])
    assert (version, kind.rstrip(b"\0"), size) == (1, b"STATUS", len(found) - 58) and time.monotonic() - began < 5
    assert struct.unpack(">H", found[58:60]) == (openigtlink.BUSY,) and b"busy with another client" in found
