"""The entries of a cache folder, which several processes share: which are in use, and which go where there are too many.

An entry is a folder with one file. Whoever uses it holds a lock on that file, for as long as the file is mapped. So what a training
uses stays, whoever makes room; a killed process holds nothing. A system without such locks, as Windows, refuses itself to move a
folder whose file is mapped. Where a file system knows no locks, nothing goes.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

FILE = "arrays.npy"
_NAME = re.compile(r".*-[0-9a-f]{32}", re.DOTALL)
GB = 1e9


@contextlib.contextmanager
def held(folder: Path) -> Iterator[BinaryIO]:
    """The file of an entry, held from here on and for as long as a map of it lives; it counts as used now."""
    with contextlib.suppress(OSError):  # another user's
        os.utime(folder)
    with (folder / FILE).open("rb") as file:
        if fcntl:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_SH)
        yield file


def make_room(root: Path, most_gb: float) -> float:
    """Removes the entries used longest ago that nobody holds, until the others take at most `most_gb`; returns the GB that they take."""
    found = sorted(entry for path in root.glob("*-*") if _NAME.fullmatch(path.name) and (entry := _looked_at(path)))
    taken = sum(size for _, size, _ in found)
    for _, size, folder in found:
        if taken <= most_gb * GB:
            break
        if _remove(folder):
            taken -= size
    return taken / GB


def _looked_at(folder: Path) -> tuple[float, int, Path] | None:
    """When an entry was last used and its bytes; None where it has gone, or is none."""
    try:
        return folder.stat().st_mtime, (folder / FILE).stat().st_size, folder
    except OSError:
        return None


def _remove(folder: Path) -> bool:
    """Whether an entry that nobody holds could be removed."""
    gone = folder.with_name(f".going-{secrets.token_hex(8)}")
    try:
        if fcntl:
            with (folder / FILE).open("r+b") as file:  # on a network a lock for one alone needs the right to write
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                folder.rename(gone)  # who comes now makes it anew
        else:
            folder.rename(gone)
    except OSError:
        return False
    shutil.rmtree(gone, ignore_errors=True)
    return True
