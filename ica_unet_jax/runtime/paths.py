"""Default places: the checkout, the user's cache, compiled programs."""

from __future__ import annotations

from pathlib import Path

from platformdirs import user_cache_path

# The folder that holds the package: the checkout, with launch/ and ablations/ beside it, or where pip has put the wheel.
ROOT = Path(__file__).resolve().parents[2]


def default_cache_dir() -> Path:
    """ica_unet_jax inside the user's cache folder: that of the system, or $XDG_CACHE_HOME."""
    return user_cache_path("ica_unet_jax", appauthor=False)


def compiled_dir(threads: int) -> Path:
    """Where programs are kept that XLA has compiled for so many threads.

    It divides work among the threads that it finds when it compiles, and JAX's cache does not tell such programs apart: what
    was compiled on one core would be loaded, and run on one, where there are more.
    """
    return default_cache_dir() / "compiled" / str(threads)
