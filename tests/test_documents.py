"""The commands of README.md and BUILD.md, run as written but for paths and sizes."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from places import ROOT

TINY = (
    "--crop=2,64,64 --contracting_blocks=2 --bases=2 --stream_width=2 --encoder_width=4 --encoder_convs=1 --decoder_width=4 "
    "--steps=2 --batch_size=1 --evaluate_every=2 --folds=2 --width_multiplier=0.05"
).split()
NOT_RUN = ("pip install", "-m venv", "pytest", "ruff")  # .ci/run runs these


def commands() -> list[str]:
    """Every command line of the documents' code blocks."""
    text = "".join((ROOT / name).read_text() for name in ("README.md", "BUILD.md"))
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    blocks = [block for language, block in found if not language]
    lines = [part.strip() for block in blocks for line in block.splitlines() for part in line.split("&&")]
    return list(dict.fromkeys(line for line in lines if line and not any(word in line for word in NOT_RUN)))


def chains() -> dict[str, list[str]]:
    """The commands by the run folder that they write or read; one that needs two folders joins their chains."""
    found: dict[str, list[str]] = {}
    for command in commands():
        names = re.findall(r"runs/(\w+)|(phantom)\.flags|(benchmark)\.json", command)
        names = list(dict.fromkeys(next(filter(None, groups)) for groups in names)) or ["alone"]
        lines = [line for name in names for line in found.pop(name, [])]
        found[names[0]] = [*lines, command]
    return found


@pytest.fixture(scope="module")
def place(cohort, tmp_path_factory):
    """A folder with the launch files, a cohort named ACDC that has a test patient, and a loose cine."""
    folder = tmp_path_factory.mktemp("documents")
    for name in ("launch", "ablations"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(cohort, folder / "ACDC")
    patient = folder / "ACDC" / "patient101"
    (folder / "ACDC" / "patient004").rename(patient)
    for file in patient.glob("patient004*"):
        file.rename(patient / file.name.replace("patient004", "patient101"))
    shutil.copy(patient / "patient101_4d.nii.gz", folder)
    return folder


def run(command: str, folder: Path) -> str:
    words = shlex.split(command)
    assert words[0].endswith("python"), f"{command}: not a command that this test knows to run"
    words[0] = sys.executable
    if "ablations/run_all.py" in words and not any("flagfile" in word for word in words):
        words += ["--preset=smoke", "--studies=supervision", "--folds=1", "--steps=3"]
    elif "ablations/run_all.py" in words:
        # One network is compiled to be timed.
        words += [*TINY, "--contracting_blocks=1", "--neighbours=none", "--encoder_convs=0", "--studies=loss_terms"]
    elif "ica_unet_jax.cross_validate" in words:
        words += [*TINY, "--model=unet2d", "--unet_width=1"]  # a fold is a training and an evaluation of its own
    elif "ica_unet_jax.train" in words:
        words += TINY
        if any("phantom.flags" in word for word in words):
            words += ["--phantom_patients=4", "--phantom_shape=2,64,64"]
        if any("baselines" in word for word in words):
            words += ["--crop=2,32,32"]
    elif "ica_unet_jax.tables" in words:
        words += [*TINY, "--only=unet2d", "--seconds=0"]
    elif "ica_unet_jax.stream" in words:
        words += ["--seconds=0.5"]
    elif "ica_unet_jax.benchmark" in words:
        words += ["--seconds=0", "--only=own" if any("workdir" in word for word in words) else "--only=roi/unet2d"]
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


SWEEP = ("index.md", "report.html", "supervision.md", "supervision.tex", "supervision.png", "peers/fastica_m3_fold0.csv")
LEAVES = {  # a text in each of the files that a chain leaves
    "phantom": {"runs/phantom/evaluation_val/summary.json": "dice"},
    "acdc": {"runs/acdc/evaluation_test/table.md": "Dice", "runs/acdc/report.md": "## Provenance"}
    | dict.fromkeys(("masks.nii.gz", "followed.nii.gz", "stream.json", "beat.gif", "model.zip"), ""),
    "benchmark": {"benchmark.json": "roi/unet2d"},
    "cv": {"runs/cv/table.md": "3 patients out of fold"},
    "acdc_mini": {"curves.png": ""},
    "unet3d": {"runs/unet3d/evaluation_val/table.md": "Dice"},
    "both": {"runs/causal/compared.md": "2 of 2 cells finished", "runs/causal/report.html": "t-1 alone"},
    "tables": {"runs/tables/tables.md": "| U-Net 2D |", "runs/tables/table_1.tex": "tabular", "runs/tables/table_2.csv": "U-Net 2D,", "runs/tables/tables.png": ""},
    "alone": {f"runs/ablations/{name}": "" for name in SWEEP}
    | {"runs/ablations/cells/*/*/done.json": '"done"', "runs/ablations/cells/*/*/config.json": '"steps": 3'},  # a flag wins over the preset
}


@pytest.mark.parametrize("name", chains())
def test_every_command_of_the_documents_runs(name, place):
    for command in chains()[name]:
        run(command, place)
    for path, text in LEAVES.get(name, {}).items():
        files = list(place.glob(path))
        assert files and all(text.encode() in file.read_bytes() for file in files), path
    assert not (place / "runs" / "ablations_acdc_mini").exists()  # a dry run


def test_chains_hold_every_command():
    assert set(LEAVES) < set(chains())
    assert sorted(line for chain in chains().values() for line in chain) == sorted(commands())


def test_files_and_settings_named_in_the_documents_exist():
    from ica_unet_jax.config import Config

    text = "".join((ROOT / name).read_text() for name in ("README.md", "BUILD.md"))
    for name in re.findall(r"launch/[\w/]+\.flags|docs/\w+\.\w+", text):
        assert (ROOT / name).is_file(), name
    other = {"flagfile", "workdir", "split", "input", "output", "acdc_names", "mirror", "help", "quiet", "runs", "out", "only_fold"}
    other |= {"coordinator", "processes", "process_id", "gpus-per-task"}  # the last is srun's
    other |= {"studies", "seeds", "only_folds", "jobs", "threads", "executor", "slurm", "dry_run", "tables_only", "preset", "delta"}
    other |= {"rate", "seconds", "queue", "deadline_ms", "json", "gif", "like", "platforms", "window", "only", "compare", "notimed"}
    other |= {"neighbour_frames", "nsd_mm", "nomeasure"}
    for name in re.findall(r"`--([\w-]+)", text):
        assert name in Config().flat() or name in other, name


def test_launch_files_set_every_flag_they_name_and_are_valid():
    """acdc.flags spells out every setting of the model, the loss, the augmentation and the optimisation."""
    from ica_unet_jax.config import Config, fields

    for path in sorted((ROOT / "launch").rglob("*.flags")):
        lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
        values = dict(line.removeprefix("--").split("=", 1) for line in lines)
        sweep = {"studies", "seeds", "only_folds", "jobs"} if path.name.startswith(("ablations", "choosing", "evidence")) else set()
        assert set(values) <= set(Config().flat()) | sweep, path
        assert path.read_text().startswith("# "), path
    acdc = {line.split("=")[0][2:] for line in (ROOT / "launch/acdc.flags").read_text().splitlines() if line.startswith("--")}
    left = {field.name for part, field in fields() if part in ("model", "loss", "train")} - acdc
    assert left == {"unet_width", "width_multiplier", "span", "sources", "anisotropy", "expanding_kernels", "momentum", "workdir", "init_from", "teacher", "devices"}


def test_the_study_in_the_readme_is_one():
    from ablations.studies import Study
    from ica_unet_jax.config import Config

    block = next(b for b in re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE) if "Study(" in b)
    assert len(eval(block, {"Study": Study}).configs(Config())) == 3  # the reference has 32


def test_without_data_one_sentence_says_where_they_come_from(tmp_path):
    command = [sys.executable, "-m", "ica_unet_jax.train", f"--flagfile={ROOT}/launch/acdc.flags"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 2 and not any(tmp_path.iterdir())
    for part in ("creatis", "patient001", "launch/phantom.flags"):
        assert part in done.stderr
    assert done.stderr.count("\n") == 1
