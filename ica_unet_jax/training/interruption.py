"""Signals that ask a training to stop: it ends where it can save its state, not in the middle of something."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable

from ica_unet_jax.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)
TOGETHER = 1.0  # s; what comes within it is one request: `timeout` and `srun` pass a signal on more than once


class Interruption:
    """`with Interruption() as asked: ... asked.to_stop()` raises `Interrupted` there once a signal has come.

    A second signal, later than `TOGETHER`, ends the process at once, as it would without this. Signals that are ignored
    stay so (nohup), and outside the main thread, where Python allows no handler, nothing changes.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._when = 0.0
        self._before: dict[int, object] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, _) -> None:
        if self.received is None:
            self.received, self._when = number, time.monotonic()
        elif time.monotonic() - self._when > TOGETHER:
            self.__exit__()
            signal.raise_signal(number)

    def to_stop(self, agree: Callable[[int | None], int | None] = lambda number: number) -> None:
        """Raises Interrupted if a signal has come; `agree` makes one answer of those of several processes."""
        number = agree(self.received)  # not kept: a signal may come while the others are asked
        if number is not None:
            raise Interrupted(number)
