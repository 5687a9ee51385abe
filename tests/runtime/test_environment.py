"""What a shell, a notebook or a container leaves behind does not break a command."""

import os
import resource
import subprocess
import sys

import pytest

from ica_unet_jax.errors import UserError
from ica_unet_jax.runtime import environment


def command(script, prepare="", **variables):
    """A command whose `main` runs the script, as a process."""
    lines = "".join(f"    {line}\n" for line in script.splitlines())
    code = f"{prepare}\nfrom ica_unet_jax import launcher\ndef main():\n{lines}launcher.run(main)"
    return subprocess.run([sys.executable, "-c", code], env=os.environ | variables, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "nonsense", "TkAgg"])
def test_the_backend_of_a_notebook(backend):
    done = command("import matplotlib\nprint(matplotlib.get_backend().lower())", MPLBACKEND=backend)
    assert (done.returncode, done.stdout, done.stderr) == (0, "agg\n", "")


def test_variables_of_jax_that_change_what_is_computed():
    script = "import jax, numpy\nprint(jax.jit(lambda x: 2 * x).lower(numpy.float64(1)).compile()(numpy.float32(1)).dtype)"
    done = command(script, JAX_ENABLE_X64="1", JAX_DISABLE_JIT="1", JAX_PLATFORMS="cpu")
    assert (done.returncode, done.stdout) == (0, "float32\n")
    names = ("JAX_ENABLE_X64", "JAX_DISABLE_JIT")
    assert done.stderr.splitlines() == [f"note: {name} of the environment is left out: what is computed is the flags' to say." for name in names]
    assert command("pass", JAX_ENABLE_X64="0", JAX_DISABLE_JIT="false").stderr == ""


@pytest.mark.parametrize("platform", ["cuda", "gpu", "tpu", "nonsense"])
def test_a_platform_without_a_device(platform):
    done = command("import jax\njax.devices()", JAX_PLATFORMS=platform)
    if done.returncode == 0:
        pytest.skip("needs a machine without that device")
    told = f"error: JAX_PLATFORMS={platform} asks for a device that JAX does not find here: unset it, or set it to cpu.\n"
    assert done.returncode == 2 and done.stderr.endswith(told) and "Traceback" not in done.stderr


def test_the_soft_limit_of_handles_is_raised():
    prepare = "import resource\nhard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\nresource.setrlimit(resource.RLIMIT_NOFILE, (40, hard))"
    done = command("import resource\nfiles = [open('/dev/null') for _ in range(200)]\nprint(len(files))", prepare)
    assert (done.returncode, done.stdout) == (0, "200\n")


def test_too_low_a_hard_limit_is_told_before_the_training(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 256))
    environment.require_handles(156)
    with pytest.raises(UserError, match="257 files are to be open at once, but the system allows 256: raise its limit, as by ulimit -n 257"):
        environment.require_handles(157)
