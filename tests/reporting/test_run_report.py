"""report.md says what a run was, from its folder alone."""

import json
import re
import shutil

import pytest

from ica_unet_jax.errors import UserError
from ica_unet_jax.evaluation import judging
from ica_unet_jax.reporting import run_report
from ica_unet_jax.runs import run_folder
from ica_unet_jax.runs.log import Log


@pytest.fixture(scope="module")
def page(tiny_run, tmp_path_factory):
    """The report of the tiny run, judged, with a log and a patient who was left out; and its folder."""
    folder = shutil.copytree(tiny_run, tmp_path_factory.mktemp("report") / "tiny")
    judging.evaluate(folder, cines=1)
    Log(folder, lambda text: None)("going on from step 1")
    (folder / "left_out.json").write_text(json.dumps({"patient009": ["x_4d.nii.gz is constant."]}))
    return run_report.write(folder).read_text(), folder


def test_the_sections_say_what_a_reader_asks(page):
    text, folder = page
    assert re.findall("^#+ .*", text, re.M)[:4] == ["# tiny", "## Settings", "## Patients", "## Validation patients"]
    assert "2 of 2 steps. Validation Dice at step 2: 0.200." in text
    assert "| `--bases` | 3 | 32 |" in text and "| `--crop` | 2,64,64 | 10,192,192 |" in text
    assert "2 train; 2 val" in text and "- patient009: x_4d.nii.gz is constant." in text
    assert "| all | both | 2 |" in text
    known = json.loads((folder / "provenance.json").read_text())
    assert f"jax {known['versions']['jax']}" in text and "Commit " in text and known["device"] in text
    assert "going on from step 1" in text


def test_settings_that_are_defaults_are_not_listed(page):
    listed = set(re.findall(r"^\| `--(\w+)`", page[0], re.M))
    assert listed == set(run_folder.read_config(page[1]).diff(run_report.Config()))


def test_every_picture_is_linked_and_there(page):
    text, folder = page
    linked = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert linked and all((folder / name).is_file() for name in linked)
    pictures = {path.relative_to(folder).as_posix() for path in (folder / "evaluation_val" / "pictures").glob("*.png")}
    assert pictures <= set(linked)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="config.json cannot be read .*name the --workdir of a training."):
        run_report.write(tmp_path)
