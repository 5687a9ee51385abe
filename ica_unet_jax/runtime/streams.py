"""What is printed: no letter fails, and a reader who has gone, as `head` does, makes no traceback."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any


class _Stream:
    """A text stream; when nobody reads it any more, `gone` is called, and what is written disappears."""

    def __init__(self, stream: Any, gone: Callable[[], None]):
        self._stream, self._gone = stream, gone

    def write(self, text: str) -> int:
        with self._heard():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._heard():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _heard(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())  # also for what is still in the buffer
            os.close(nowhere)
            self._gone()


def _end() -> None:
    sys.exit(128 + signal.SIGPIPE)


@contextlib.contextmanager
def for_people() -> Iterator[None]:
    """In the block, letters that a stream's encoding lacks are printed as "?".

    A closed stdout ends the command in silence: nobody reads its result. A closed stderr ends nothing: a training goes on.
    """
    if sys.stdout is None or sys.stderr is None:  # closed from the beginning: Python then prints nothing
        yield
        return
    before = sys.stdout, sys.stderr
    for stream in before:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    sys.stdout, sys.stderr = _Stream(before[0], _end), _Stream(before[1], lambda: None)
    try:
        yield
        sys.stdout.flush()
    finally:
        with contextlib.suppress(SystemExit):
            sys.stdout.flush()  # before the interpreter does, who would tell of a closed pipe
        sys.stderr.flush()
        sys.stdout, sys.stderr = before
