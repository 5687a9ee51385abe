"""A TCP server for one client at a time, which outlives whatever its clients do."""

from __future__ import annotations

import itertools
import socket
import threading
import time
import traceback
from collections.abc import Callable

from ica_unet_jax.serving.engine import Engine
from ica_unet_jax.serving.session import Session, Talk
from ica_unet_jax.serving.wire import Ended, Wire, log
from ica_unet_jax.streaming.session import Show

GRACE = 1.0  # s that a new client waits for the end of a session whose client has gone
BUSY = "busy with another client: one session at a time, try again when it has ended"


class Server:
    """Serves clients one after the other; while one is served, the next is told so and closed.

    Args:
      listener: see `listening`.
      talk: what the protocol does, for a new connection.
      refusal: what the protocol says to a client that comes too many.
      engine: the network.
      queue, show: see `Session`.
      patience, limit: see `Wire`.
    """

    def __init__(
        self,
        listener: socket.socket,
        talk: Callable[[Wire], Talk],
        refusal: Callable[[str], bytes],
        engine: Engine,
        *,
        queue: int = 0,
        patience: float = 60.0,
        limit: int = 2**28,
        show: Show = lambda tally, answers, spacing: None,
    ):
        self._listener, self._talk, self._refusal, self._engine = listener, talk, refusal, engine
        self._queue, self._patience, self._limit, self._show = queue, patience, limit, show
        self._stopped = False

    @property
    def port(self) -> int:
        return self._listener.getsockname()[1]

    def run(self) -> None:
        """Until `stop`."""
        session: threading.Thread | None = None
        numbers = itertools.count(1)
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                if self._stopped:
                    return session.join(GRACE) if session else None
                log(f"a connection could not be taken ({error.strerror})")
                time.sleep(GRACE)  # without handles it is so at once again
                continue
            if session:
                session.join(GRACE)
            if session and session.is_alive():
                threading.Thread(target=self._turn_away, args=(connection,), name="refusal", daemon=True).start()
                continue
            session = threading.Thread(target=self._serve, args=(connection, next(numbers)), name="session", daemon=True)
            session.start()

    def stop(self) -> None:
        """Takes no more clients."""
        self._stopped = True
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()

    def _serve(self, connection: socket.socket, number: int) -> None:
        wire = Wire(connection, self._patience, self._limit)
        session = Session(wire, self._talk(wire), self._engine, self._queue, self._show)
        log(f"session {number} begins")
        try:
            session.run()
        except Exception as error:  # ours: the next session shall not suffer from it, and its text may hold what was sent
            where = "".join(traceback.format_tb(error.__traceback__))
            log(f"session {number} failed, by a fault of this program ({type(error).__name__}):\n{where}")
            return
        if session.remark:
            log(f"session {number}: note: {session.remark}")
        log(f"session {number}: {session.describe()}")

    def _turn_away(self, connection: socket.socket) -> None:
        log("a client was refused: " + BUSY)
        wire = Wire(connection, GRACE, self._limit)
        try:
            wire.send(self._refusal(BUSY))
        except Ended:
            pass
        wire.part()
