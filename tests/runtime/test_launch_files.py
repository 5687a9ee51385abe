"""Launch files are read as absl reads them, and what is wrong in one is told with its line."""

import pytest
from absl import flags
from places import ROOT

from ica_unet_jax import launcher
from ica_unet_jax.config import Config
from ica_unet_jax.errors import UserError
from ica_unet_jax.runtime import launch_files

FILES = sorted((ROOT / "launch").rglob("*.flags"))
SWEEP = {"studies": "", "seeds": 1, "only_folds": "", "jobs": 0, "delta": 0.01}  # flags of run_all that launch files name


@pytest.fixture
def absl(monkeypatch):
    """absl(path) -> {setting: value} of what the file sets, by absl and `ica_unet_jax.launcher`."""
    values = flags.FlagValues()
    monkeypatch.setattr(launcher, "FLAGS", values)
    launcher.define()
    for name, default in SWEEP.items():
        flags.DEFINE_string(name, str(default), "of the sweep", flag_values=values)

    def parsed(path):
        values.unparse_flags()
        values(["program", f"--flagfile={path}"])
        config = launcher.config(several_networks=True).flat()
        return {name: config[name] for name in config if values[name].present}

    return parsed


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_committed_files_are_read_as_absl_reads_them(path, absl):
    found = launch_files.read(path, SWEEP)
    assert found == absl(path) and found
    Config.make(**found)


def test_every_kind_of_line(tmp_path, absl):
    path = tmp_path / "a.flags"
    lines = (
        "# a comment", "", "// another", "--crop=4,64,64", "--remat", "--noflip", "-steps=7", "--steps=8", "--learning_rate=4e-3",
        "--norm=group", "--data_dir=a=b", "--cyclic=True", "--encoder_dilation=0", "  --bases=3  ",
    )  # fmt: skip
    path.write_text("\n".join(lines))
    assert launch_files.read(path) == absl(path) == dict(
        crop=(4, 64, 64), remat=True, flip=False, steps=8, learning_rate=4e-3, norm="group", data_dir="a=b", cyclic=True,
        encoder_dilation=False, bases=3,
    )  # fmt: skip


@pytest.mark.parametrize(
    "line, told",
    [
        ("--basis=3", "--basis is no setting of this version"),
        ("--nobasis", "--nobasis is no setting of this version"),
        ("--studies=all", "--studies is no setting"),
        ("bases=3", "'bases=3' is no flag: flags are written --name=value"),
        ("--bases 3", "'--bases 3' is no flag"),
        ("--bases", "--bases needs a value: --bases=VALUE"),
        ("--nobases", "--bases needs a value"),
        ("--bases=3.5", "--bases=3.5 must be a whole number"),
        ("--alpha=x", "--alpha=x must be a number"),
        ("--crop=1,x", "--crop=1,x must be whole numbers separated by commas"),
        ("--flip=perhaps", "--flip=perhaps must be true or false"),
        ("--flip=", "--flip= must be true or false"),
        ("--norm=none", "--norm=none is not known: choose one of batch, group"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(line, told, tmp_path):
    path = tmp_path / "a.flags"
    path.write_text(f"# a comment\n--steps=3\n{line}\n")
    with pytest.raises(UserError, match="line 3: ") as error:
        launch_files.read(path)
    assert told in str(error.value) and str(path) in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="cannot be read .* name a launch file"):
        launch_files.read(tmp_path / "a.flags")
    (tmp_path / "b.flags").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="cannot be read"):
        launch_files.read(tmp_path / "b.flags")
