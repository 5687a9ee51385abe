"""Signals that ask a process to stop, heard at once, also while a compiler keeps Python from running."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from ica_unet_jax.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)
TOGETHER = 1.0  # s; what comes within it is one request: `timeout` and `srun` pass a signal on more than once
GRACE = 2.0  # s in which Python may unwind; a compiler may take minutes, and some of its callbacks swallow exceptions
PATIENCE = 0.5  # s until it is said what is waited for


class Interruption:
    """What a signal does in a block: it raises `Interrupted` wherever that is, or it waits for where something can be saved.

        with Interruption() as asked:
            ...              # a signal raises `Interrupted`; where nothing comes of that within `GRACE`, the process ends
            asked.hold("the state is saved after this step")
            ...              # a signal is noted, and this is said on stderr; a second, later than `TOGETHER`, ends the process at once
            asked.to_stop()  # raises `Interrupted` once a signal has come

    `heard` is called for a signal that is noted, on a thread. Blocks may be nested: the innermost hears. Signals that are ignored
    stay so (nohup), and outside the main thread, where Python allows no handler, nothing changes.
    """

    def __init__(self, heard: Callable[[], None] = lambda: None) -> None:
        self.received: int | None = None
        self.waits_for = ""
        self._heard = heard
        self._raised = False
        self._left, self._sending = threading.Event(), threading.Lock()
        self._before: dict[int, object] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._in_turn)
        if self._before:
            ears, mouth = os.pipe()
            os.set_blocking(mouth, False)
            # Into this the system writes a signal's number when it comes, whatever the main thread does.
            self._outer, self._mouth = signal.set_wakeup_fd(mouth, warn_on_full_buffer=False), mouth
            threading.Thread(target=self._listen, args=(ears,), name="signals", daemon=True).start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, _) -> None:
        with self._sending:  # what is sent later would be heard by whoever is asked outside of the block
            self._left.set()
        if self._before:
            signal.set_wakeup_fd(self._outer)
            os.close(self._mouth)  # the thread ends
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
        if isinstance(error, Exception) and self.received and not self.waits_for:
            raise Interrupted(self.received) from error  # what the signal raised was made another error on its way

    def hold(self, waits_for: str) -> None:
        """From here on a signal waits for `to_stop`; `waits_for` says why, as in "the state is saved after this step"."""
        self.waits_for = waits_for

    def to_stop(self, agree: Callable[[int | None], int | None] = lambda number: number) -> None:
        """Raises Interrupted if a signal has come; `agree` makes one answer of those of several processes."""
        number = agree(self.received)  # not kept: a signal may come while the others are asked
        if number is not None:
            raise Interrupted(number)

    def _in_turn(self, number: int, frame: FrameType | None) -> None:
        """Python's handler, in the main thread when that runs Python again."""
        self.received = self.received or number
        if self.waits_for or self._raised or frame and frame.f_code.co_name.endswith("gc_callback"):  # JAX's, which swallows it
            return
        self._raised = True
        raise Interrupted(number)

    def _listen(self, ears: int) -> None:
        """On a thread of its own, to the end of the block."""
        first = None
        while (told := os.read(ears, 1)) and not self._left.is_set():
            number, now = told[0], time.monotonic()
            if number not in SIGNALS:
                continue
            first = first or now
            if now - first > TOGETHER:
                leave(number)
            if self.waits_for:
                self._heard()
                if not self._left.wait(PATIENCE):
                    _say(f"{signal.Signals(number).name}: {self.waits_for}; a second one ends it at once")
                continue
            while not self._left.wait(GRACE / 10) and time.monotonic() < now + GRACE:
                with self._sending:
                    if not self._raised and not self._left.is_set():
                        signal.pthread_kill(threading.main_thread().ident, number)
            if not self._left.is_set() and not self.waits_for:
                _say(signal.Signals(number).name)
                leave(number)
        os.close(ears)


def leave(number: int) -> NoReturn:
    """Ends the process with the exit code of a signal, at once: Python's own end crashes while a compiler's threads still run."""
    if os.isatty(2):
        os.write(2, b"\x1b[?25h")  # the cursor, which a progress bar hides
    os._exit(128 + number)


def _say(text: str) -> None:
    """A line on stderr, past Python's streams, which the main thread may hold."""
    try:
        os.write(sys.__stderr__.fileno(), f"{text}\n".encode())
    except (AttributeError, OSError):  # there is none, or nobody reads it
        pass
