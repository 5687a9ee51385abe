"""FastICA finds bases that were put into a frame, and its rows are those of `decomposition.quality`."""

import warnings

import numpy as np
import pytest
from tiny import SMALL

from ica_unet_jax.config import Config
from ica_unet_jax.data import reading
from ica_unet_jax.errors import UserError
from ica_unet_jax.evaluation import decomposition
from ica_unet_jax.inference import segmenters
from ica_unet_jax.runtime import packages
from ica_unet_jax.sweeps import fastica

CONFIG = Config.make(**SMALL)


@pytest.fixture
def sklearn():
    return pytest.importorskip("sklearn.decomposition")


@pytest.fixture
def planted():
    """A stack (16, 64, 64) tiled with mixtures of three sparse bases (3, 16, 4, 4); the tiles do not overlap."""
    rng = np.random.default_rng(0)
    bases = rng.laplace(size=(3, 16, 4, 4))
    tiles = np.einsum("yxm,mdij->dyixj", rng.standard_normal((16, 16, 3)), bases)
    return bases, tiles.reshape(16, 64, 64)


def test_planted_bases_are_found(sklearn, planted):
    bases, image = planted
    found = fastica.unmix(image, 3, (4, 4))
    assert found.bases.shape == bases.shape and found.coefficients.shape == (256, 3) and found.converged
    both = np.corrcoef(bases.reshape(3, -1), found.bases.reshape(3, -1))[:3, 3:]
    match = np.abs(both).argmax(axis=1)
    assert sorted(match) == [0, 1, 2] and np.abs(both)[range(3), match].min() > 0.9
    figures = decomposition.figures_of(found.bases.reshape(3, -1), found.coefficients, found.reconstruction, image)
    assert figures["explained_variance"] > 0.999 and figures["correlation"] < 1e-6 and figures["n_values"] == 256


def test_fewer_bases_than_there_are_leave_something_unexplained(sklearn, planted):
    _, image = planted
    found = fastica.unmix(image, 2, (4, 4))
    assert 0.4 < 1 - np.var(image - found.reconstruction) / np.var(image) < 0.95


def test_as_many_bases_as_dimensions_rebuild_every_voxel(sklearn):
    """Patches overlap, and neither side is a whole number of strides: 5 x 7 patches of 2 x 6 x 6."""
    image = np.random.default_rng(0).gamma(2, 100, (2, 22, 27))
    found = fastica.unmix(image, 35, (6, 6))
    assert found.coefficients.shape == (35, 35)
    np.testing.assert_allclose(found.reconstruction, image, rtol=1e-6)


def test_constant_patches_are_rebuilt_from_their_mean(sklearn):
    """They are no mixtures: scikit-learn takes signs from the first one, which would be round-off here."""
    image = np.random.default_rng(0).standard_normal((2, 32, 32))
    image[:, :10, :10] = 3
    found = fastica.unmix(image, 5, (4, 4))
    assert np.isfinite(found.bases).all() and not found.coefficients[0].any() and found.coefficients[-1].all()
    np.testing.assert_allclose(found.reconstruction[:, :8, :8], 3)


def test_too_few_dimensions_say_so(sklearn):
    image = np.random.default_rng(0).standard_normal((1, 64, 64))
    assert len(fastica.unmix(image, 15, (4, 4)).bases) == 15
    with pytest.raises(fastica.TooFewDimensions, match="256 patches of 1x4x4 voxels span 15 dimensions, too few for 16 bases"):
        fastica.unmix(image, 16, (4, 4))
    for plain in (np.ones((2, 64, 64)), np.zeros((2, 3, 64))):
        with pytest.raises(fastica.TooFewDimensions, match="span 0 dimensions"):
            fastica.unmix(plain, 1, (4, 4))


def test_a_search_that_did_not_end_is_recorded_and_other_warnings_are_passed_on(sklearn, planted, monkeypatch):
    monkeypatch.setattr("ica_unet_jax.models.fastica.MAX_ITERATIONS", 1)
    assert not fastica.unmix(planted[1], 3, (4, 4)).converged
    fit = sklearn.FastICA.fit_transform

    def complaining(self, mixtures):
        warnings.warn("something else", RuntimeWarning, stacklevel=1)
        return fit(self, mixtures)

    monkeypatch.setattr(sklearn.FastICA, "fit_transform", complaining)
    with pytest.warns(RuntimeWarning, match="something else"):
        assert not fastica.unmix(planted[1], 3, (4, 4)).converged


def test_rows_are_those_of_a_network_and_the_same_every_time(sklearn, cohort, tiny_run, tmp_path):
    cases = reading.find_cases(cohort)[2:]
    rows, reason = fastica.quality(CONFIG, cases)
    decomposer = decomposition.Decomposer(segmenters.load(tiny_run))
    theirs = decomposition.rows_of([row for case in cases for row in decomposition.judge(decomposer, reading.read(case))])
    assert reason == "" and len(rows) == len(theirs) == 4
    for row, other in zip(rows, theirs, strict=True):
        assert tuple(row) == (*decomposition.COLUMNS, "converged")
        assert [row[name] for name in ("patient", "frame", "n_values")] == [other[name] for name in ("patient", "frame", "n_values")]
        assert 0 < row["explained_variance"] < 1 and row["converged"] == 1
    decomposition.write_csv(tmp_path / "a.csv", rows)
    decomposition.write_csv(tmp_path / "b.csv", fastica.quality(CONFIG, cases)[0])
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_no_rows_and_a_reason(sklearn, cohort):
    rows, reason = fastica.quality(CONFIG.replace(bases=32), reading.find_cases(cohort))
    assert rows == [] and reason.startswith("patient001, frame 1: its 256 patches of 2x4x4 voxels span 31 dimensions")


def test_without_scikit_learn_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr(packages, "missing", list)
    with pytest.raises(UserError, match=r'FastICA needs sklearn: pip install "ica-unet-jax\[ablations\]"'):
        fastica.unmix(np.zeros((2, 64, 64)), 3, (4, 4))
