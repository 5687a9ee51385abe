"""`python -m ica_unet_jax` lists the commands, `python -m ica_unet_jax train ...` runs one; so does `ica-unet-jax`, where it is installed."""

from __future__ import annotations

import ast
import difflib
import importlib.util
import runpy
import sys

import ica_unet_jax
from ica_unet_jax import command_line
from ica_unet_jax.runtime import streams

COMMANDS = (
    "train", "evaluate", "predict", "stream", "serve", "export", "robustness", "cross_validate", "benchmark", "tables", "decompose", "curves", "check_data", "convert", "phantom",
)  # fmt: skip


def main() -> None:
    """Runs the command that is named first, as `python -m ica_unet_jax.COMMAND` would; exit code 2 where there is none of that name."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in command_line.HELP:
        with streams.for_people():
            print(listing())
    elif name in command_line.VERSION:
        print(f"ica_unet_jax {ica_unet_jax.__version__}")
    elif name in COMMANDS:
        sys.argv = [f"ica_unet_jax.{name}", *arguments]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        near = [f"{other} is, and" for other in difflib.get_close_matches(name, COMMANDS, n=1)]
        print(" ".join([f"error: {name} is no command:", *near, "python -m ica_unet_jax lists them all."]), file=sys.stderr)
        sys.exit(2)


def listing() -> str:
    """The commands with a line each, the first of their docstrings; none of them is imported."""
    lines = [f"  {name:<{max(map(len, COMMANDS))}}  {_summary(name)}" for name in COMMANDS]
    return "\n".join([ica_unet_jax.__doc__ or "", "", *lines, "", "Each lists its flags with --help: python -m ica_unet_jax.train --help"])


def _summary(name: str) -> str:
    spec = importlib.util.find_spec(f"ica_unet_jax.{name}")
    first, *_ = ast.get_docstring(ast.parse(spec.loader.get_source(spec.name))).splitlines()
    return first.partition(": `")[0].rstrip(".") + "."


if __name__ == "__main__":
    main()
