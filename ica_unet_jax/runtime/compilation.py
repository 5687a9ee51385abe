"""Compilation by JAX: options for one window, programs kept on disk for the next process, a count of compilations."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache
from jax.experimental.xla_metadata import set_xla_metadata

from ica_unet_jax.runtime import workers
from ica_unet_jax.runtime.paths import compiled_dir

Function = Callable[..., Any]

_EVENT = "/jax/core/compile/backend_compile_duration"
_plain = ContextVar("plain", default=False)


def threads() -> int:
    """As many as XLA computes with on this CPU: the cores that the process may use."""
    return workers.cores()


def keep_on_disk() -> None:
    """Compiled functions are kept in the user's cache folder, unless JAX was told another place.

    A network compiles in half a minute on a small machine and loads in a second.
    """
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(compiled_dir(threads())))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        compilation_cache.reset_cache()  # JAX looks at these settings once, at its first compilation


@functools.cache
def one_window_options() -> dict[str, str | bool]:
    """Options of the compiler for a network that sees one window at a time; none where this version of XLA lacks them.

    The convolutions that XLA takes on CPUs by default divide a batch among the threads, and one window is no batch. Its
    others divide a window too; a training step, which has a batch, is faster without them.
    """
    options = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT"}
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda x: x).lower(0.0).compile(options)
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" not in str(error):
            raise
        return {}
    return options


def is_plain() -> bool:
    """Whether a layer is traced as it is meant; otherwise in the form of which XLA makes the fastest code on CPUs."""
    return _plain.get() or jax.default_backend() != "cpu"


def is_for_elsewhere() -> bool:
    """Whether what is traced will be run by another runtime, and has no gradient: a table of places instead of many slices."""
    return _plain.get()


def apart(*static: int) -> Callable[[Function], Function]:
    """A decorator: on CPUs XLA compiles the function by itself, and fuses nothing inside with anything outside.

    XLA fuses element-wise work into everything that reads it and does it anew for each reader, and what moves data about then
    runs value by value. `optimization_barrier` does not keep it from that on CPUs; a call that is not inlined does.

    Arguments of the numbers `static` are not traced. Write the function with `jax.lax`: operations of `jax.numpy` are
    functions of their own, and would be compiled apart from each other.
    """

    def decorate(function: Function) -> Function:
        compiled = jax.jit(function, static_argnums=static)

        @functools.wraps(function)
        def call(*arguments: Any) -> Any:
            if is_plain():
                return function(*arguments)
            with set_xla_metadata(inlineable="false"):
                return compiled(*arguments)

        return call

    return decorate


@apart()
def _passed(x: Any) -> Any:
    return x


@jax.custom_vjp
def once(x: Any) -> Any:
    """`x`, an array or a tree of some, and in the other direction its gradient: on CPUs computed once for all readers.

    For the value of a long chain of element-wise work that several chains or a convolution read; see `apart`.
    """
    return _passed(x)


once.defvjp(lambda x: (_passed(x), None), lambda _, gradient: (_passed(gradient),))


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """What is traced in this block is written as it is meant, in few operations: for other platforms and other runtimes."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


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
