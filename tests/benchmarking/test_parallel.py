"""The streams' forms compute the same, on as many cores as are asked for."""

import dataclasses

import numpy as np
import pytest
from tiny import SMALL

from ica_unet_jax.benchmarking import parallel
from ica_unet_jax.config import Config
from ica_unet_jax.portable import runtimes
from ica_unet_jax.reporting import figures

MODEL = Config.make(**SMALL | dict(neighbours="past")).model


def test_all_forms_of_independent_streams_give_the_same_values():
    calls = parallel.forms(dataclasses.replace(MODEL, bases=3))
    expected = np.asarray(calls[parallel.MAPPED]())
    assert expected.shape == (1, 1, 16, 16, 3) and np.ptp(expected) > 0.1
    others = [name for name in calls if not name.startswith((parallel.MAPPED, parallel.DENSE))]
    assert len(others) == 2 + len(runtimes.at_hand()) - 1
    for name in others:
        np.testing.assert_allclose(calls[name](), expected, atol=1e-5)


@pytest.mark.slow
def test_a_form_with_other_values_is_no_form(monkeypatch):
    in_jax = parallel._in_jax
    monkeypatch.setattr(parallel, "_in_jax", lambda function, a: in_jax(function, a * (2 if parallel.compilation.is_for_elsewhere() else 1)))
    with pytest.raises(ValueError, match="'grouped convolutions' gives other values than 'mapped'"):
        parallel.forms(dataclasses.replace(MODEL, bases=2))


@pytest.mark.slow
def test_each_number_of_cores_has_its_process_and_its_lines(tmp_path):
    result = parallel.parallel(MODEL, (2, 3), seconds=0.0, json_file=tmp_path / "result.json")
    cores = {"1", str(result["machine"]["cores"])}
    assert set(result["cores"]) == cores and (tmp_path / "result.json").is_file()
    heads, rows = parallel.table(result)
    assert heads == ("form", "cores", "m = 2", "m = 3")
    assert {tuple(row[:2]) for row in rows} == {(form, core) for core in cores for form in result["cores"]["1"]["2"]}
    assert all(float(value) > 0 for row in rows for value in row[2:])
    figures.parallel_streams(tmp_path / "picture.png", parallel.panels(result))
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
