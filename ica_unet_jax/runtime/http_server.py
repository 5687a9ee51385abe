"""Runs a web application by uvicorn, in any thread, with bounds on what a connection may do."""

from __future__ import annotations

import socket
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

CONNECTIONS = 128  # at once; for one more the oldest of those that ask for nothing is closed, or it is told to come later
LONGEST_HEAD = 2**14  # bytes of a request's headers
LONGEST_MESSAGE = 2**12  # bytes of what comes over a WebSocket


class Server:
    """Runs an application on a socket that listens; `run` until `stop`.

    Args:
      patience: seconds in which a connection has to bring a request; in four times as many it is closed, whatever it does, unless it
        has become a WebSocket: who is there no longer is then found out by pings.
      websockets: whether there are any.
    """

    def __init__(self, listener: socket.socket, application: Starlette, patience: float, *, websockets: bool = False):
        self._listener = listener

        class Bounded(H11Protocol):
            def connection_made(self, transport: Any) -> None:
                super().connection_made(transport)
                self._came, self._ended = self.loop.time(), False
                silent = [other for other in self.connections if other is not self and isinstance(other, Bounded) and other._is_silent()]
                if silent and len(self.connections) >= CONNECTIONS:  # who says nothing takes nobody's place
                    min(silent, key=lambda other: other._came)._abort()
                self._limits = (
                    self.loop.call_later(patience, lambda: self.cycle is None and self._abort()),
                    self.loop.call_later(4 * patience, self._abort),
                )

            def connection_lost(self, exc: Exception | None) -> None:
                for limit in self._limits:  # which would keep the connection in memory until then
                    limit.cancel()
                super().connection_lost(exc)

            def _is_silent(self) -> bool:
                waits = self.cycle is None or self.cycle.response_complete
                return waits and not self._ended and not self.transport.get_write_buffer_size()

            def _abort(self) -> None:
                self._ended = True
                if self.transport.get_protocol() is self:
                    self.transport.abort()

        self._server = uvicorn.Server(
            uvicorn.Config(
                application, http=Bounded, ws="websockets-sansio" if websockets else "none", ws_max_size=LONGEST_MESSAGE,
                ws_per_message_deflate=False, lifespan="off", loop="asyncio", log_config=None, access_log=False, server_header=False,
                proxy_headers=False, limit_concurrency=CONNECTIONS, h11_max_incomplete_event_size=LONGEST_HEAD,
                timeout_keep_alive=1, timeout_graceful_shutdown=1,
            )
        )  # fmt: skip

    def run(self) -> None:
        self._server.run(sockets=[self._listener])

    def stop(self) -> None:
        self._server.should_exit = True
