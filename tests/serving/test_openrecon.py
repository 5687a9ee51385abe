"""What OpenRecon reads of a container, by what its schema 1.1.0 asks for."""

import base64
import json
import re
import subprocess
import sys

from ica_unet_jax.serving import openrecon

REGULATED = {
    "device_trade_name", "production_identifier", "manufacturer_address", "made_in", "manufacture_date", "material_number", "gtin", "udi",
    "safety_advices", "special_operating_instructions", "additional_relevant_information",
}  # fmt: skip


def test_the_label_of_the_dockerfile_is_the_description_with_all_that_the_schema_requires(tmp_path):
    command = [sys.executable, "-m", "ica_unet_jax.serve", "--workdir=runs/acdc", f"--openrecon={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "OpenReconLabel.json").read_text())
    docker = (tmp_path / "Dockerfile").read_text()
    [label] = re.findall(f'LABEL "{openrecon.LABEL}"="(.*)"', docker)
    assert json.loads(base64.b64decode(label)) == told
    assert set(told) == {"general", "reconstruction", "parameters"} and told["parameters"] == []
    general, how = told["general"], told["reconstruction"]
    assert set(general) == {"name", "version", "vendor", "information", "id", "regulatory_information"}
    assert set(general["regulatory_information"]) == REGULATED and all(isinstance(v, str) for v in general["regulatory_information"].values())
    assert re.fullmatch(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?", general["version"])
    assert how["transfer_protocol"] == {"protocol": "ISMRMRD", "version": "1.4.1"} and how["emitter"] == how["injector"] == "image"
    assert f"--port={how['port']}" in docker and 'COPY ["runs/acdc/", "/opt/network/"]' in docker
