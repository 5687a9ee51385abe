"""What an OpenRecon container of the MRD server needs: a Dockerfile, and the description that scanners read from its label."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import ica_unet_jax
from ica_unet_jax.runtime.files import write_json, write_text

LABEL = "com.siemens-healthineers.magneticresonance.openrecon.metadata:1.1.0"
DESCRIPTION, DOCKERFILE = "OpenReconLabel.json", "Dockerfile"
PORT = 9002
NAME = "ICA-UNet"


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


def dockerfile(network: str) -> str:
    """Built from the top of a checkout; `network` is a run folder in it, as a path from there."""
    label = base64.b64encode(json.dumps(description()).encode()).decode()
    command = ["python", "-m", "ica_unet_jax.serve", "--workdir=/opt/network", "--protocol=mrd", "--bind=0.0.0.0", f"--port={PORT}"]
    return "\n".join(
        [
            "FROM python:3.12-slim",
            "COPY setup.py pyproject.toml README.md LICENSE /opt/source/",
            "COPY ica_unet_jax /opt/source/ica_unet_jax",
            "RUN pip install --no-cache-dir '/opt/source[scanner,realtime]'",
            f"COPY {json.dumps([network.rstrip('/') + '/', '/opt/network/'])}",
            f"EXPOSE {PORT}",
            f'LABEL "{LABEL}"="{label}"',
            f"CMD {json.dumps(command)}",
            "",
        ]
    )


def write(folder: str | Path, network: str) -> None:
    """Writes both files; UserError where they cannot be written."""
    write_json(Path(folder) / DESCRIPTION, description())
    write_text(Path(folder) / DOCKERFILE, dockerfile(network))
