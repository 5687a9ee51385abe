"""What a connection leaves behind."""

import contextlib
import gc
import socket
import threading
import time

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from ica_unet_jax.runtime.http_server import CONNECTIONS, Server
from ica_unet_jax.runtime.listening import listening


@contextlib.contextmanager
def running(patience):
    async def answer(request):
        return PlainTextResponse("yes" + "!" * int(request.query_params.get("more", 0)))

    listener = listening("127.0.0.1", 0)
    server = Server(listener, Starlette(routes=[Route("/", answer)]), patience)
    thread = threading.Thread(target=server.run)
    thread.start()
    yield listener.getsockname()[1]
    server.stop()
    thread.join()


def test_a_connection_that_has_ended_is_forgotten():
    """Not kept by the clocks of its bounds, which are minutes."""

    def protocols():
        gc.collect()
        return sum(type(x).__name__ == "Bounded" for x in gc.get_objects())

    with running(patience=60.0) as port:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                while client.recv(4096):
                    pass
        end = time.monotonic() + 5
        while protocols() > 2 and time.monotonic() < end:
            time.sleep(0.05)
        assert protocols() <= 2


def test_who_says_nothing_takes_nobody_s_place():
    with running(patience=60.0) as port, contextlib.ExitStack() as held:
        silent = [held.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(CONNECTIONS + 10)]
        client = held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(4096), b""))
        assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"yes")
        silent[0].settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            assert not silent[0].recv(1)  # the oldest was closed
        silent[-1].sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")  # the newest was not
        assert silent[-1].recv(4096).startswith(b"HTTP/1.1 200")


def test_an_answer_on_its_way_is_no_silence():
    size = 30_000_000
    with running(patience=60.0) as port, contextlib.ExitStack() as held:
        slow = held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
        slow.sendall(b"GET /?more=%d HTTP/1.1\r\nHost: x\r\n\r\n" % size)
        taken = len(slow.recv(1000))  # so it is on its way
        for _ in range(CONNECTIONS + 10):
            held.enter_context(socket.create_connection(("127.0.0.1", port)))
        while taken < size:
            part = len(slow.recv(2**20))
            assert part
            taken += part
