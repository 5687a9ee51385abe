"""Reads launch files: the settings that one names, as `--flagfile` would set them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from ica_unet_jax.config import fields
from ica_unet_jax.errors import UserError
from ica_unet_jax.knobs import Value

_WORDS = dict.fromkeys(("true", "t", "1"), True) | dict.fromkeys(("false", "f", "0"), False)  # absl's


def read(path: str | Path, other: Collection[str] = ()) -> dict[str, Value]:
    """{setting: value} of the lines `--name=value`, `--flag` and `--noflag`; a later line wins.

    Whether the values are in their ranges and go together is `Config`'s to say.

    Args:
      path: of the launch file. Empty lines and those that begin with # or // say nothing.
      other: flags of a launcher that are no settings, as "studies"; they are left out.

    Raises:
      UserError: the file cannot be read, a line is no flag of a known name, or its value is of the wrong kind.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({getattr(error, 'strerror', 'no text')}): name a launch file.") from error
    found: dict[str, Value] = {}
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith(("#", "//")):
            continue
        try:
            name, value = _setting(line, other)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: {error}.") from None
        if name not in other:
            found[name] = value
    return found


def _setting(line: str, other: Collection[str]) -> tuple[str, Any]:
    """(name, value) of a line; ValueError with what is wrong."""
    name, equals, text = line.removeprefix("-").removeprefix("-").partition("=")
    if not line.startswith("-") or not name or " " in name:
        raise ValueError(f"'{line}' is no flag: flags are written --name=value")
    known = {field.name: field for _, field in fields()}
    switched_off = name.removeprefix("no")
    if not equals and name not in known and switched_off in {*known, *other}:
        name, text = switched_off, "false"
    if name in other:
        return name, None
    if name not in known:
        raise ValueError(f"--{name} is no setting of this version: remove it, or see --help for the names")
    field = known[name]
    if isinstance(field.default, bool):
        value = _WORDS.get((text if equals or text else "true").lower())
        if value is None:
            raise ValueError(f"--{name}={text} must be true or false")
        return name, value
    if not equals:
        raise ValueError(f"--{name} needs a value: --{name}=VALUE")
    choices = field.metadata["choices"]
    if choices is not None and text not in choices:
        raise ValueError(f"--{name}={text} is not known: choose one of {', '.join(map(str, choices))}")
    return name, _typed(name, text, field.default)


def _typed(name: str, text: str, default: Value) -> Value:
    """The text as a value of the default's type; ValueError where it is none."""
    kind = "a whole number" if isinstance(default, int) else "a number"
    try:
        if isinstance(default, tuple):
            kind = "whole numbers separated by commas"
            return tuple(int(part) for part in text.split(","))
        return type(default)(text)
    except ValueError:
        raise ValueError(f"--{name}={text} must be {kind}") from None
