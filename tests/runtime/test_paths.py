"""Where things lie, and that nothing on the way from a file to its labels needs POSIX."""

import subprocess
import sys
from pathlib import Path

import pytest

from ica_unet_jax.errors import UserError
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


@pytest.fixture
def temporary(monkeypatch, tmp_path):
    monkeypatch.setattr(paths.tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path / f"ica_unet_jax-{paths.os.getuid()}"


def test_without_a_home_folder(monkeypatch, temporary):
    def none(*_, **__):
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr(paths, "user_cache_path", none)
    assert paths.default_cache_dir() == paths.default_cache_dir() == temporary
    assert temporary.stat().st_mode & 0o777 == 0o700


def test_with_a_home_folder_that_cannot_be_written(monkeypatch, tmp_path, temporary):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert paths.default_cache_dir() == temporary


def test_a_folder_into_which_others_may_write_is_not_trusted(monkeypatch, tmp_path, temporary):
    temporary.mkdir()
    temporary.chmod(0o777)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match="name a cache folder by XDG_CACHE_HOME"):
        paths.default_cache_dir()
