"""What OpenRecon reads of a container, by what its schema 1.1.0 asks for."""

import base64
import json
import re
import shutil
from pathlib import Path

import pytest

from ica_unet_jax.errors import UserError
from ica_unet_jax.runs import trained
from ica_unet_jax.serving import openrecon

REGULATED = {
    "device_trade_name", "production_identifier", "manufacturer_address", "made_in", "manufacture_date", "material_number", "gtin", "udi",
    "safety_advices", "special_operating_instructions", "additional_relevant_information",
}  # fmt: skip


@pytest.fixture
def checkout(tiny_run, tmp_path, monkeypatch):
    """The current folder, with a run folder in it."""
    shutil.copytree(tiny_run, tmp_path / "runs/acdc")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_label_of_the_dockerfile_is_the_description_with_all_that_the_schema_requires(checkout):
    (checkout / "Dockerfile").write_text(openrecon.LABEL)  # our own one, which is replaced
    openrecon.write(checkout, trained.Run(Path("runs/acdc")))
    told = json.loads((checkout / "OpenReconLabel.json").read_text())
    docker = (checkout / "Dockerfile").read_text()
    [label] = re.findall(f'LABEL "{openrecon.LABEL}"="(.*)"', docker)
    assert json.loads(base64.b64decode(label)) == told
    assert set(told) == {"general", "reconstruction", "parameters"} and told["parameters"] == []
    general, how = told["general"], told["reconstruction"]
    assert set(general) == {"name", "version", "vendor", "information", "id", "regulatory_information"}
    assert set(general["regulatory_information"]) == REGULATED and all(isinstance(v, str) for v in general["regulatory_information"].values())
    assert re.fullmatch(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?", general["version"])
    assert how["transfer_protocol"] == {"protocol": "ISMRMRD", "version": "1.4.1"} and how["emitter"] == how["injector"] == "image"
    assert f"--port={how['port']}" in docker and 'COPY ["runs/acdc/", "/opt/network/"]' in docker
    assert '"--workdir=/opt/network/"' in docker


def test_a_weights_file_is_copied_too_and_a_path_from_the_root_is_made_relative(checkout):
    (checkout / "w.safetensors").touch()
    docker = openrecon.dockerfile(trained.weights("w.safetensors"))
    assert 'COPY ["w.safetensors", "/opt/network/"]' in docker and '"--weights=/opt/network/w.safetensors"' in docker
    assert 'COPY ["runs/acdc/", "/opt/network/"]' in openrecon.dockerfile(trained.Run(checkout / "runs/acdc"))


def test_what_docker_would_not_find_is_refused_and_another_dockerfile_kept(checkout, tiny_run):
    for network, told in ((trained.Run(Path("runs/other")), "runs/other"), (trained.Run(tiny_run), "current folder")):
        with pytest.raises(UserError, match=told):
            openrecon.write("o", network)
    (checkout / "Dockerfile").write_text("FROM scratch")
    with pytest.raises(UserError, match="another Dockerfile"):
        openrecon.write(".", trained.Run(Path("runs/acdc")))
    assert (checkout / "Dockerfile").read_text() == "FROM scratch" and not (checkout / "OpenReconLabel.json").exists() and not (checkout / "o").exists()

