"""What JAX compiles: for one window, kept on disk from one process to the next, and counted."""

from __future__ import annotations

import functools
import os
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from ica_unet_jax.data.cache import compiled_dir

_EVENT = "/jax/core/compile/backend_compile_duration"


def threads() -> int:
    """As many as XLA computes with on this CPU: the cores that the process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_on_disk() -> None:
    """Compiled functions are kept in the user's cache folder, unless JAX was told another place.

    A network compiles in half a minute on a small machine and loads in a second.
    """
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(compiled_dir(threads())))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        compilation_cache.reset_cache()  # JAX looks at these settings once, at its first compilation


@functools.cache
def one_window_options() -> dict[str, str]:
    """Options of the compiler for a network that sees one window at a time; none where this version of XLA lacks them.

    The convolutions that XLA takes on CPUs by default divide a batch among the threads, and one window is no batch. Its
    others divide a window too; a training step, which has a batch, is faster without them.
    """
    options = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT"}
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda x: x).lower(0.0).compile(options)
    except jax.errors.JaxRuntimeError:  # "No such compile option"
        return {}
    return options


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
