"""Packages that only some uses need, asked for before anything is loaded."""

from __future__ import annotations

import importlib.util

from ica_unet_jax.errors import UserError


def require(flag: str, *names: str) -> None:
    """Raises UserError where a package that the `flag` needs, of the extra [scanner], is not installed."""
    if missing := [name for name in names if not importlib.util.find_spec(name)]:
        raise UserError(f"{flag} needs {' and '.join(missing)}: pip install '.[scanner]'.")
