"""The phantom cohort in each of the layouts of the field."""

import shutil

import pytest
from layouts import LAYOUTS

from ica_unet_jax.data import reading


@pytest.fixture(scope="module")
def originals(cohort):
    return [reading.read(case) for case in reading.find_cases(cohort)]


@pytest.fixture(scope="module")
def written(originals, tmp_path_factory):
    """{layout: (folder, {old name: new name})}; nobody changes them."""
    root = tmp_path_factory.mktemp("layouts")
    return {layout: (root / layout, write(root / layout, originals)) for layout, write in LAYOUTS.items()}


@pytest.fixture
def copied(written, tmp_path):
    """copied(layout): the folder of a copy to damage."""
    return lambda layout: shutil.copytree(written[layout][0], tmp_path / layout)
