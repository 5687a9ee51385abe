"""What a shell, a notebook or a container leaves to a command: variables, limits of the system, a home folder or none."""

from __future__ import annotations

import contextlib
import locale
import os
import sys

from ica_unet_jax.errors import UserError

# Of JAX: they change what a program computes, or let nothing be compiled. Its results are to be those of the flags alone.
_IGNORED = (
    "JAX_ENABLE_X64", "JAX_DISABLE_JIT", "JAX_NUMPY_DTYPE_PROMOTION", "JAX_DEFAULT_DTYPE_BITS", "JAX_TRANSFER_GUARD",
    "JAX_CHECK_TRACER_LEAKS",
)  # fmt: skip
_OFF = ("", "0", "false", "off", "no", "standard", "allow")
_MOST_HANDLES = 65536
_OTHER_HANDLES = 100  # of libraries, logs and a checkpoint that is being written


def settle() -> None:
    """Makes the process ready, before JAX is imported: what a command needs is set, what would break it is left out, with a line."""
    os.environ["MPLBACKEND"] = "agg"  # pictures go to files; a notebook's backend may not be installed here
    for name in _IGNORED:
        if os.environ.pop(name, "").lower() not in _OFF:
            print(f"note: {name} of the environment is left out: what is computed is the flags' to say.", file=sys.stderr)
    with contextlib.suppress(locale.Error):
        if locale.getencoding().lower() not in ("utf-8", "utf8"):
            locale.setlocale(locale.LC_CTYPE, "C.UTF-8")  # launch files are read so, and whatever names no encoding
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource  # of POSIX

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = _MOST_HANDLES if hard == resource.RLIM_INFINITY else min(hard, _MOST_HANDLES)
        if soft != resource.RLIM_INFINITY and soft < most:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def require_handles(count: int) -> None:
    """UserError where so many files cannot be open at once, with those that a process needs anyway."""
    with contextlib.suppress(ImportError):
        import resource

        limit, needed = resource.getrlimit(resource.RLIMIT_NOFILE)[0], count + _OTHER_HANDLES
        if limit != resource.RLIM_INFINITY and limit < needed:
            raise UserError(f"{needed} files are to be open at once, but the system allows {limit}: raise its limit, as by ulimit -n {needed}.")


def missing_device() -> str:
    """A sentence where JAX_PLATFORMS asks for a device that is not there, else ""; for after something has failed."""
    asked, jax = os.environ.get("JAX_PLATFORMS"), sys.modules.get("jax")
    if not asked or not jax:
        return ""
    try:
        jax.devices()
    except Exception:  # JAX raises whatever the platform's own code does, AssertionError too
        return f"JAX_PLATFORMS={asked} asks for a device that JAX does not find here: unset it, or set it to cpu."
    return ""
