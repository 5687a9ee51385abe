import os

import numpy as np
import pytest
from tiny import LOOP

from ica_unet_jax.config import Config
from ica_unet_jax.data import entries
from ica_unet_jax.errors import BadData
from ica_unet_jax.training.loading import load


@pytest.fixture
def config(cohort, tmp_path):
    return Config.make(**LOOP, data_dir=str(cohort), cache_dir=str(tmp_path / "cache"), workdir=str(tmp_path / "run"))


def test_several_processes_give_what_one_gives(config, tmp_path):
    samples, cines, split, left_out = load(config)
    others, same, again, _ = load(config.replace(workers=2, cache_dir=str(tmp_path / "other")))
    assert again == split and not left_out and len(others) == len(samples) == 4
    for one, other in zip(samples, others, strict=True):
        assert (one.case_name, one.time) == (other.case_name, other.time) and isinstance(other.frames, np.memmap)
        for part in ("frames", "labels", "valid"):
            np.testing.assert_array_equal(getattr(one, part), getattr(other, part))
    for one, other in zip(cines, same, strict=True):
        assert one.case == other.case and one.turn == other.turn and one.header == other.header
        np.testing.assert_array_equal(one.frames, other.frames)
        np.testing.assert_array_equal(list(one.labels.values()), list(other.labels.values()))


def test_several_processes_tell_all_that_is_wrong(config, cohort, tmp_path):
    (tmp_path / "dirty").mkdir()
    for number, patient in enumerate(sorted(cohort.iterdir())):
        folder = tmp_path / "dirty" / patient.name
        folder.mkdir()
        for file in patient.iterdir():
            (folder / file.name).write_bytes(file.read_bytes()[: 50 if number % 2 and "4d" in file.name else None])
    with pytest.raises(BadData) as error:
        load(config.replace(workers=2, data_dir=str(tmp_path / "dirty")))
    *problems, advice = error.value.problems
    assert {name for name in ("patient002_4d", "patient004_4d") if name in "".join(problems)} == {"patient002_4d", "patient004_4d"}
    assert advice.startswith("2 of 4 cases are bad")


def test_the_cache_keeps_to_its_bound_but_for_what_is_in_use(config, tmp_path, capsys):
    load(config.replace(spacing=2.0))  # no longer in use
    root = tmp_path / "cache"
    for old in root.iterdir():
        os.utime(old, (0, 0))
    samples, *_ = load(config.replace(cache_gb=1.0))
    assert len(list(root.iterdir())) == 4 and capsys.readouterr().err == ""
    again, *_ = load(config.replace(cache_gb=1e-6))
    left = list(root.iterdir())
    assert len(left) == 2 and not any(path.stat().st_mtime == 0 for path in left)
    assert "note: the cases in use take 0.0 GB, more than --cache_gb=1e-06; none of them is removed." in capsys.readouterr().err
    del samples, again
    assert entries.make_room(root, 0) == 0
