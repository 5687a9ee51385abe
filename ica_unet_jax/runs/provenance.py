"""Where a run comes from: versions, commit, machine and command of its process."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax

import ica_unet_jax
from ica_unet_jax.runtime.compilation import threads
from ica_unet_jax.runtime.files import read_object

PACKAGES = ("ica-unet-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy", "nibabel", "onnx", "onnxruntime", "openvino")


def read(run_dir: str | Path) -> dict[str, Any]:
    """What `this_process` said when a run began. Raises UserError where it cannot be read."""
    return read_object(Path(run_dir) / "provenance.json", "name the --workdir of a training")


def this_process() -> dict[str, Any]:
    """Versions, commit, device and command of this process."""
    installed = {d.metadata["Name"] for d in importlib.metadata.distributions()}
    return {
        "command": ["python", *sys.orig_argv[1:]],  # as it was typed; where the interpreter lies says nothing
        "commit": commit(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES if name in installed},
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "cores": threads(),  # that the process may use
        "machine": processor(),
    }


def processor() -> str:
    """The name of the processor, as far as the system tells it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def in_a_line() -> str:
    """Command, commit, jax and device of this process in a line, for the log."""
    known = this_process()
    return f"{shlex.join(known['command'])}; commit {known['commit'] or '?'}; jax {jax.__version__}; {known['device']}"


@functools.cache  # of the code as it was loaded: results that are written into the checkout make it no other
def commit() -> str:
    """The commit of the checkout that runs, "-dirty" behind it with local changes; "" when installed as a wheel."""
    root = Path(ica_unet_jax.__file__).parent.parent
    if not (root / ".git").exists():
        return ""
    try:
        output = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True
        )
    except FileNotFoundError:  # no git on this machine
        return ""
    return output.stdout.strip()
