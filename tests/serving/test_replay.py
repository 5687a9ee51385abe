"""The scanner to try a server on: it says what came of it, and never more."""

import contextlib
import socket
import struct
import threading

import nibabel as nib
import numpy as np
import pyigtl
import pytest
from ismrmrd import ImageHeader
from ismrmrd.meta import Meta
from wires import answer, cine, serving, trivial_engine

from ica_unet_jax.data.case import Case, Cine
from ica_unet_jax.errors import UserError
from ica_unet_jax.runtime.listening import listening
from ica_unet_jax.serving import cines, mrd, openigtlink, web
from ica_unet_jax.serving.clients import replay
from ica_unet_jax.serving.clients.client import Client


@pytest.fixture
def source(tmp_path):
    image = nib.Nifti1Image(cine(4).T, np.diag([-1.25, -1.5, 10.0, 1.0]))
    nib.save(image, tmp_path / "cine.nii.gz")
    return tmp_path / "cine.nii.gz"


def played(count):
    return Cine(Case("c"), cine(count), tuple(range(count)), {}, (10.0, 1.5, 1.25), np.eye(4), nib.Nifti1Header())


class Silent(Client):
    """One that sends nothing."""

    def play(self, count, rate):
        pass


class Late:
    """Of a server whose answers change after so many frames."""

    def __init__(self, frames):
        self.left = frames

    def __call__(self, frame):
        self.left -= 1
        return answer(frame) if self.left >= 0 else 3 - answer(frame)


@contextlib.contextmanager
def server(protocol, labels=answer):
    """The port of a server that answers each frame with `labels` of it."""
    if protocol != "http":
        talk = {"mrd": mrd, "openigtlink": openigtlink}[protocol]
        with serving(talk.Talk, talk.refusal, trivial_engine(labels=labels)) as port:
            yield port
        return

    def segment(path, patience, given_up):
        image = nib.load(path)
        masks = np.stack([labels(frame) for frame in np.asarray(image.dataobj).T])
        nib.save(nib.Nifti1Image(masks.T, image.affine), path.with_name(cines.MASKS))

    listener = listening("127.0.0.1", 0)
    service = web.Server(listener, web.Service(segment, "secret", 8, 20.0, 2**20).application(), 20.0)
    thread = threading.Thread(target=service.run, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        service.stop()
        thread.join(5)


@contextlib.contextmanager
def always(answer):
    """The port of a server that gives its one client this answer, whatever it asks."""

    def serve():
        connection, _ = listener.accept()
        with connection:
            connection.recv(10)
            with contextlib.suppress(OSError):  # the client may end the session at any moment
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(2**16):
                    pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(5)


PROTOCOLS = ("mrd", "openigtlink", "http")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_each_mask_is_that_of_its_frame(source, tmp_path, protocol):
    with server(protocol) as port:
        done = replay.replay(
            source, "127.0.0.1", port, protocol=protocol, rate=200, seconds=0.06, output=tmp_path / "masks.nii.gz", token="secret" * (protocol == "http")
        )
    assert (done["frames"], done["answered"], done["unlike"], done["without_mask"]) == (12, 12, [], [])
    assert (np.asarray(nib.load(tmp_path / "masks.nii.gz").dataobj).T == answer(cine(4))).all()
    assert 0 < done["sent_to_mask_ms"]["p50"] < 1e3 * done["elapsed_s"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_masks_of_other_frames_are_told(source, protocol):
    with server(protocol, Late(10)) as port:
        done = replay.replay(source, "127.0.0.1", port, protocol=protocol, rate=200, seconds=0.06, token="secret" * (protocol == "http"))
    assert done["unlike"] == [10, 11] and done["compared"] == 4 and "2 of 4 masks are other ones" in replay.describe(done)


def test_a_frame_without_a_mask_in_one_round_is_compared_with_a_later_one():
    client = Silent(played(2))
    labels = np.ones(client.labels.shape[1:], np.uint8)
    for number in (0, 1, 2, 4, 5, 7):  # 3 was dropped
        client.keep(*divmod(number, 2), labels * (1 + number % 2), 0.0)
    assert client.compared == {4, 7} and not client.unlike
    client.keep(4, 1, labels, 0.0)
    assert client.unlike == {9}


@pytest.mark.parametrize("labels, round_", [(np.ones((1, 1, 6)), 0), (np.full((3, 8, 6), 256, np.uint16), 0), (np.ones((3, 8, 6)), -1)])
def test_labels_that_do_not_fit_are_no_answer(labels, round_):
    with pytest.raises(ValueError, match="labels"):
        Silent(played(2)).keep(round_, 0, labels, 0.0)


@pytest.mark.parametrize("protocol", PROTOCOLS[:2])
def test_a_server_that_is_busy_is_no_success(source, protocol):
    with server(protocol) as port, socket.create_connection(("127.0.0.1", port)):
        with pytest.raises(UserError, match="the server ended the session.*busy with another client"):
            replay.replay(source, "127.0.0.1", port, protocol=protocol, rate=0)


LABELS = pyigtl.ImageMessage(np.zeros((2, 2, 2), np.uint8), device_name="a", timestamp=1.0).pack()
NO_ANSWERS = {
    "a header alone": ("openigtlink", LABELS[:58]),
    "an image that is none": ("openigtlink", LABELS[:42] + struct.pack(">QQ", 3, 0) + b"abc"),
    "zeros": ("openigtlink", b"\0" * 200),
    "an unknown kind": ("mrd", struct.pack("<H", 77)),
    "no masks": ("http", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHello"),
    "no HTTP": ("http", b"nonsense"),
}


@pytest.mark.parametrize("protocol, answer", NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_an_answer_that_is_none_is_a_sentence(source, protocol, answer):
    with always(answer) as port, pytest.raises(UserError, match="the server ended the session: "):
        replay.replay(source, "127.0.0.1", port, protocol=protocol, rate=0)


def test_what_an_http_server_refuses_is_told(source):
    with server("http") as port, pytest.raises(UserError, match="the server ended the session: it answers 401: .*token"):
        replay.replay(source, "127.0.0.1", port, protocol="http")


def test_frames_without_a_mask_are_named(source, tmp_path):
    with serving(mrd.Talk, mrd.refusal) as port:
        whole = replay.replay(source, "127.0.0.1", port, rate=0)
        part = replay.replay(source, "127.0.0.1", port, rate=100, seconds=0.02, output=tmp_path / "masks.nii.gz")
    assert whole["without_mask"] == [] and "no mask" not in replay.describe(whole)
    assert part["without_mask"] == [3, 4] and "2 frames of the file have no mask" in replay.describe(part)
    masks = np.asarray(nib.load(tmp_path / "masks.nii.gz").dataobj).T
    assert (masks[:2] == answer(cine(4)[:2])).all() and not masks[2:].any()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_without_a_server_it_says_so(source, protocol):
    with listening("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    with pytest.raises(UserError, match="no server answers on"):
        replay.replay(source, "127.0.0.1", port, protocol=protocol)


@pytest.mark.parametrize("name", ["output", "json_file"])
def test_what_is_played_is_not_overwritten(source, name):
    before = source.read_bytes()
    with serving(mrd.Talk, mrd.refusal) as port, pytest.raises(UserError, match="is the file that is played"):
        replay.replay(source, "127.0.0.1", port, **{name: source.parent / "." / source.name})
    assert source.read_bytes() == before


@pytest.mark.parametrize("odd", [dict(slice=99), dict(phase=99), dict(matrix_size=(5, 5, 1))])
def test_an_answer_to_nothing_that_was_played_ends_it(source, odd):
    header = ImageHeader(version=1, data_type=1, channels=1)
    header.matrix_size = (6, 8, 1)
    for name, value in odd.items():
        setattr(header, name, value)
    columns, rows, _ = header.matrix_size

    labels = mrd.image_message(header, Meta(), np.zeros((rows, columns), "<u2")) + mrd.close_message()
    with always(labels) as port, pytest.raises(UserError, match="ended the session: it sent an answer to nothing"):
        replay.replay(source, "127.0.0.1", port, rate=0)
