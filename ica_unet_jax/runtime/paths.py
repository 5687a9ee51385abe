"""Default places: the checkout, the user's cache, compiled programs."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from platformdirs import user_cache_path

from ica_unet_jax.errors import UserError

# The folder that holds the package: the checkout, with launch/ and ablations/ beside it, or where pip has put the wheel.
ROOT = Path(__file__).resolve().parents[2]


def default_cache_dir() -> Path:
    """ica_unet_jax inside the user's cache folder: that of the system, or $XDG_CACHE_HOME.

    A user who has no home folder that can be written, as `docker -u` makes one, gets a folder below the temporary ones.

    Raises:
      UserError: there, another user has a folder of this name: programs in it would be run.
    """
    with contextlib.suppress(RuntimeError, OSError):  # RuntimeError: no home
        folder = user_cache_path("ica_unet_jax", appauthor=False)
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    user = os.getuid() if hasattr(os, "getuid") else ""
    folder = Path(tempfile.gettempdir()) / f"ica_unet_jax-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or user != "" and (folder.stat().st_uid != user or folder.stat().st_mode & 0o022):
        raise UserError(f"there is no home folder, and others may write to {folder}: name a cache folder by XDG_CACHE_HOME.")
    return folder


def compiled_dir(threads: int) -> Path:
    """Where programs are kept that XLA has compiled for so many threads.

    It divides work among the threads that it finds when it compiles, and JAX's cache does not tell such programs apart: what
    was compiled on one core would be loaded, and run on one, where there are more.
    """
    return default_cache_dir() / "compiled" / str(threads)
