"""Writes files whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ica_unet_jax.errors import UserError


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Raises UserError where what is written in the block to `path` cannot be, on a full disk for example."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path} cannot be written ({reason}): choose another place or make room.") from error


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path with the same suffixes, which takes the place of `path` when the block ends without an error.

    Folders are made as needed. Raises UserError where nothing can be written.
    """
    path = Path(path)
    temporary = path.with_name(f".writing-{os.getpid()}-{path.name}")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def append_line(path: str | Path, line: str) -> None:
    """Adds a line to a text file; UserError where it cannot be written."""
    with writing(path), Path(path).open("a") as file:
        file.write(line + "\n")


def write_text(path: str | Path, text: str) -> None:
    """A text file, replaced as a whole; UserError where it cannot be written."""
    with replacing(path) as temporary:
        temporary.write_text(text)


def write_json(path: str | Path, value: Any) -> None:
    """A JSON file, replaced as a whole; UserError where it cannot be written."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_object(path: str | Path, advice: str) -> dict[str, Any]:
    """A JSON object. Raises UserError, which ends with the advice, where it is not there, cannot be read, or is none."""
    try:
        value = json.loads(Path(path).read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}): {advice}.") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON object: {advice}.")
    return value
