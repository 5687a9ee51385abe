"""What JAX compiles: kept on disk from one process to the next, and counted."""

from __future__ import annotations

from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from ica_unet_jax.data.cache import default_cache_dir

_EVENT = "/jax/core/compile/backend_compile_duration"


def keep_on_disk() -> None:
    """Compiled functions are kept in the user's cache folder, unless JAX was told another place.

    A network compiles in half a minute on a small machine and loads in a second.
    """
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(default_cache_dir() / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        compilation_cache.reset_cache()  # JAX looks at these settings once, at its first compilation


class Compilations:
    """`with Compilations() as found: ...; found.count`: compilations while the block runs, in all threads.

    What is loaded from disk counts too.
    """

    def __enter__(self) -> Compilations:
        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self._heard)
        return self

    def __exit__(self, *_) -> None:
        jax.monitoring.unregister_event_duration_listener(self._heard)

    def _heard(self, event: str, duration: float, **_: Any) -> None:
        self.count += event == _EVENT
