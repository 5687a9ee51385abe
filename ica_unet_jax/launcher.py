"""Makes command-line flags from the configuration, and holds what every command does round its own work."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable, Iterable

from absl import flags, logging

import ica_unet_jax
from ica_unet_jax import command_line
from ica_unet_jax.config import Config, fields, unread
from ica_unet_jax.errors import Interrupted, UserError
from ica_unet_jax.knobs import Value
from ica_unet_jax.runtime import environment, files, memory, streams
from ica_unet_jax.runtime.interruption import Interruption, leave

FLAGS = flags.FLAGS
GROUPS = {"model": "Network", "loss": "Loss", "data": "Data", "train": "Training"}
_NO_ROOM, _NO_HANDLES = (errno.ENOSPC, errno.EDQUOT), (errno.EMFILE, errno.ENFILE)
# Flags that name what a command writes, of all commands, and whether that is a folder; None: either. See `files.check_place`.
_PLACES = {"json": False, "gif": False, "output": None, "out": None}


def define(names: Iterable[str] | None = None) -> None:
    """One absl flag per knob of `Config` (or for `names` alone), same name, same default."""
    defaults = Config().flat()
    for part, field in fields():
        if names is not None and field.name not in names:
            continue
        value, text, choices = defaults[field.name], field.metadata["help"], field.metadata["choices"]
        where = dict(flag_values=FLAGS, module_name=GROUPS[part])  # the help groups by it
        if isinstance(value, bool):
            flags.DEFINE_bool(field.name, value, text, **where)
        elif choices is not None:
            flags.DEFINE_enum(field.name, value, choices, text, **where)
        elif isinstance(value, int):
            flags.DEFINE_integer(field.name, value, text, **where)
        elif isinstance(value, float):
            flags.DEFINE_float(field.name, value, text, **where)
        elif isinstance(value, tuple):
            flags.DEFINE_list(field.name, [str(v) for v in value], text, **where)
        else:
            flags.DEFINE_string(field.name, value, text, **where)


def config(without: Iterable[str] = (), several_networks: bool = False) -> Config:
    """The configuration that the parsed flags describe, with the defaults of the knobs named in `without`.

    What the chosen network does not read is refused where it was typed; from a launch file it is left out with a line on stderr.
    Not so with `several_networks`, of which the configuration is the common ground: others may read it.

    Raises:
      UserError: a value is out of its range, two contradict each other, or the network does not read what was typed.
    """
    defaults = Config().flat()
    values = {f.name: FLAGS[f.name].value for _, f in fields() if f.name in FLAGS and f.name not in without}
    for name, default in defaults.items():
        if isinstance(default, tuple) and name in values:
            values[name] = integers(name, values[name])
    if not several_networks:
        idle = unread(defaults | values)
        if typed := [name for name in values if name in idle & command_line.typed(sys.argv[1:], FLAGS)]:
            raise UserError(f"{_listed(typed)} would change nothing with {_network(defaults | values)}: leave {'them' if typed[1:] else 'it'} out.")
        if dropped := [name for name in values if name in idle and values[name] != defaults[name]]:
            print(f"note: {_listed(dropped)} of the launch file would change nothing with {_network(defaults | values)}: left out.", file=sys.stderr)
        values = {name: value for name, value in values.items() if name not in idle}
    return Config.make(**values)


def _network(values: dict[str, Value]) -> str:
    """The flags that say which settings are read."""
    named = ["model"] if "mixing" in unread(values) else ["model", "mixing"]
    return " ".join(f"--{name}={values[name]}" for name in named)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"--{name}" for name in names)


def integers(name: str, values: list[str]) -> tuple[int, ...]:
    """A list flag as whole numbers; UserError where it is none."""
    try:
        return tuple(int(v) for v in values)
    except ValueError:
        raise UserError(f"--{name}={','.join(values)} must be whole numbers separated by commas.") from None


def run(main: Callable[[], None]) -> None:
    """Runs a launcher: parses the flags, calls `main()`, and turns bad input into one sentence and exit code 2.

    With --help it lists the flags instead, with --version it tells the version. A signal ends it with exit code 128 + its number,
    at once or where `main` has something to save; a closed pipe ends it in silence.
    """
    with streams.for_people():
        try:
            with Interruption():
                _run(main, sys.argv[1:])
        except UserError as error:
            _refuse(str(error))
        except KeyboardInterrupt as stop:
            number = stop.number if isinstance(stop, Interrupted) else signal.SIGINT
            print(stop if isinstance(stop, Interrupted) else "SIGINT", file=sys.stderr)
            _flush()
            leave(number)
        except Exception as error:
            _refuse(_explained(error))


def _run(main: Callable[[], None], arguments: list[str]) -> None:
    if command_line.HELP & set(arguments):
        print(command_line.help_text(sys.modules[main.__module__].__doc__ or "", FLAGS, list(GROUPS.values())))
        return
    if command_line.VERSION & set(arguments):
        print(f"ica_unet_jax {ica_unet_jax.__version__}")
        return
    environment.settle()
    command_line.parse(arguments, FLAGS)
    for name, folder in _PLACES.items():
        if name in FLAGS and FLAGS[name].value:
            files.check_place(FLAGS[name].value, folder=folder)
    if "workdir" in FLAGS and FLAGS.find_module_defining_flag("workdir") == GROUPS["train"]:  # a training's own; elsewhere it is read
        files.check_place(FLAGS["workdir"].value, folder=True)
    # orbax announces every save, and shows tracebacks of what is then told in a sentence.
    logging.set_verbosity(logging.FATAL)
    memory.keep_freed()
    main()


def _explained(error: Exception) -> str:
    """What the user can do about an error that the machine has made; of the program's own ones it is raised again."""
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        where = f"{error.filename} cannot be written" if error.filename else "nothing more can be written"
        return f"{where} ({error.strerror}): make room, then the same command goes on."
    if isinstance(error, OSError) and error.errno in _NO_HANDLES:
        return f"no more files can be opened ({error.strerror}): raise the limit, as by ulimit -n 1024; then the same command goes on."
    if missing := environment.missing_device():
        return missing
    raise error


def _refuse(sentence: str) -> None:
    print(f"error: {sentence}", file=sys.stderr)
    _leave(2)


def _leave(code: int) -> None:
    """Ends the process; at once where others belong to it, for whom JAX would otherwise wait, and they for this one."""
    jax = sys.modules.get("jax")  # a wrong flag is told before it is imported
    if jax and jax.distributed.is_initialized():
        _flush()
        os._exit(code)
    sys.exit(code)


def _flush() -> None:
    with contextlib.suppress(SystemExit):  # nobody reads it
        sys.stdout.flush()
    sys.stderr.flush()
