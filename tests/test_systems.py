"""The systems of the paper's tables: all of them, and as their launch files say."""

import dataclasses
from pathlib import Path

import pytest

from ica_unet_jax.config import Config
from ica_unet_jax.systems import PUBLISHED, SYSTEMS

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", PUBLISHED)
def test_launch_files_say_what_was_published(name):
    lines = (ROOT / "launch" / "baselines" / f"{name}.flags").read_text().splitlines()
    flags = dict(line[2:].split("=") for line in lines if line.startswith("--"))
    defaults = Config().flat()

    def typed(key, text):
        return text == "true" if isinstance(defaults[key], bool) else type(defaults[key])(text)

    assert {key: typed(key, text) for key, text in flags.items()} == PUBLISHED[name]


def test_every_system_of_the_papers_tables_is_there():
    names = {system.name for system in SYSTEMS}
    assert len(names) == len(SYSTEMS)
    assert {f"msu_net_span{span}" for span in (2, 3, 5, 10)} | set(PUBLISHED) - {"msu_net"} <= names
    causal = next(system for system in SYSTEMS if system.name == "ica_unet_n4_independent_past")
    assert causal.title == "ICA-UNet, n = 4, independent, past frame alone" and causal.config(Config()).model.frames == (-1,)
    for system in SYSTEMS:
        assert system.config(Config()).data == dataclasses.replace(Config().data, flip=system.name == "ensemble_unet")
