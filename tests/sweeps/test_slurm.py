"""What BUILD.md says of a cluster, done on one: SLURM itself, with one node, on this machine."""

import json
import subprocess
import sys
import time

import jax
import pytest
import slurm_node
from places import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(slurm_node.missing()), reason=slurm_node.missing() or "there is one")]
FLAGS = dict(
    model="unet2d", crop="2,32,32", unet_width=1, batch_size=1, steps=4, evaluate_every=2, folds=5, phantom_patients=6, phantom_shape="2,64,64",
)  # fmt: skip
MINUTES = 20


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slurm")
    with slurm_node.node(folder) as environment:
        programs = str(folder / "programs")
        yield environment | {"PYTHONPATH": str(ROOT), "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir or programs}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Flags of the folders that all jobs share."""
    folder = tmp_path_factory.mktemp("shared")
    return dict(phantom_dir=folder / "phantom", cache_dir=folder / "cache")


def command(name, **flags):
    return " ".join([sys.executable, "-m", f"ica_unet_jax.{name}", *(f"--{key}={value}" for key, value in flags.items())])


def batch(cluster, folder, script, *options):
    """Submits, as BUILD.md does, and waits until no job is left; the number of the job."""
    done = subprocess.run(
        ["sbatch", "--parsable", "--requeue", "--open-mode=append", f"--output={folder}/%a.log", *options, "--wrap", script],
        env=cluster, cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    wait(cluster)
    return done.stdout.strip()


def wait(cluster):
    until = time.monotonic() + 60 * MINUTES
    while subprocess.run(["squeue", "-h"], env=cluster, capture_output=True, check=True).stdout.strip():
        assert time.monotonic() < until
        time.sleep(1)


def test_five_folds_and_the_masks_of_a_cohort(cluster, places, tmp_path):
    script = "srun " + command("cross_validate", **FLAGS, **places, workdir=tmp_path / "cv") + " --only_fold=$SLURM_ARRAY_TASK_ID"
    batch(cluster, tmp_path, script, "--array=0-4")
    assert json.loads((tmp_path / "cv" / "summary.json").read_text())["folds"] == 5, (tmp_path / "0.log").read_text()

    [cohort] = places["phantom_dir"].iterdir()
    masks = dict(workdir=tmp_path / "cv" / "fold0", input=cohort, output=tmp_path / "masks", resume="true")
    batch(cluster, tmp_path, "srun " + command("predict", **masks) + " --part=$SLURM_ARRAY_TASK_ID/3", "--array=1-3")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "masks").iterdir()}
    assert sum(path.name.endswith("_seg.nii.gz") for path in before) == 6 and not (tmp_path / "masks" / "cohort.csv").exists()
    subprocess.run(command("predict", **masks).split(), env=cluster, check=True)
    assert len((tmp_path / "masks" / "cohort.csv").read_text().splitlines()) == 7
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())


def test_a_job_out_of_time_is_taken_up_again(cluster, places, tmp_path):
    """A training that takes longer than its job may; it saves its state when it is told to, and queues the job again."""
    flags = FLAGS | places | dict(steps=60000, evaluate_every=60000, final_evaluation="false", workdir=tmp_path / "run")
    script = "srun " + command("train", **flags) + " || { [ $? = 143 ] && scontrol requeue $SLURM_JOB_ID; }"
    batch(cluster, tmp_path, script, "--time=3", "--signal=TERM@60")
    log = (tmp_path / "run" / "training.log").read_text()
    assert "going on from step" in log and "step 60000: validation Dice" in log


def test_a_sweep_of_four_cells(cluster, places, tmp_path):
    flags = dict(preset="smoke", executor="slurm", slurm="timeout_min=20", threads=1, jobs=2, workdir=tmp_path / "sweep", **places)
    sweep = [sys.executable, str(ROOT / "ablations" / "run_all.py"), "--nomeasure", *(f"--{key}={value}" for key, value in flags.items())]
    subprocess.run(sweep, env=cluster, check=True, timeout=60 * MINUTES)
    done = [json.loads(path.read_text())["status"] for path in (tmp_path / "sweep").glob("cells/*/*/done.json")]
    assert done == ["done"] * 4 and (tmp_path / "sweep" / "index.md").is_file()
