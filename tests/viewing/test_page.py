"""What goes over the socket, to whom, and that nobody who looks can slow the stream."""

import contextlib
import json
import re
import socket
import threading
import time
import urllib.error
import urllib.request

import pytest
from seen import answer, shown
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from ica_unet_jax.errors import UserError
from ica_unet_jax.runtime.listening import listening
from ica_unet_jax.streaming.tally import Tally
from ica_unet_jax.viewing import page as pages
from ica_unet_jax.viewing.page import FOLDER, Page


@pytest.fixture
def page():
    with Page() as opened:
        yield opened


def looking(page, port=None, **options):
    return connect(f"ws://127.0.0.1:{port or page.port}/views", compression=None, max_size=None, proxy=None, **options)


def next_view(client, token=""):
    """(figures, planes) of the next view that has a frame."""
    while True:
        client.send(token)
        figures = json.loads(client.recv(10))
        if figures["frame"]:
            return figures, client.recv(10)


def test_labels_come_as_they_were_segmented(page):
    tally = Tally(50.0)
    with looking(page) as client:
        for number in (1, 2, 3):
            frame, result = answer(number)
            shown(page.feed, tally, (frame, result))
            figures, planes = next_view(client)
            assert figures["frame"]["number"] == number and planes[frame.size :] == result.labels.tobytes()
            assert figures["points"][0][2:5] == list(result.volumes_ml.values()) and figures["viewers"] == 1


def test_two_look_each_at_their_own_pace(page):
    tally = Tally(50.0)
    with looking(page) as quick, looking(page) as slow:
        shown(page.feed, tally, answer(1))
        assert next_view(quick)[0]["frame"]["number"] == next_view(slow)[0]["frame"]["number"] == 1
        for number in range(2, 6):
            shown(page.feed, tally, answer(number))
            figures, planes = next_view(quick)
            assert figures["frame"]["number"] == number
        figures, same = next_view(slow)
        assert figures["frame"]["number"] == 5 and same == planes and [point[0] for point in figures["points"]] == [2, 3, 4, 5]
        assert figures["viewers"] == 2


def test_who_comes_again_gets_all_figures_and_is_counted_once(page):
    tally = Tally(50.0)
    shown(page.feed, tally, answer(1))
    with looking(page) as client:
        next_view(client)
    shown(page.feed, tally, answer(2))
    with looking(page) as client:
        assert [point[0] for point in next_view(client)[0]["points"]] == [1, 2]
        shown(page.feed, tally, answer(3))
        assert next_view(client)[0]["viewers"] == 1


def test_while_nothing_comes_the_page_hears_so(page, monkeypatch):
    monkeypatch.setattr(pages, "PULSE", 0.05)
    with looking(page) as client:
        client.send("")
        assert json.loads(client.recv(10))["frame"] is None
        client.send("")
        assert json.loads(client.recv(10))["quiet_s"] >= 0


def test_who_does_not_read_costs_the_stream_nothing(page):
    """Frames of 4 MB, and a client that asks and takes nothing: its socket is full, and the hand-over goes on."""
    tally = Tally(50.0)
    large = [answer(number, shape=(8, 512, 512)) for number in (1, 2)]
    with socket.create_connection(("127.0.0.1", page.port)) as deaf, looking(page) as other:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13"
        deaf.sendall(f"GET /views HTTP/1.1\r\nHost: localhost:{page.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{key}\r\n\r\n".encode())
        assert b" 101 " in deaf.recv(2**12)
        deaf.sendall(b"\x81\x80\0\0\0\0" * 50)  # fifty times: the next
        longest = 0.0
        for i in range(20):
            began = time.perf_counter()
            shown(page.feed, tally, large[i % 2])
            longest = max(longest, time.perf_counter() - began)
            figures, planes = next_view(other)
            assert figures["points"][-1][0] == i + 1 and planes[-1] == large[i % 2][1].labels[-1, -1, -1]
        assert figures["viewers"] == 2 and longest < 0.5


def test_a_token_is_asked_for():
    with Page(token="secret") as page:
        shown(page.feed, Tally(50.0), answer(1))
        assert page.address == f"http://127.0.0.1:{page.port}/#secret"
        for wrong in ("", "secrets", "ärger"):
            with looking(page) as client:
                client.send(wrong)
                with pytest.raises(ConnectionClosed) as closed:
                    client.recv(10)
                assert closed.value.rcvd.code == pages.WRONG_TOKEN
        with looking(page) as client:
            assert next_view(client, "secret")[0]["viewers"] == 1


def test_where_others_can_come_in_there_is_a_token():
    page = Page(bind="0.0.0.0")
    with page:
        assert len(page.token) >= 32 and page.address.endswith("#" + page.token) and "0.0.0.0" not in page.address
        with looking(page) as client:
            client.send("")
            with pytest.raises(ConnectionClosed):
                client.recv(10)


@pytest.mark.parametrize("host", ["127.0.0.1", "evil.example"])
def test_other_pages_in_the_same_browser_see_nothing(page, host):
    """Without a token; the second is a page that had its own name turned to this machine."""
    shown(page.feed, Tally(50.0), answer(1))
    there = socket.create_connection(("127.0.0.1", page.port))
    with connect(f"ws://{host}:{page.port}/views", sock=there, origin=f"http://evil.example:{page.port}") as client:
        client.send("")
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(10)
        assert closed.value.rcvd.code == pages.WRONG_TOKEN
    with looking(page, origin=f"http://127.0.0.1:{page.port}") as client:
        assert next_view(client)[1]


def test_bad_messages_end_their_connection_alone(page, monkeypatch):
    monkeypatch.setattr(pages, "PATIENCE", 0.2)
    monkeypatch.setattr(pages, "MOST", 1)
    shown(page.feed, Tally(50.0), answer(1))
    with looking(page) as good:
        next_view(good)
        for message, code in ((b"bytes", pages.NO_TEXT), ("x" * 10**5, 1009), (None, pages.WRONG_TOKEN), ("", pages.TOO_MANY)):
            with looking(page) as client:
                if message is not None:
                    client.send(message)
                with pytest.raises(ConnectionClosed) as closed:
                    client.recv(10)
                assert closed.value.rcvd.code == code
        with pytest.raises(InvalidStatus):
            connect(f"ws://127.0.0.1:{page.port}/elsewhere", proxy=None)
        good.send("")
        assert "viewers" in json.loads(good.recv(10))


def test_it_closes_while_pages_are_open_and_comes_back_on_its_port(capfd):
    with contextlib.ExitStack() as stack:
        with Page() as page:
            client = stack.enter_context(looking(page))
            client.send("")
            time.sleep(0.1)
        with pytest.raises(ConnectionClosed):
            while True:
                client.recv(10)
                client.send("")
    assert "page" not in {thread.name for thread in threading.enumerate()}
    with Page(port=page.port) as again, looking(again) as client:
        shown(again.feed, Tally(50.0), answer(1))
        assert next_view(client)[1]
    assert capfd.readouterr().err == ""
    with listening("127.0.0.1", 0) as taken, pytest.raises(UserError, match="change --view_bind or --view_port"):
        Page(port=taken.getsockname()[1])


def test_the_files_need_nothing_from_elsewhere(page):
    def get(name):
        with urllib.request.urlopen(f"http://127.0.0.1:{page.port}/{name}") as answered:
            return answered.read().decode(), answered.headers

    html, headers = get("")
    assert "default-src 'self'" in headers["Content-Security-Policy"] and headers["Cache-Control"] == "no-store"
    named = set(re.findall(r'(?:src|href)="([^"]+)"', html)) | {
        name for file in FOLDER.glob("*.js") for name in re.findall(r'from "\./([^"]+)"', file.read_text())
    }
    assert named | {"index.html"} == {file.name for file in FOLDER.iterdir()}
    for name in named:
        text, _ = get(name)
        assert text == (FOLDER / name).read_text() and not re.search(r"https?://(?!www\.w3\.org/2000/svg)\w", text)
    for name in ("page.py", "..%2fpage.py", "nothing"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(name)
