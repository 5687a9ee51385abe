"""Flags are the configuration; the user's own win over a flag file."""

import errno
import subprocess
import sys

import pytest
from absl import flags as absl_flags
from changes import CHANGES

from ica_unet_jax import launcher
from ica_unet_jax.config import Config, fields
from ica_unet_jax.errors import BadData, Interrupted, UserError


@pytest.fixture
def parse(monkeypatch):
    """parse(*arguments) -> Config, with flags of this test's own, through `flags.run`."""

    def parsed(*arguments):
        values = absl_flags.FlagValues()
        monkeypatch.setattr(launcher, "FLAGS", values)
        for kind in ("bool", "enum", "integer", "float", "list", "string"):
            define = getattr(absl_flags, f"DEFINE_{kind}")
            monkeypatch.setattr(launcher.flags, f"DEFINE_{kind}", lambda *a, define=define: define(*a, flag_values=values))
        launcher.define()
        monkeypatch.undo()
        monkeypatch.setattr(launcher, "FLAGS", values)
        result = []

        def run(main, argv):
            main(values(argv))

        monkeypatch.setattr(launcher.app, "run", run)
        monkeypatch.setattr(sys, "argv", ["program", *arguments])
        launcher.run(lambda: result.append(launcher.config()))
        return result[0]

    return parsed


def written(value):
    return ",".join(map(str, value)) if isinstance(value, tuple) else value


def test_no_flags_are_the_defaults(parse):
    assert parse() == Config()


def test_every_change_survives_the_command_line(parse):
    changes = dict(CHANGES) | {"neighbours": "both"}
    assert parse(*(f"--{name}={written(value)}" for name, value in changes.items())) == Config.make(**changes)


def test_a_flag_wins_over_the_file_wherever_it_stands(parse, tmp_path):
    inner, file = tmp_path / "inner.flags", tmp_path / "a.flags"
    inner.write_text("# a comment\n--seed=5\n--steps=6\n--bases=7\n")
    file.write_text(f"--flagfile={inner}\n--steps=8\n--bases=9\n")
    expected = dict(bases=10, steps=8, seed=5)
    for arguments in (
        ("--bases=10", f"--flagfile={file}"),
        (f"--flagfile={file}", "--bases=10"),
        ("--bases=10", "--flagfile", str(file)),
        ("--bases", "10", "--flagfile", str(file)),
    ):
        assert parse(*arguments).diff(Config()) == expected


def refusal(parse, capsys, *arguments):
    with pytest.raises(SystemExit) as left:
        parse(*arguments)
    assert left.value.code == 2
    return capsys.readouterr().err


def test_bad_input_is_one_sentence_and_exit_code_2(parse, capsys):
    assert refusal(parse, capsys, "--bases=0") == "error: --bases=0 is too small: at least 1.\n"
    assert refusal(parse, capsys, "bases=3") == "error: 'bases=3' is no flag: flags are written --name=value.\n"
    sentence = "error: --crop=10,a must be whole numbers separated by commas.\n"
    assert refusal(parse, capsys, "--crop=10,a") == sentence


@pytest.mark.parametrize(
    "error, code, told",
    [
        (Interrupted(15, " at step 3: saved"), 143, "SIGTERM at step 3: saved\n"),
        (Interrupted(2), 130, "SIGINT\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (BadData(["one.", "two."]), 2, "error: one.\ntwo.\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/x/y"),
            2,
            "error: /x/y cannot be written (No space left on device): make room, then the same command goes on.\n",
        ),
    ],
)
def test_how_a_launcher_ends(monkeypatch, capsys, error, code, told):
    def main():
        raise error

    monkeypatch.setattr(launcher.app, "run", lambda main, argv: main(argv[:1]))
    with pytest.raises(SystemExit) as left:
        launcher.run(main)
    assert left.value.code == code and capsys.readouterr().err == told


def test_an_error_of_the_program_keeps_its_traceback(monkeypatch):
    def main():
        raise PermissionError(errno.EACCES, "Permission denied", "/x/y")

    monkeypatch.setattr(launcher.app, "run", lambda main, argv: main(argv[:1]))
    with pytest.raises(PermissionError):
        launcher.run(main)


def test_a_list_that_is_no_list_of_numbers():
    assert launcher.integers("shape", ["8", " 96", "96"]) == (8, 96, 96)
    with pytest.raises(UserError, match="--shape=8,,1.5 must be whole numbers"):
        launcher.integers("shape", ["8", "", "1.5"])


def test_the_help_names_every_knob_with_its_text(parse):
    parse()
    for _, field in fields():
        assert launcher.FLAGS[field.name].help.endswith(field.metadata["help"])


def test_the_launcher_itself(tmp_path):
    """As a process: no traceback, one sentence, exit code 2, before anything is written."""
    command = [sys.executable, "-m", "ica_unet_jax.train", f"--workdir={tmp_path / 'run'}", "--crop=192,192"]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 2 and process.stdout == ""
    assert process.stderr == "error: --crop=192,192 needs three numbers: d,h,w.\n"
    assert not (tmp_path / "run").exists()
