"""The HTTP service: masks and measurements of a cine, and an answer or an end for every bad client."""

import gzip
import http.client
import io
import json
import re
import shutil
import struct
import threading
import time
import zipfile
from contextlib import contextmanager

import nibabel as nib
import numpy as np
import pytest
from wires import connect, everything

from ica_unet_jax.errors import UserError
from ica_unet_jax.inference import prediction
from ica_unet_jax.runtime import memory
from ica_unet_jax.runtime.listening import listening
from ica_unet_jax.serving import cines, openapi, web
from ica_unet_jax.serving.cines import Cines

LIMIT = 2**20
NAME = "Doe^Jane"


class Fake:
    """Segments nothing, in `seconds`; counts its calls."""

    def __init__(self, seconds=0.0):
        self.seconds, self.calls, self.folders = seconds, 0, []

    def __call__(self, path, patience, given_up):
        self.calls += 1
        self.folders.append(path.parent)
        cines.check_size(path, LIMIT)
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            if given_up():
                raise cines.TooLong
            time.sleep(0.01)
        for name in (cines.MASKS, cines.VOLUMES, cines.SUMMARY):
            path.with_name(name).write_bytes(name.encode())


@contextmanager
def service(segment, token="", waiting=8, patience=20.0, limit=LIMIT):
    """The port of a service."""
    listener = listening("127.0.0.1", 0)
    server = web.Server(listener, web.Service(segment, token, waiting, patience, limit).application(), patience)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    server.stop()
    thread.join(5)
    assert not thread.is_alive()


def asked(port, path="/segment", body=None, method="POST", **headers):
    """(status, body, headers)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    found = answer.status, answer.read(), answer.headers
    connection.close()
    return found


def nifti(frames, affine=None):
    """The bytes of frames (t, s, h, w) as .nii.gz."""
    affine = np.diag([-1.5, -1.5, 10.0, 1.0]) if affine is None else affine
    return gzip.compress(nib.Nifti1Image(frames.T, affine).to_bytes(), 1)


SMALL = nifti(np.random.default_rng(0).gamma(2, 100, (2, 2, 8, 8)).astype(np.float32))


def test_masks_and_measurements_are_those_of_predict(tiny_run, tmp_path, capsys):
    """What is odd about a file, a frame that shows nothing and the way it lies, is told to its sender alone."""
    frames = np.random.default_rng(1).gamma(2, 100, (3, 2, 64, 64)).astype(np.float32)
    frames[1] = 123
    run = shutil.copytree(tiny_run, tmp_path / "run")
    (run / "orientation.json").write_text('{"codes": {"LPS": 2}, "scaled": true}')
    source = tmp_path / "cine.nii.gz"
    source.write_bytes(nifti(frames, np.diag([1.5, -1.5, 10.0, 1.0])))
    prediction.predict(run, source, tmp_path / "m.nii.gz")
    capsys.readouterr()
    with service(Cines(run, 2**24, runtime="jax"), limit=2**24) as port:
        status, body, _ = asked(port, body=source.read_bytes())
        archive = zipfile.ZipFile(io.BytesIO(body))
        assert status == 200 and archive.namelist() == ["masks.nii.gz", "volumes.csv", "summary.json"]
        assert asked(port, "/volumes", source.read_bytes())[1] == archive.read("volumes.csv")
        assert asked(port, "/measurements", source.read_bytes())[1] == archive.read("summary.json")
        damaged = nifti(np.full_like(frames, np.nan))
        status, body, _ = asked(port, body=damaged)
        assert status == 422 and "NaN" in json.loads(body)["error"] and "ica_unet_" not in json.loads(body)["error"]
    theirs, ours = (nib.Nifti1Image.from_bytes(gzip.decompress(b)) for b in (archive.read("masks.nii.gz"), (tmp_path / "m.nii.gz").read_bytes()))
    assert (np.asarray(theirs.dataobj) == np.asarray(ours.dataobj)).all() and (theirs.affine == ours.affine).all()
    found, theirs = json.loads(archive.read("summary.json")), json.loads((tmp_path / "m_summary.json").read_text())
    empty, turned = found.pop("remarks")
    assert found.items() <= theirs.items()
    assert empty.startswith("The file, frame 2, is constant (123)") and turned.startswith("The file: ") and "RPS" in turned
    logged = capsys.readouterr()
    assert "123" not in logged.err and "ica_unet_" not in logged.err and "note" not in logged.err
    assert archive.read("volumes.csv") == (tmp_path / "m_volumes.csv").read_bytes()


def test_nothing_is_kept():
    fake = Fake()
    with service(fake) as port:
        assert asked(port, "/masks", SMALL)[:2] == (200, b"masks.nii.gz")
        assert asked(port, body=b"nonsense")[0] == 422
    assert len(fake.folders) == 2 and not any(folder.exists() for folder in fake.folders)


def test_the_openapi_page_names_every_route_and_nothing_from_elsewhere():
    with service(Fake()) as port:
        document = json.loads(asked(port, "/openapi.json", method="GET")[1])
        page = asked(port, "/", method="GET")[1].decode()
        assert json.loads(asked(port, "/health", method="GET")[1]) == {"state": "ready"}
        for path, calls in document["paths"].items():
            assert path in page
            assert asked(port, path, SMALL if "post" in calls else None, "POST" if "post" in calls else "GET")[0] == 200
    assert document == openapi.document() and not re.search("https?://", page)


def test_a_token_is_asked_for(capsys):
    with service(Fake(), token="abc") as port:
        assert asked(port, body=SMALL)[0] == 401 and asked(port, body=SMALL, Authorization="Bearer abd")[0] == 401
        assert asked(port, body=SMALL, Authorization="Bearer é".encode("latin-1"))[0] == 401
        assert asked(port, body=SMALL, Authorization="Bearer abc")[0] == 200
        assert asked(port, "/health", method="GET")[0] == 200
    assert "ab" not in capsys.readouterr().err.replace("a request", "")


def bomb():
    """A header that promises 1.5 GB, and a megabyte that unpacks to a gigabyte of zeros."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape((1024, 1024, 12, 30))
    return header.binaryblock + bytes(4)


def liar():
    """A small header, behind which a gigabyte of zeros is packed."""
    data = io.BytesIO()
    with gzip.open(data, "wb", 1) as file:
        file.write(gzip.decompress(SMALL))
        for _ in range(64):
            file.write(bytes(2**22))
    return data.getvalue()


def huge_dimensions():
    header = bytearray(gzip.decompress(SMALL))
    header[40:56] = struct.pack("<8h", 7, *[32767] * 7)
    return bytes(header)


BAD = {
    "no file": (b"", 422),
    "another type": (b"\x89PNG\r\n\x1a\n" + bytes(2000), 422),
    "truncated gzip": (SMALL[: len(SMALL) // 2], 422),
    "damaged gzip": (SMALL[:-8] + bytes(8), 422),
    "a header that promises 1.5 GB": (bomb(), 413),
    "the same, packed": (gzip.compress(bomb()), 413),
    "a header of 32767 to the 7th": (huge_dimensions(), 413),
    "256 MB of zeros packed behind a small cine": (liar(), 422),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_told_and_the_next_request_served(tiny_run_cines, name):
    body, status = BAD[name]
    with service(tiny_run_cines, limit=2**22) as port:
        before = memory.resident_mb()
        found, text, _ = asked(port, body=body)
        assert found == status and len(json.loads(text)["error"]) > 20
        assert memory.resident_mb() - before < 64
        assert asked(port, "/health", method="GET")[0] == 200


@pytest.mark.parametrize("shape, offset", [((8, 8, 2, 2), 6e8), ((8, 8, 2, 2), np.nan), ((-8000, -8000, 2, 2), 352), ((-1, 1, 1), 352)])
def test_all_that_a_header_promises_counts_not_the_voxels_alone(tmp_path, shape, offset):
    header = nib.Nifti1Header()
    header["dim"][: len(shape) + 1], header["vox_offset"] = (len(shape), *shape), offset
    path = tmp_path / "cine.nii.gz"
    path.write_bytes(gzip.compress(header.binaryblock + bytes(4)))
    with pytest.raises(UserError):
        cines.check_size(path, LIMIT)


@pytest.fixture(scope="module")
def tiny_run_cines(tiny_run):
    return Cines(tiny_run, LIMIT, runtime="jax")


def test_an_upload_beyond_the_limit_ends_early():
    fake = Fake()
    with service(fake) as port:
        assert asked(port, body=bytes(LIMIT + 1))[0] == asked(port, body=bytes(32 * LIMIT))[0] == 413  # by its length
        with connect(port) as connection:
            connection.sendall(b"POST /masks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            try:
                for _ in range(4):
                    connection.sendall(b"80000\r\n" + bytes(2**19) + b"\r\n")
            except OSError:
                pass
            assert everything(connection).startswith(b"HTTP/1.1 413")
        assert fake.calls == 0 and asked(port, body=SMALL)[0] == 200


def test_a_form_is_told_what_to_send():
    with service(Fake()) as port:
        assert asked(port, body=b"--x", Content_Type="multipart/form-data; boundary=x")[0] == 415


@pytest.mark.parametrize("sent", [b"", b"POST /segm", b"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc", b"\0" * 100, b"GET " + b"a" * 99999])
def test_a_client_that_stalls_or_talks_nonsense_is_answered_or_closed_after_the_time(sent):
    with service(Fake(), patience=0.4) as port:
        with connect(port) as connection:
            began = time.monotonic()
            try:
                connection.sendall(sent)
            except OSError:
                pass
            found = everything(connection)
            assert time.monotonic() - began < 3 and found[:10] in (b"HTTP/1.1 4", b"")
        assert asked(port, body=SMALL)[0] == 200


def test_a_slow_body_takes_nobody_s_place(capsys):
    """Its time is over after a while, byte by byte or not; others are served meanwhile."""
    with service(Fake(), waiting=1, patience=0.5) as port, connect(port) as slow:
        slow.sendall(b"POST /masks HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        began = time.monotonic()
        assert asked(port, "/masks", SMALL)[0] == 200
        found = b""
        while not found and time.monotonic() - began < 5:
            slow.sendall(b"x")
            slow.settimeout(0.05)
            try:
                found = slow.recv(100)
            except TimeoutError:
                pass
        assert found.startswith(b"HTTP/1.1 408")


def test_a_hundred_at_once_are_served_or_told_to_come_later():
    fake, found = Fake(0.02), []
    with service(fake, waiting=8) as port:
        threads = [threading.Thread(target=lambda: found.append(asked(port, "/masks", SMALL))) for _ in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        codes = [status for status, *_ in found]
        assert len(codes) == 100 and set(codes) <= {200, 503} and codes.count(200) >= 9
        assert all(headers["Retry-After"] for status, _, headers in found if status == 503 and b"error" in _)
        assert asked(port, "/masks", SMALL)[0] == 200


def test_a_client_that_goes_ends_its_work():
    fake = Fake(30.0)
    with service(fake, patience=60.0) as port:
        with connect(port) as connection:
            connection.sendall(b"POST /masks HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(SMALL) + SMALL)
            while not fake.calls:
                time.sleep(0.01)
        fake.seconds = 0.0
        began = time.monotonic()
        assert asked(port, "/masks", SMALL)[0] == 200 and time.monotonic() - began < 5


def test_work_without_end_ends(tiny_run_cines, tmp_path):
    path = tmp_path / "cine.nii.gz"
    path.write_bytes(nifti(np.random.default_rng(0).gamma(2, 100, (2, 2, 64, 64)).astype(np.float32)))
    with pytest.raises(cines.TooLong):
        tiny_run_cines(path, 0.0, lambda: False)
    with pytest.raises(cines.TooLong):
        tiny_run_cines(path, 60.0, lambda: True)


def test_a_fault_of_ours_is_one_request_s(capsys):
    class Broken(Fake):
        def __call__(self, path, patience, given_up):
            if not self.calls:
                self.calls += 1
                raise RuntimeError(NAME)
            super().__call__(path, patience, given_up)

    with service(Broken()) as port:
        assert asked(port, "/masks", SMALL)[0] == 500 and asked(port, "/masks", SMALL)[0] == 200
    logged = capsys.readouterr().err
    assert "by a fault of this program (RuntimeError)" in logged and NAME not in logged
