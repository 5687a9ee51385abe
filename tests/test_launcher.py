"""Flags are the configuration; the user's own win over a flag file."""

import errno
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from absl import flags
from changes import CHANGES
from places import ROOT

import ica_unet_jax
from ica_unet_jax import launcher
from ica_unet_jax.config import Config, fields, unread
from ica_unet_jax.errors import BadData, Interrupted, UserError

TOO_MANY = (
    "error: no more files can be opened (Too many open files): raise the limit, as by ulimit -n 1024; then the same command goes on.\n"
)
ACDC = f"--flagfile={ROOT}/launch/acdc.flags"


@pytest.fixture
def command(monkeypatch):
    """command(main, *arguments) runs `main` as a command with flags of this test's own, a setting each."""
    monkeypatch.setattr(launcher, "FLAGS", flags.FlagValues())
    launcher.define()

    def run(main, *arguments):
        monkeypatch.setattr(sys, "argv", ["program", *arguments])
        launcher.FLAGS.unparse_flags()
        launcher.run(main)

    return run


@pytest.fixture
def parse(command):
    """parse(*arguments) -> the `Config` that a command sees; the keywords are those of `launcher.config`."""

    def parsed(*arguments, **keywords):
        result = []
        command(lambda: result.append(launcher.config(**keywords)), *arguments)
        return result[0]

    return parsed


def never():
    pytest.fail("a command that was not to run")


def written(value):
    return ",".join(map(str, value)) if isinstance(value, tuple) else value


def test_no_flags_are_the_defaults(parse):
    assert parse() == Config()


def test_every_change_survives_the_command_line(parse):
    changes = dict(CHANGES) | {"neighbours": "both", "separate_ica_steps": 0}  # these have another network
    given = [f"--{name}={written(value)}" for name, value in changes.items()]
    assert parse(*given, several_networks=True) == Config.make(**changes)


def test_a_flag_that_the_network_reads_is_the_setting(parse):
    """One network after the other, as a setting that it does not read cannot be given."""
    for model in ("ica_unet", "unet3d", "msu_net"):
        read = {name: value for name, value in CHANGES if name not in unread(Config.make(model=model).flat()) | {"model", "neighbours"}}
        read |= {"model": model, "mixing": "ica"} if model == "ica_unet" else {"model": model}
        if model == "msu_net":
            read.pop("distillation_weight")
        if model != "ica_unet":
            read.pop("separate_ica_steps")
        made = parse(*(f"--{name}={written(value)}" for name, value in read.items()))
        assert made == Config.make(**read)


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
    "argument, told",
    [
        ("--basis=3", "--basis is no flag of this command: --bases is, and --help lists them all."),
        ("--xyzxyz", "--xyzxyz is no flag of this command: --help lists them all."),
        ("--steps=many", "--steps=many must be a whole number."),
        ("--alpha=x", "--alpha=x must be a number."),
        ("--flip=perhaps", "--flip=perhaps must be true or false."),
        ("--noflip=1", "--noflip=1 does not take an argument: flags are written --name=value."),
        ("--norm=none", "--norm=none is not known: choose one of batch, group."),
        ("--steps", "--steps needs a value: --steps=VALUE."),
        ("--flagfile", "--flagfile needs a value: --flagfile=VALUE."),
        ("--flagfile=/no/file", "--flagfile cannot be read ([Errno 2] No such file or directory: '/no/file'): name a launch file."),
    ],
)
def test_a_wrong_flag_is_told_as_all_bad_input_is(parse, capsys, argument, told):
    assert refusal(parse, capsys, argument) == f"error: {told}\n"


def test_a_flag_that_is_needed_and_one_with_a_bound(command, capsys):
    flags.DEFINE_string("out", None, "New folder.", flag_values=launcher.FLAGS, required=True)
    flags.DEFINE_integer("patients", 20, "How many.", lower_bound=1, flag_values=launcher.FLAGS)
    flags.DEFINE_string("like", None, "NIfTI image.", flag_values=launcher.FLAGS, required=True)
    for arguments, told in (
        ((), "--out is needed: new folder."),
        (["--out=a"], "--like is needed: NIfTI image."),
        (["--out=a", "--like=b", "--patients=0"], "--patients=0 must be a positive whole number."),
    ):
        with pytest.raises(SystemExit) as left:
            command(never, *arguments)
        assert left.value.code == 2 and capsys.readouterr().err == f"error: {told}\n"


def test_a_launch_file_that_is_no_text(parse, capsys, tmp_path):
    (tmp_path / "a.flags").write_bytes(b"\xff\xfe")
    assert "--flagfile cannot be read" in refusal(parse, capsys, f"--flagfile={tmp_path / 'a.flags'}")


# --- what the network does not read ---


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["--model=unet3d", "--bases=64"], "--bases would change nothing with --model=unet3d: leave it out."),
        (["--bases", "32", "--model", "unet3d"], "--bases would change nothing with --model=unet3d: leave it out."),  # be it the default
        (["--model=unet2d", "--noremat"], "--remat would change nothing with --model=unet2d: leave it out."),
        (["--span=3"], "--span would change nothing with --model=ica_unet --mixing=ica: leave it out."),
        (["--unet_width=8", "--sources=2"], "--unet_width, --sources would change nothing with --model=ica_unet --mixing=ica: leave them out."),
        (["--model=grid_net", "--ica_weight=0.1"], "--ica_weight would change nothing with --model=grid_net: leave it out."),
        (["--mixing=upsampled", "--bases_from=frame"], "--bases_from would change nothing with --model=ica_unet --mixing=upsampled: leave it out."),
    ],
)
def test_typed_it_is_refused(parse, capsys, arguments, told):
    assert refusal(parse, capsys, *arguments) == f"error: {told}\n"
    assert refusal(parse, capsys, ACDC, *arguments) == f"error: {told}\n"


def test_from_a_launch_file_it_is_left_out_with_a_line(parse, capsys, tmp_path):
    (tmp_path / "a.flags").write_text("--bases=64\n--steps=7\n--remat\n--neighbours=both\n")
    config = parse(f"--flagfile={tmp_path / 'a.flags'}", "--model=unet3d", "--seed=3")
    assert config.diff(Config()) == dict(model="unet3d", steps=7, seed=3)
    told = capsys.readouterr().err
    assert told == "note: --bases, --remat of the launch file would change nothing with --model=unet3d: left out.\n"


def test_a_rival_after_acdc_records_what_it_reads_alone(parse):
    config = parse(ACDC, f"--flagfile={ROOT}/launch/baselines/unet3d.flags", "--steps=9", "--width_multiplier=0.5")
    assert config.train.steps == 9 and config.model.width_multiplier == 0.5 and config.loss.dice_weight == 0.5
    assert not set(config.diff(Config())) & unread(config.flat())


def test_the_network_of_the_main_command_reads_all_that_its_file_changes(parse, capsys):
    parse(ACDC)
    assert capsys.readouterr().err == ""


# --- people's commands ---


def test_the_home_folder_in_every_value(parse, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.flags").write_text("--data_dir=~/data\n")
    flags.DEFINE_list("runs", None, "Run folders.", flag_values=launcher.FLAGS)
    config = parse("--flagfile=~/a.flags", "--workdir=~/run", "--split_file=a~b", "--runs=~/one,two")
    assert (config.data.data_dir, config.train.workdir, config.data.split_file) == (f"{tmp_path}/data", f"{tmp_path}/run", "a~b")
    assert launcher.FLAGS["runs"].value == [f"{tmp_path}/one", "two"]


@pytest.mark.parametrize("flag", ["--help", "-h", "--helpfull"])
def test_the_help_lists_the_commands_flags_in_groups(command, capsys, flag):
    flags.DEFINE_string("out", None, "New folder.", flag_values=launcher.FLAGS, required=True)
    command(never, "--basis=3", flag)
    text = capsys.readouterr().out
    assert text.startswith("Flags are the configuration; the user's own win over a flag file.")  # of the command's module
    listed = {section.splitlines()[0]: re.findall(r"^  --(?:\[no\])?(\w+)", section, re.MULTILINE) for section in text.split("\n\n")[1:-1]}
    groups = {"model": "Network", "loss": "Loss", "data": "Data", "train": "Training"}
    assert listed == {"This command": ["out"]} | {title: [f.name for part, f in fields() if part == key] for key, title in groups.items()}
    assert "--out=  (needed)\n      New folder.\n" in text
    for _, field in fields():
        assert " ".join(field.metadata["help"].split()) in " ".join(text.split())
    assert "One of batch, group." in text and "--[no]expanding_skips  (on)" in text
    assert "logtostderr" not in text and "undefok" not in text


def test_the_version(command, capsys):
    command(never, "--version")
    assert capsys.readouterr().out == f"ica_unet_jax {ica_unet_jax.__version__}\n"


# --- how a command ends ---


@pytest.mark.parametrize(
    "error, code, told",
    [
        (Interrupted(15, " at step 3: saved"), 143, "SIGTERM at step 3: saved\n"),
        (Interrupted(2), 130, "SIGINT\n"),
        (KeyboardInterrupt(), 130, "SIGINT\n"),
        (OSError(errno.EMFILE, "Too many open files", "/x/y"), 2, TOO_MANY),
        (BadData(["one.", "two."]), 2, "error: one.\ntwo.\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/x/y"),
            2,
            "error: /x/y cannot be written (No space left on device): make room, then the same command goes on.\n",
        ),
    ],
)
def test_how_a_command_ends(command, capsys, monkeypatch, error, code, told):
    def main():
        raise error

    monkeypatch.setattr(os, "_exit", sys.exit)
    with pytest.raises(SystemExit) as left:
        command(main)
    assert left.value.code == code and capsys.readouterr().err == told


def test_an_error_of_the_program_keeps_its_traceback(command):
    def main():
        raise PermissionError(errno.EACCES, "Permission denied", "/x/y")

    with pytest.raises(PermissionError):
        command(main)


def test_a_list_that_is_no_list_of_numbers():
    assert launcher.integers("shape", ["8", " 96", "96"]) == (8, 96, 96)
    with pytest.raises(UserError, match="--shape=8,,1.5 must be whole numbers"):
        launcher.integers("shape", ["8", "", "1.5"])


def test_the_launcher_itself(tmp_path):
    """As a process: no traceback, one sentence, exit code 2, before anything is written."""
    command = [sys.executable, "-m", "ica_unet_jax.train", f"--workdir={tmp_path / 'run'}", "--crop=192,192"]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 2 and process.stdout == ""
    assert process.stderr == "error: --crop=192,192 needs three numbers: d,h,w.\n"
    assert not (tmp_path / "run").exists()


@pytest.fixture
def heard():
    """SIGINT as Python has it; a shell's background job ignores it, and so do its children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_xla_compiles(number, heard):
    """A program that compiles for a minute and more. JAX raises in the main thread, and Python's own end would wait, and crash."""
    script = """
import jax, jax.numpy as jnp
from ica_unet_jax import launcher
def main():
    def f(x):
        for i in range(1500):
            x = jnp.sin(jnp.sort(x, axis=i % 2) @ x) + i
        return x
    lowered = jax.jit(f).lower(jnp.ones((8, 8)))
    print("compiles", flush=True)
    lowered.compile()
launcher.run(main)
"""
    options = {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "0", "XLA_FLAGS": ""}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | options
    ) as process:
        assert process.stdout.readline() == "compiles\n"
        time.sleep(0.5)
        process.send_signal(number)
        began = time.monotonic()
        _, told = process.communicate(timeout=60)
    assert process.returncode == 128 + number and time.monotonic() - began < 5
    assert told == f"{signal.Signals(number).name}\n"


@pytest.mark.parametrize("arguments", [["--help"], []])
def test_a_pipe_that_nobody_reads_ends_a_command_in_silence(arguments):
    script = "from ica_unet_jax import launcher\ndef main():\n    print('x' * 100000)\nlauncher.define()\nlauncher.run(main)"
    ears, mouth = os.pipe()
    os.close(ears)
    done = subprocess.run([sys.executable, "-c", script, *arguments], stdout=mouth, stderr=subprocess.PIPE, text=True, check=False)
    os.close(mouth)
    assert (done.returncode, done.stderr) == (141, "")


def test_notes_that_nobody_reads_end_nothing(tmp_path):
    script = (
        "import sys\nfrom ica_unet_jax import launcher\nfrom ica_unet_jax.runtime.progress import Progress\ndef main():\n"
        "    for _ in range(3):\n        Progress(3).note('x' * 100000)\n    print('done')\nlauncher.run(main)"
    )
    ears, mouth = os.pipe()
    os.close(ears)
    done = subprocess.run([sys.executable, "-c", script], stderr=mouth, stdout=subprocess.PIPE, text=True, check=False)
    os.close(mouth)
    assert (done.returncode, done.stdout) == (0, "done\n")


ASCII = ({"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"})


@pytest.mark.parametrize("variables", ASCII)
def test_letters_that_the_terminal_lacks_and_files_in_utf8(variables, tmp_path):
    (tmp_path / "a.flags").write_text("# 0.9 \N{PLUS-MINUS SIGN} 0.1\n--steps=7\n", encoding="utf-8")
    script = (
        "from ica_unet_jax import launcher\nfrom ica_unet_jax.runtime.files import append_line, write_text\ndef main():\n"
        "    for write in (write_text, append_line):\n        write('out.txt', '\\u2013 \\xb1\\n')\n"
        "    print('EF \\u2013', open('out.txt').read() == '\\u2013 \\xb1\\n' * 2 + '\\n', launcher.FLAGS.steps)\n"
        "launcher.define()\nlauncher.run(main)"
    )
    command = [sys.executable, "-c", script, "--flagfile=a.flags"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | variables, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"") and done.stdout == b"EF ? True 7\n"
    assert (tmp_path / "out.txt").read_bytes().decode() == "\N{EN DASH} \N{PLUS-MINUS SIGN}\n" * 2 + "\n"


@pytest.mark.parametrize("name", ["rate", "alpha"])
@pytest.mark.parametrize("value", ["inf", "-inf", "nan"])
def test_numbers_are_finite(command, capsys, name, value):
    flags.DEFINE_float("rate", 22.0, "Frames a second.", flag_values=launcher.FLAGS)
    with pytest.raises(SystemExit) as left:
        command(never, f"--{name}={value}")
    assert left.value.code == 2 and capsys.readouterr().err == f"error: --{name}={value} must be a finite number.\n"


def test_a_home_folder_that_is_not_there(parse, capsys, monkeypatch):
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as it is for a user whom the system does not know
    assert refusal(parse, capsys, "--workdir=~/run") == "error: --workdir=~/run: there is no home folder here; write the whole path.\n"
    assert parse("--workdir=~backup").train.workdir == "~backup"


@pytest.mark.parametrize("flag", ["json", "gif", "output", "out", "workdir"])
def test_what_cannot_be_written_is_told_before_the_work(command, capsys, tmp_path, flag):
    if flag != "workdir":
        flags.DEFINE_string(flag, "", "To write.", flag_values=launcher.FLAGS)
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "below", tmp_path / ("n" * 256)):
        with pytest.raises(SystemExit) as left:
            command(never, f"--{flag}={path}")
        assert left.value.code == 2 and f"{path} cannot be written" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
