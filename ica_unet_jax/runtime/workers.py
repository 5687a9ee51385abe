"""The same work on many files, by several processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from ica_unet_jax.errors import UserError

T, R = TypeVar("T"), TypeVar("R")
_WORTH = 16  # items for which it pays to start a process


def ordered(function: Callable[[T], R], items: Iterable[T], jobs: int) -> Iterator[R]:
    """`function` of each item, in the order of the items, while others are still being worked on.

    Args:
      function: of a module, so that another process finds it by name. With one job it is called here.
      jobs: processes; 0: one for each core, but none for a few items.

    Raises:
      UserError: a process was killed. What `function` raises comes where its result would.
    """
    items = list(items)
    jobs = min(jobs, len(items)) if jobs else min(cores(), len(items) // _WORTH)
    if jobs < 2:
        yield from map(function, items)
        return
    # Not forked: JAX's threads would be missing in the copy.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _begin) as pool:
        try:
            yield from pool.map(function, items)
        except BrokenProcessPool:
            raise UserError(f"one of the {jobs} processes that read the data was killed, perhaps for want of memory: ask for fewer.") from None


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _begin() -> None:
    """In a new process: Ctrl-C, which reaches all processes of a terminal, is the first one's to hear; and they end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_first, daemon=True).start()


def _end_with_the_first() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
