"""Where things lie, and that nothing on the way from a file to its labels needs POSIX."""

import subprocess
import sys
from pathlib import Path

import pytest

from ica_unet_jax.runtime import paths


def test_default_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert paths.default_cache_dir() == tmp_path / "ica_unet_jax"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep their caches elsewhere")
def test_default_folder_of_linux(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert paths.default_cache_dir() == Path.home() / ".cache" / "ica_unet_jax"


def test_inference_needs_no_locks_of_posix():
    script = "import sys; sys.modules['fcntl'] = None; import ica_unet_jax.inference.segmenters"
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True)
