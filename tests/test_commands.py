"""The list of commands, and that a command run from it is the command itself."""

import subprocess
import sys
from importlib import metadata

import pytest
from places import ROOT

import ica_unet_jax
from ica_unet_jax import __main__ as commands

PACKAGE = ROOT / "ica_unet_jax"


def run(*arguments):
    return subprocess.run([sys.executable, "-m", "ica_unet_jax", *arguments], capture_output=True, text=True, check=False)


def test_every_command_is_listed():
    files = {path.stem for path in PACKAGE.glob("*.py") if "launcher.run(main)" in path.read_text()}
    assert set(commands.COMMANDS) == files


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_without_a_command_they_are_listed_with_a_line_each(arguments):
    done = run(*arguments)
    assert done.returncode == 0 and done.stderr == ""
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if line.startswith("  "))
    assert tuple(lines) == commands.COMMANDS
    assert lines["train"] == "Trains a network." and all(line.endswith(".") and "`" not in line for line in lines.values())


def test_a_command_that_is_not_there_is_bad_input():
    done = run("trian")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "error: trian is no command: train is, and python -m ica_unet_jax lists them all.\n"


def test_a_command_of_the_list_is_the_command_itself():
    for arguments in (["--help"], ["--version"], ["--patient=3", "--out=x"]):
        listed = run("phantom", *arguments)
        itself = subprocess.run([sys.executable, "-m", "ica_unet_jax.phantom", *arguments], capture_output=True, text=True, check=False)
        assert (listed.returncode, listed.stdout, listed.stderr) == (itself.returncode, itself.stdout, itself.stderr)
    assert listed.returncode == 2 and listed.stderr == "error: --patient is no flag of this command: --patients is, and --help lists them all.\n"


def test_without_a_network_the_one_of_the_package_is_taken_and_named(tmp_path):
    def export(name):
        done = subprocess.run(
            [sys.executable, "-m", "ica_unet_jax.export", "--format=weights", f"--output={name}.safetensors"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0 and (tmp_path / f"{name}.safetensors").is_file()
        return done.stderr

    said = "note: the network is acdc_causal, which comes with the package."
    assert export("a") == f"{said}\n"
    (tmp_path / "runs" / "default").mkdir(parents=True)
    (tmp_path / "runs" / "default" / "config.json").write_text("{}")
    assert export("b") == f"{said} The one in runs/default is taken by --workdir=runs/default.\n"


def test_the_version_of_the_package():
    assert run("--version").stdout == f"ica_unet_jax {ica_unet_jax.__version__}\n"


def test_the_console_script_is_the_list():
    [script] = metadata.distribution("ica-unet-jax").entry_points.select(group="console_scripts", name="ica-unet-jax")
    assert script.load() is commands.main


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_the_help_of_every_command(name):
    done = subprocess.run([sys.executable, "-m", f"ica_unet_jax.{name}", "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr == ""
    assert ("\nNetwork\n" in done.stdout) == (name in ("train", "cross_validate", "tables"))
    assert "\nThis command\n" in done.stdout
