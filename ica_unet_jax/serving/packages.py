"""The packages that a protocol needs, asked for before anything is loaded."""

from __future__ import annotations

import importlib.util

from ica_unet_jax.errors import UserError

NEEDED = {"mrd": ("ismrmrd",), "openigtlink": ("pyigtl",), "http": ("starlette", "uvicorn")}


def require(protocol: str) -> None:
    """Raises UserError where a package of the protocol is not installed."""
    if missing := [name for name in NEEDED[protocol] if not importlib.util.find_spec(name)]:
        raise UserError(f"--protocol={protocol} needs {' and '.join(missing)}: pip install '.[scanner]'.")
