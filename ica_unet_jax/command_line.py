"""Reads a command line: typed flags and flags of launch files, the help, and one sentence for what is wrong."""

from __future__ import annotations

import difflib
import math
import os
import re
import textwrap
from collections.abc import Container, Sequence

from absl import flags

from ica_unet_jax.errors import UserError

HELP, VERSION = {"--help", "-help", "-h", "--helpfull"}, {"--version", "-version"}
_FLAGFILE = ("--flagfile", "-flagfile")


def parse(arguments: Sequence[str], values: flags.FlagValues) -> None:
    """Sets the flags. What is typed wins over a launch file wherever it stands, and ~ is the home folder in every value.

    Raises:
      UserError: a flag is not known, lacks its value or has one that cannot be, a number is not finite, there is no home folder for a
        ~, or a launch file cannot be read.
    """
    files, typed = _split(arguments)
    try:
        rest = values(["", *files, *typed])  # absl lets the last one win
    except (flags.Error, ValueError, UnicodeDecodeError) as error:
        raise UserError(_sentence(error, values)) from error
    if len(rest) > 1:
        raise UserError(f"'{rest[1]}' is no flag: flags are written --name=value.")
    for name in values:
        flag = values[name]
        if isinstance(flag.value, str):
            flag.value = _expanded(name, flag.value)
        elif isinstance(flag.value, list):
            flag.value = [_expanded(name, value) for value in flag.value]
        elif isinstance(flag.value, float) and not math.isfinite(flag.value):
            raise UserError(f"--{name}={flag.value} must be a finite number.")


def typed(arguments: Sequence[str], known: Container[str]) -> set[str]:
    """The names of the flags that were typed, not read from a launch file."""
    names = [argument.lstrip("-").partition("=")[0] for argument in _split(arguments)[1] if argument.startswith("-")]
    return {name if name in known else name.removeprefix("no") for name in names}


def help_text(description: str, values: flags.FlagValues, groups: Sequence[str]) -> str:
    """A command's flags: its own first, then the settings of those groups, each with its default."""
    by_group = values.flags_by_module_dict()
    own = [flag for group, found in by_group.items() if group not in groups and not group.startswith("absl.") for flag in found]
    parts = [textwrap.dedent(description).strip(), _section("This command", own)]
    parts += [_section(group, by_group[group]) for group in groups if group in by_group]
    return "\n\n".join([*filter(None, parts), "--flagfile=FILE reads flags from a launch file; those that are typed win."])


def _section(title: str, found: Sequence[flags.Flag]) -> str:
    lines = [title]
    for flag in found:
        text = " ".join(flag.help.split())
        if isinstance(flag, flags.EnumFlag):
            text = f"{text.partition('>: ')[2]} One of {', '.join(flag.parser.enum_values)}."
        shown = f"--[no]{flag.name}" if flag.boolean else f"--{flag.name}={_text(flag.default)}"
        remark = "  (needed)" if _needed(flag) else "  (on)" if flag.boolean and flag.default else ""
        lines += [f"  {shown}{remark}", *textwrap.wrap(text, 110, initial_indent=" " * 6, subsequent_indent=" " * 6)]
    return "\n".join(lines) if found else ""


def _text(default: object) -> str:
    return ",".join(map(str, default)) if isinstance(default, list | tuple) else "" if default is None else str(default)


def _needed(flag: flags.Flag) -> bool:
    return flag.default is None and any("must have a value" in validator.message for validator in flag.validators)


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments that name launch files, and the others; each in order."""
    files: list[str] = []
    others: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument in _FLAGFILE:
            files += [argument, *([value] if (value := next(rest, None)) is not None else [])]
        else:
            (files if argument.startswith(tuple(f"{flag}=" for flag in _FLAGFILE)) else others).append(argument)
    return files, others


def _expanded(name: str, text: str) -> str:
    path = os.path.expanduser(text) if text.startswith("~") else text
    if path == "~" or path.startswith("~/"):
        raise UserError(f"--{name}={text}: there is no home folder here; write the whole path.")
    return path


def _sentence(error: Exception, values: flags.FlagValues) -> str:
    """absl's complaint as one sentence that says what to do."""
    text = " ".join(str(error).split())
    if isinstance(error, flags.UnrecognizedFlagError):
        near = [f"--{name} is, and" for name in difflib.get_close_matches(error.flagname, list(values), n=1)]
        return " ".join([f"--{error.flagname} is no flag of this command:", *near, "--help lists them all."])
    if isinstance(error, flags.CantOpenFlagFileError | UnicodeDecodeError):
        return f"--flagfile cannot be read ({text.rpartition('flagfile: ')[2]}): name a launch file."
    if wrong := re.match(r"flag --(\w+)=(.*?): ", text):
        return _wrong_value(values[wrong[1]], wrong[2])
    if missing := re.match(r"Missing value for flag -*(\w+)|-*(flagfile) with no argument", text):
        name = missing[1] or missing[2]
        return f"--{name} needs a value: --{name}=VALUE."
    return f"{text}: flags are written --name=value."  # --noflag=value


def _wrong_value(flag: flags.Flag, value: str) -> str:
    if _needed(flag) and flag.value is None and value == "None":
        first = flag.help[:1] if flag.help[:2].isupper() else flag.help[:1].lower()  # NIfTI stays so
        return f"--{flag.name} is needed: {first}{flag.help[1:]}"
    if isinstance(flag, flags.EnumFlag):
        return f"--{flag.name}={value} is not known: choose one of {', '.join(flag.parser.enum_values)}."
    kind = "true or false" if flag.boolean else re.sub(r"^(an? )?(.*)integer", r"a \2whole number", flag.parser.syntactic_help)
    return f"--{flag.name}={value} must be {kind}."
