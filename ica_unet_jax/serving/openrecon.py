"""What an OpenRecon container of the MRD server needs: a Dockerfile, and the description that scanners read from its label."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import ica_unet_jax
from ica_unet_jax.errors import UserError
from ica_unet_jax.runs.trained import Run, Trained, Weights, names
from ica_unet_jax.runtime.files import write_json, write_text

LABEL = "com.siemens-healthineers.magneticresonance.openrecon.metadata:1.1.0"
DESCRIPTION, DOCKERFILE = "OpenReconLabel.json", "Dockerfile"
PORT = 9002
NAME = "ICA-UNet"
PLACE = "/opt/network/"  # in the container


def description() -> dict[str, Any]:
    """After OpenRecon's schema 1.1.0. What a maker of a device must fill in is empty: this is none."""
    regulated = (
        "device_trade_name production_identifier manufacturer_address made_in manufacture_date material_number gtin udi safety_advices "
        "special_operating_instructions additional_relevant_information"
    )
    warning = "For research alone, not for diagnosis or treatment."
    return {
        "general": {
            "name": {"en": NAME},
            "version": ica_unet_jax.__version__,
            "vendor": "ica_unet_jax",
            "information": {"en": "Labels of the right ventricle, the myocardium and the left ventricle on short-axis cines, frame by frame."},
            "id": "icaunet",
            "regulatory_information": dict.fromkeys(regulated.split(), "")
            | {"device_trade_name": NAME, "production_identifier": ica_unet_jax.__version__, "safety_advices": warning},
        },
        "reconstruction": {
            "transfer_protocol": {"protocol": "ISMRMRD", "version": "1.4.1"},
            "port": PORT,
            "emitter": "image",
            "injector": "image",
            "can_process_adjustment_data": False,
            "can_use_gpu": False,
            "min_count_required_gpus": 0,
            "min_required_gpu_memory": 0,
            "min_required_memory": 4096,
            "min_count_required_cpu_cores": 2,
            "content_qualification_type": "RESEARCH",
        },
        "parameters": [],
    }


def dockerfile(network: Trained) -> str:
    """Built from the current folder, which is the top of a checkout. Raises UserError where docker would not find the network there."""
    copied, named = _placed(network)
    label = base64.b64encode(json.dumps(description()).encode()).decode()
    command = ["python", "-m", "ica_unet_jax.serve", named, "--protocol=mrd", "--bind=0.0.0.0", f"--port={PORT}"]
    return "\n".join(
        [
            "FROM python:3.12-slim",
            "COPY setup.py pyproject.toml README.md LICENSE /opt/source/",
            "COPY ica_unet_jax /opt/source/ica_unet_jax",
            "RUN pip install --no-cache-dir '/opt/source[scanner,realtime]'",
            *([f"COPY {json.dumps([copied, PLACE])}"] if copied else []),
            f"EXPOSE {PORT}",
            f'LABEL "{LABEL}"="{label}"',
            f"CMD {json.dumps(command)}",
            "",
        ]
    )


def _placed(network: Trained) -> tuple[str, str]:
    """What is to be copied to `PLACE`, "" where the network comes with the package, and the flag that names it there."""
    if isinstance(network, Weights) and network.name in names():
        return "", f"--weights={network.name}"
    try:
        path = network.path.resolve().relative_to(Path.cwd()).as_posix()
    except ValueError:
        raise UserError(f"{network.name} does not lie in the current folder, of which alone docker copies: copy it there, and name that.") from None
    return (f"{path}/", f"--workdir={PLACE}") if isinstance(network, Run) else (path, f"--weights={PLACE}{network.path.name}")


def write(folder: str | Path, network: Trained) -> None:
    """Writes both files. Raises UserError where they cannot be written or would replace others, or where there is no such network."""
    text, there = dockerfile(network), Path(folder) / DOCKERFILE
    if there.exists() and LABEL not in there.read_text(encoding="utf-8", errors="replace"):
        raise UserError(f"--openrecon={folder} holds another {DOCKERFILE}: choose another folder.")
    network.variables()
    write_json(Path(folder) / DESCRIPTION, description())
    write_text(there, text)
