"""Writes files whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ica_unet_jax.errors import UserError

NAME_MAX = 255  # bytes of a file's name, on all file systems in use
_HANDLES = (errno.EMFILE, errno.ENFILE)
# Names of files that are open already: whoever replaced them would lose what else is written there.
_OPEN = ("/dev/fd/", "/dev/std", "/proc/")


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Raises UserError where what is written in the block to `path` cannot be, on a full disk for example."""
    try:
        yield
    except OSError as error:
        advice = "let more files be open, as by ulimit -n 1024" if error.errno in _HANDLES else "choose another place or make room"
        raise UserError(f"{path} cannot be written ({error.strerror or error}): {advice}.") from error


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path with the same suffixes, which takes the place of `path` when the block ends without an error.

    Where `path` is a link, what it points to is replaced; what is no regular file, as a device or a pipe, is written into. Folders
    are made as needed. Raises UserError where nothing can be written.
    """
    path = Path(path)
    with writing(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        into = _is_written_into(path)
        target = path if into else path.resolve()
    folder = Path(tempfile.gettempdir()) if into else target.parent
    # A name of its own for each target, not longer than a name may be.
    digest = hashlib.sha256(os.fsencode(target)).hexdigest()[:16]
    temporary = folder / f".writing-{os.getpid()}-{digest}{''.join(target.suffixes)[-32:]}"
    try:
        with writing(path):
            folder.mkdir(parents=True, exist_ok=True)
            yield temporary
            if not into:
                temporary.replace(target)
                return
            with temporary.open("rb") as source, path.open("wb") as sink:
                shutil.copyfileobj(source, sink)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _is_written_into(path: Path) -> bool:
    return path.exists() and not path.is_file() or str(path.absolute()).startswith(_OPEN)


def check_place(path: str | Path, *, folder: bool | None = False) -> None:
    """UserError where `path` could not be written, to be told before the work that would be lost. Writes nothing.

    Args:
      path: to be written.
      folder: whether it is to be a folder; None where it may be either.
    """
    path = Path(path)
    with writing(path):
        if folder is False and path.is_dir():
            raise UserError(f"{path} is a folder: name a file.")
        if folder and path.exists() and not path.is_dir():
            raise UserError(f"{path} is no folder: name another place.")
        if any(len(os.fsencode(part)) > NAME_MAX for part in path.parts):
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        there = path if _is_written_into(path) else path.resolve().parent if path.is_file() else path.absolute()
        while not there.exists() and there != there.parent:
            there = there.parent
        if there != path and not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{there} is no folder")
        if not os.access(there, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def append_line(path: str | Path, line: str) -> None:
    """Adds a line to a text file; UserError where it cannot be written."""
    with writing(path), Path(path).open("a", encoding="utf-8", errors="surrogateescape") as file:
        file.write(line + "\n")


def write_text(path: str | Path, text: str) -> None:
    """A text file in UTF-8, replaced as a whole; UserError where it cannot be written."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")  # names of files that are in no encoding stay


def write_json(path: str | Path, value: Any) -> None:
    """A JSON file, replaced as a whole; UserError where it cannot be written."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_object(path: str | Path, advice: str) -> dict[str, Any]:
    """A JSON object. Raises UserError, which ends with the advice, where it is not there, cannot be read, or is none."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}): {advice}.") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON object: {advice}.")
    return value
