"""The wheel: built, unpacked elsewhere, it predicts without the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from places import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The built wheel's path; of a copy, as building leaves files beside setup.py."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "ica_unet_jax", "setup.py", "pyproject.toml", "README.md", "LICENSE"],
                           cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()  # fmt: skip
    for name in filter(lambda name: (ROOT / name).is_file(), files):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps", "-w", out, source]
    subprocess.run(command, check=True, capture_output=True)
    [built] = out.iterdir()
    return built


def test_it_holds_the_whole_package_and_nothing_else(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = ROOT / "ica_unet_jax"
    assert names == {str(path.relative_to(ROOT)) for pattern in ("*.py", "weights/*", "viewing/page/*") for path in package.rglob(pattern)}


def test_it_predicts_without_the_checkout(wheel, tiny_run, cohort, tmp_path):
    unpacked = tmp_path / "unpacked"
    zipfile.ZipFile(wheel).extractall(unpacked)
    environment = os.environ | {"PYTHONPATH": str(unpacked), "JAX_PLATFORMS": "cpu"}
    place = subprocess.run([sys.executable, "-c", "import ica_unet_jax; print(ica_unet_jax.__file__)"], cwd=tmp_path, env=environment,
                           capture_output=True, text=True, check=True).stdout.strip()  # fmt: skip
    assert Path(place).is_relative_to(unpacked)
    image = cohort / "patient001" / "patient001_4d.nii.gz"
    command = [sys.executable, "-m", "ica_unet_jax.predict", f"--workdir={tiny_run}", f"--input={image}", f"--output={tmp_path / 'mask.nii.gz'}"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mask.nii.gz").is_file()
