"""Packages that only some uses need, asked for before anything is loaded."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from ica_unet_jax.errors import UserError


def missing(names: Sequence[str]) -> list[str]:
    """Those of these packages that are not installed."""
    return [name for name in names if importlib.util.find_spec(name) is None]


def require(what: str, extra: str, names: Sequence[str], otherwise: str = "") -> None:
    """Raises UserError where `what` needs one of these packages, which `extra` brings, and it is not installed; `otherwise` says what else to do."""
    if lacking := missing(names):
        raise UserError(f'{what} needs {" and ".join(lacking)}: pip install "ica-unet-jax[{extra}]"{otherwise and f", or {otherwise}"}.')
