"""The process's memory: how much it holds; what was freed is kept for the next step, not handed back to the system."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def resident_mb() -> float | None:
    """What the process holds of the machine's memory now, in MB; None where the system does not say (it does on Linux)."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def keep_freed() -> bool:
    """Freed memory stays with the process; True where the C library can be told so (glibc).

    XLA asks for a step's whole memory anew at each step on CPU. By default glibc maps blocks of that size from the
    system and unmaps them afterwards, so that every page is zeroed and faulted in again, step after step. The price is
    a larger peak, as freed blocks leave gaps.

    To be called before the process has threads, so before JAX is imported.
    """
    mallopt = getattr(ctypes.pythonapi, "mallopt", None)
    if mallopt is None:
        return False
    # One arena: those of further threads hold 64 MB at most and map the rest.
    return all([mallopt(_ARENA_MAX, 1), mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, -1)])
