"""A test that is skipped for a missing package fails where skips are strict."""

import subprocess
import sys

import pytest
from places import ROOT

TESTS = """
import pytest

def test_package():
    pytest.importorskip("no_such_package")

@pytest.mark.skipif(True, reason="needs the ACDC samples")
def test_data():
    pass
"""


@pytest.mark.parametrize("strict, failed, skipped", [(["--strict-skips"], 1, 1), ([], 0, 2)])
def test_a_missing_package_is_no_reason(tmp_path, strict, failed, skipped):
    (tmp_path / "test_it.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-p", "skips", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", tmp_path, *strict, tmp_path]
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT / "tests" / "helpers")}, capture_output=True, text=True)
    summary = done.stdout.splitlines()[-1]
    assert f"{skipped} skipped" in summary and ("1 failed" in summary) == bool(failed)
    assert done.returncode == failed
