"""Command-line flags made from the configuration, and the frame that every launcher runs in."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterable

from absl import app, flags, logging

from ica_unet_jax.config import Config, fields
from ica_unet_jax.errors import Interrupted, UserError
from ica_unet_jax.runtime import memory

FLAGS = flags.FLAGS


def define(names: Iterable[str] | None = None) -> None:
    """One absl flag per knob of `Config` (or for `names` alone), same name, same default."""
    defaults = Config().flat()
    for _, field in fields():
        if names is not None and field.name not in names:
            continue
        value, text, choices = defaults[field.name], field.metadata["help"], field.metadata["choices"]
        if isinstance(value, bool):
            flags.DEFINE_bool(field.name, value, text)
        elif choices is not None:
            flags.DEFINE_enum(field.name, value, choices, text)
        elif isinstance(value, int):
            flags.DEFINE_integer(field.name, value, text)
        elif isinstance(value, float):
            flags.DEFINE_float(field.name, value, text)
        elif isinstance(value, tuple):
            flags.DEFINE_list(field.name, [str(v) for v in value], text)
        else:
            flags.DEFINE_string(field.name, value, text)


def config(without: Iterable[str] = ()) -> Config:
    """The configuration that the parsed flags describe, with the defaults of the knobs named in `without`.

    Raises:
      UserError: a value is out of its range, or two contradict each other.
    """
    values = {f.name: FLAGS[f.name].value for _, f in fields() if f.name in FLAGS and f.name not in without}
    for name, default in Config().flat().items():
        if isinstance(default, tuple) and name in values:
            values[name] = integers(name, values[name])
    return Config.make(**values)


def integers(name: str, values: list[str]) -> tuple[int, ...]:
    """A list flag as whole numbers; UserError where it is none."""
    try:
        return tuple(int(v) for v in values)
    except ValueError:
        raise UserError(f"--{name}={','.join(values)} must be whole numbers separated by commas.") from None


def run(main: Callable[[], None]) -> None:
    """Runs a launcher: parses the flags, calls `main()`, and turns bad input into one sentence and exit code 2."""
    # absl lets a flag file win over what stands before it; people expect their own flags to win wherever they stand.
    arguments = sys.argv[1:]
    files = _flagfiles(arguments)
    argv = [sys.argv[0], *files, *(a for a in arguments if a not in files)]

    def guarded(rest: list[str]) -> None:
        # orbax announces every save, and shows tracebacks of what is then told in a sentence.
        logging.set_verbosity(logging.FATAL)
        memory.keep_freed()
        try:
            if len(rest) > 1:
                raise UserError(f"'{rest[1]}' is no flag: flags are written --name=value.")
            main()
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            _leave(2)
        except Interrupted as stop:
            print(stop, file=sys.stderr)
            sys.exit(128 + stop.number)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            where = f"{error.filename} cannot be written" if error.filename else "nothing more can be written"
            print(f"error: {where} ({error.strerror}): make room, then the same command goes on.", file=sys.stderr)
            _leave(2)

    app.run(guarded, argv=argv)


def _leave(code: int) -> None:
    """Ends the process; at once where others belong to it, for whom JAX would otherwise wait, and they for this one."""
    jax = sys.modules.get("jax")  # a wrong flag is told before it is imported
    if jax and jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _flagfiles(arguments: list[str]) -> list[str]:
    joined = [a for a in arguments if a.startswith(("--flagfile=", "-flagfile="))]
    for flag, value in zip(arguments, arguments[1:], strict=False):
        if flag in ("--flagfile", "-flagfile"):
            joined += [flag, value]
    return joined
