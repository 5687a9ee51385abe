"""README.md, BUILD.md and docs/: commands are run as written but for paths and sizes, what they name exists, figures are those of the results."""

import dataclasses
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import dicoms
import jax
import nibabel as nib
import numpy as np
import pytest
from places import ROOT

DOCUMENTS = [ROOT / "README.md", ROOT / "BUILD.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {path.relative_to(ROOT): path.read_text() for path in DOCUMENTS}
NETWORK = (  # in a launch file, from which each network takes what it reads
    "--contracting_blocks=1 --bases=2 --stream_width=2 --encoder_width=4 --encoder_convs=0 --decoder_width=4 --width_multiplier=0.05 --unet_width=2"
)
TINY = "--flagfile=tiny.flags --crop=2,64,64 --steps=2 --batch_size=1 --evaluate_every=2 --folds=2".split()
NOT_RUN = ("pip install", "-m venv", "pytest", "ruff")  # .ci/run runs these


def blocks(language: str) -> list[str]:
    """The code blocks of one language; commands to run have none, those for other machines or for hours are `sh`."""
    found = [block for text in TEXTS.values() for block in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)]
    return [block for name, block in found if name == language]


def commands() -> list[str]:
    """Every command line of the documents' code blocks, once."""
    lines = [part.strip() for block in blocks("") for line in block.splitlines() for part in line.split("&&")]
    return list(dict.fromkeys(line for line in lines if line and not any(word in line for word in NOT_RUN)))


def chains() -> dict[str, list[str]]:
    """The commands by the run folder that they write or read; one that needs two folders joins their chains."""
    found: dict[str, list[str]] = {}
    for command in commands():
        names = re.findall(r"runs/(\w+)|(phantom)\.flags|(benchmark|parallel)\.json", command)
        names = list(dict.fromkeys(next(filter(None, groups)) for groups in names)) or ["alone"]
        lines = [line for name in names for line in found.pop(name, [])]
        found[names[0]] = [*lines, command]
    return found


@pytest.fixture(scope="module")
def place(cohort, tmp_path_factory):
    """A folder with the launch files, a cohort named ACDC that has a test patient, cines of its own, a loose cine, and a study in DICOM."""
    folder = tmp_path_factory.mktemp("documents")
    for name in ("launch", "ablations"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "tiny.flags").write_text(NETWORK.replace(" ", "\n"))
    shutil.copytree(cohort, folder / "ACDC")
    patient = folder / "ACDC" / "patient101"
    (folder / "ACDC" / "patient004").rename(patient)
    for file in patient.glob("patient004*"):
        file.rename(patient / file.name.replace("patient004", "patient101"))
    shutil.copy(patient / "patient101_4d.nii.gz", folder)
    dicoms.write_cine(folder / "STUDY", np.asarray(nib.load(folder / "patient101_4d.nii.gz").dataobj).T)
    (folder / "CINES").mkdir()
    for file in cohort.glob("*/*.nii.gz"):
        if "_4d" in file.name or "_gt" in file.name:
            shutil.copy(file, folder / "CINES")
    return folder


SERVERS: list[subprocess.Popen] = []
with socket.create_server(("127.0.0.1", 0)) as free:
    PORT = free.getsockname()[1]


@pytest.fixture(scope="module", autouse=True)
def servers_end():
    yield
    stop_servers()


def stop_servers() -> None:
    while SERVERS:
        with SERVERS.pop() as server:
            server.kill()


def run(command: str, folder: Path) -> str:
    words = shlex.split(command)
    assert words[0].endswith("python"), f"{command}: not a command that this test knows to run"
    words[0] = sys.executable
    if "ablations/run_all.py" in words and not any("flagfile" in word for word in words):
        words += ["--preset=smoke", "--studies=supervision", "--folds=1", "--steps=3"]
    elif "ablations/run_all.py" in words:
        words += [*TINY, "--neighbours=none", "--studies=loss_terms"]  # one network is compiled to be timed
    elif "ica_unet_jax.cross_validate" in words or "ica_unet_jax.train" in words:
        words += TINY
        if any("phantom.flags" in word for word in words):
            words += ["--phantom_patients=4", "--phantom_shape=2,64,64"]
        if any("baselines" in word for word in words):
            words += ["--crop=2,32,32"]
    elif "ica_unet_jax.convert" in words:
        words += ["--folds=2"]
    elif "ica_unet_jax.tables" in words:
        words += [*TINY, "--only=unet2d", "--seconds=0"]
    elif "ica_unet_jax.stream" in words:
        words += ["--seconds=0.5"]
    elif "ica_unet_jax.serve" in words:
        words = ["--seconds=0.5" if word.startswith("--seconds") else word for word in words] + [f"--port={PORT}"]
    elif "ica_unet_jax.benchmark" in words:
        words = ["--parallel=4" if word.startswith("--parallel") else word for word in words]
        words += ["--seconds=0", "--rounds=1", "--only=own" if any("workdir" in word for word in words) else "--only=roi/unet2d"]
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    if "ica_unet_jax.serve" in words and "--replay" not in command:  # it runs beside those that follow
        stop_servers()
        SERVERS.append(subprocess.Popen(words, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True))
        assert any("listens" in line for line in SERVERS[0].stdout), command
        return ""
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


SWEEP = ("index.md", "report.html", "supervision.md", "supervision.tex", "supervision.png", "peers/fastica_m3_fold0.csv")
LEAVES = {  # a text in each of the files that a chain leaves
    "phantom": {"runs/phantom/evaluation_val/summary.json": "dice"},
    "acdc": {"runs/acdc/evaluation_test/table.md": "Dice", "runs/acdc/report.md": "## Provenance"}
    | dict.fromkeys(("masks.nii.gz", "study_masks_report.html", "followed.nii.gz", "stream.json", "beat.gif", "model.zip", "model.onnx", "latency.json"), ""),
    "own": {"runs/own/evaluation_val/table.md": "Dice"},
    "benchmark": {"benchmark.json": "roi/unet2d"},
    "parallel": {"parallel.json": "one after the other"},
    "cv": {"runs/cv/table.md": "3 patients out of fold"},
    "acdc_mini": {"curves.png": ""},
    "unet3d": {"runs/unet3d/evaluation_val/table.md": "Dice"},
    "both": {"runs/causal/compared.md": "2 of 2 cells finished", "runs/causal/report.html": "t-1 alone"},
    "tables": {"runs/tables/tables.md": "| U-Net 2D |", "runs/tables/table_1.tex": "tabular", "runs/tables/table_2.csv": "U-Net 2D,", "runs/tables/tables.png": ""},
    "alone": {f"runs/ablations/{name}": "" for name in SWEEP}
    | dict.fromkeys(("patient101_4d_seg.nii.gz", "patient101_4d_seg_report.html", "stream.json", "beat.gif"), "")
    | {"runs/ablations/cells/*/*/done.json": '"done"', "runs/ablations/cells/*/*/config.json": '"steps": 3'},  # a flag wins over the preset
}


SLOW = ("acdc", "any", "own", "unet3d", "both", "acdc_mini", "ablations_acdc_mini", "benchmark", "parallel", "cv")  # what they do is done in part by the others


def test_a_user_comes_through(place):
    """The first use of each command in the longest chain; the whole of it takes a minute more."""
    first: dict[str, str] = {}
    for line in chains()["acdc"]:
        first.setdefault((line.split()[2], "--replay" in line), line)  # a server, and who talks to it
    for line in first.values():
        run(line.replace("runs/acdc", "runs/first"), place)
    assert "Dice" in (place / "runs/first/evaluation_test/table.md").read_text(encoding="utf-8")
    assert all((place / name).is_file() for name in ("masks.nii.gz", "model.onnx", "runs/first/served.nii.gz"))


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in chains()])
def test_every_command_of_the_documents_runs(name, place):
    for command in chains()[name]:
        run(command, place)
    for path, text in LEAVES.get(name, {}).items():
        files = list(place.glob(path))
        assert files and all(text.encode() in file.read_bytes() for file in files), path
    assert not (place / "runs" / "ablations_acdc_mini").exists()  # a dry run


def test_chains_hold_every_command():
    assert {*LEAVES, *SLOW} <= set(chains())
    assert sorted(line for chain in chains().values() for line in chain) == sorted(commands())


def test_imports_of_the_snippets_work():
    from ica_unet_jax.portable import runtimes

    lines = [line for block in blocks("python") for line in block.splitlines() if re.match(r"(from|import) ", line)]
    assert any("inference" in line for line in lines)
    if "openvino" in runtimes.at_hand():
        runtimes.openvino_module()  # which tells nobody
    for line in lines:
        exec(line, {})


@pytest.mark.parametrize("name", TEXTS, ids=str)
def test_links_lead_somewhere(name):
    def anchors(path: Path) -> set[str]:
        titles = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
        return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}

    for target in re.findall(r"\]\(([^)]+)\)", TEXTS[name]):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        found = (ROOT / (name.parent / path if path else name)).resolve()
        assert found.is_file(), target
        assert not anchor or anchor in anchors(found), target


@pytest.mark.parametrize("name", TEXTS, ids=str)
def test_files_that_are_named_exist(name):
    """Paths are from the top of the checkout, or of the package; NAME stands for one to come."""
    for path in re.findall(r"`((?:ica_unet_jax|ablations|launch|tests|docs|models|runtime)/[\w/.*]*)`", TEXTS[name]):
        if "NAME" not in path:
            assert [*ROOT.glob(path), *(ROOT / "ica_unet_jax").glob(path)], path


def test_settings_that_are_named_exist():
    source = "".join(path.read_text() for top in ("ica_unet_jax", "ablations") for path in (ROOT / top).rglob("*.py"))
    known = set(re.findall(r'DEFINE_\w+\(\s*"(\w+)"', source)) | set(re.findall(r"^    (\w+): .* = knob\(", source, re.MULTILINE))
    known |= {"flagfile", "help", "version"}  # every command's
    known |= {"opt_out"}  # of OpenVINO's opt_in_out
    known |= {"data-binary"}  # of curl
    known |= {"gpus-per-task", "nodes", "ntasks-per-node", "gpus-per-node", "array", "requeue", "wrap", "open-mode", "time", "signal"}  # of srun and sbatch
    for name, text in TEXTS.items():
        for flag in re.findall(r"(?<![\w<-])--([a-z][\w-]+)", text.replace("<!--", "")):
            assert flag in known or flag.removeprefix("no") in known, f"{name}: --{flag}"


def test_made_parts_are_as_the_results_have_them():
    """`python ablations/documents.py` changes nothing."""
    from ablations import documents

    marks = set()
    for path in documents.pages():
        text = path.read_text()
        assert documents.remade(text) == text, f"{path.name}: run python ablations/documents.py"
        opened = re.findall(r"<!-- made by python ablations/documents.py: (\w+) -->", text)
        assert len(opened) == text.count("<!-- end -->") == len(documents.MARKED.findall(text)), path
        marks |= set(opened)
    assert marks == set(documents.PARTS)


def test_the_first_screen_is_short():
    assert (ROOT / "README.md").stat().st_size <= 9 * 1024


def test_every_setting_of_network_and_loss_is_in_the_differences():
    """Or it is marked as printed in the paper, in launch/acdc.flags."""
    from ica_unet_jax.config import LossConfig, ModelConfig

    page = (ROOT / "docs" / "differences_from_the_paper.md").read_text()
    printed = (ROOT / "launch" / "acdc.flags").read_text().split("# Printed in the paper.")[1].split("# Ours")[0]
    for field in (*dataclasses.fields(ModelConfig), *dataclasses.fields(LossConfig)):
        assert re.search(rf"--{field.name}\b", page), field.name
        ours = re.sub(r"<!-- made by.*?<!-- end -->", "", page, flags=re.DOTALL)
        assert re.search(rf"--{field.name}\b", ours) or f"--{field.name}=" in printed, field.name


def test_documents_name_no_machine_and_show_no_patient():
    for name, text in TEXTS.items():
        assert not re.search(r"(?<![\w.])/(home|root|work|tmp|Users|mnt|data)/", text), name
        pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
        assert {Path(picture).name for picture in pictures} <= {"acdc_causal.png", "phantom.png", "streams_in_parallel.png", "view.png", "where_lost.png", "loss_terms.png", "design.png", "acdc100_latency.png", "acdc100_places.png"}, name


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


def test_the_study_in_the_documents_is_one():
    from ablations.studies import Study
    from ica_unet_jax.config import Config

    [block] = [block for block in blocks("python") if "Study(" in block]
    assert len(eval(block, {"Study": Study}).configs(Config())) == 3  # the reference has 32


def test_without_data_one_sentence_says_where_they_come_from(tmp_path):
    command = [sys.executable, "-m", "ica_unet_jax.train", f"--flagfile={ROOT}/launch/acdc.flags"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 2 and not any(tmp_path.iterdir())
    for part in ("creatis", "patient001", "launch/phantom.flags"):
        assert part in done.stderr
    assert done.stderr.count("\n") == 1
