"""What a setting is made of: a dataclass field with its help text and its allowed values."""

from __future__ import annotations

import dataclasses
from typing import Any

from ica_unet_jax.errors import UserError

Value = Any


def knob(default: Value, text: str, *, choices=None, low=None, high=None) -> Value:
    """A dataclass field with its help text and its admissible values."""
    return dataclasses.field(default=default, metadata=dict(help=text, choices=choices, low=low, high=high))


class Part:
    """Base of a part of the configuration: checks every field against its declared choices and bounds."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value, meta = getattr(self, field.name), field.metadata
            if value in (None, "") and value == field.default:  # not given
                continue
            if meta["choices"] is not None and value not in meta["choices"]:
                options = ", ".join(map(str, meta["choices"]))
                raise UserError(f"--{field.name}={value} is not known: choose one of {options}.")
            if meta["low"] is not None and not value >= meta["low"]:
                raise UserError(f"--{field.name}={value} is too small: at least {meta['low']}.")
            if meta["high"] is not None and not value <= meta["high"]:
                raise UserError(f"--{field.name}={value} is too large: at most {meta['high']}.")
