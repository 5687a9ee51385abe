import math

import numpy as np
import pytest

from ica_unet_jax.errors import UserError
from ica_unet_jax.metrics.ica import basis_quality, gaussian_log_cosh, mutual_information, reconstruction_quality


def sources(m=3, n=3000):
    """Independent, sparse, and a mixture of them."""
    rng = np.random.default_rng(0)
    independent = rng.laplace(size=(m, n))
    return independent, rng.normal(size=(m, m)) @ independent


def test_two_bases_by_hand():
    bases = np.array([[1, -1, 1, -1], [1, 1, -1, -1]])  # uncorrelated, independent, standardized
    quality = basis_quality(bases)
    assert quality["hoyer"] == quality["correlation"] == 0
    assert quality["mutual_information"] == pytest.approx(0, abs=1e-15)
    assert quality["kurtosis"] == -2  # E[z⁴] = 1
    assert quality["negentropy"] == pytest.approx((math.log(math.cosh(1)) - gaussian_log_cosh(1.0)) ** 2)


def test_sparsity_by_hand():
    assert basis_quality([[0, 0, -7, 0]])["hoyer"] == 1
    assert basis_quality([[1, 1, 0, 0]])["hoyer"] == pytest.approx(2 - math.sqrt(2))  # (2 − 2/√2) / (2 − 1)
    # z of (0, 0, −7, 0) is (1, 1, −3, 1) / √3: E[z⁴] = (3 + 81) / 9 / 4 = 7/3
    assert basis_quality([[0, 0, -7, 0]])["kurtosis"] == pytest.approx(7 / 3 - 3)


def test_equal_and_opposite_bases_are_dependent():
    quality = basis_quality([[1, -1, 1, -1], [-2, 2, -2, 2]])
    assert quality["correlation"] == pytest.approx(1)
    assert quality["mutual_information"] == pytest.approx(math.log(2))


def test_mutual_information_by_hand():
    # (0,0), (0,1), (1,1), each of p = 1/3; p_a = (2/3, 1/3), p_b = (1/3, 2/3); Σ p log(p / (p_a p_b)).
    expected = 2 / 3 * math.log(3 / 2) + 1 / 3 * math.log(3 / 4)
    assert mutual_information(np.array([0, 0, 1]), np.array([0, 1, 1])) == pytest.approx(expected)


def test_gaussian_reference():
    nodes, weights = np.polynomial.hermite_e.hermegauss(200)
    for alpha in (0.5, 0.75, 1.0):
        log_cosh = alpha * (np.logaddexp(nodes / alpha, -nodes / alpha) - math.log(2))
        assert (weights @ log_cosh) / weights.sum() == pytest.approx(gaussian_log_cosh(alpha), abs=1e-6)  # 200 nodes are not many at 0.5
    assert gaussian_log_cosh(1.0) == pytest.approx(0.3745672074912, abs=1e-12)


@pytest.mark.parametrize("factor", [1e-6, -2.5, 1e5])
def test_the_scale_of_a_basis_does_not_matter(factor):
    # 16 does not divide n − 1, so no quantile falls on a value and a change of sign only mirrors the bins.
    _, mixed = sources(n=1000)
    scaled = mixed * np.array([[factor], [1], [1 / factor]])
    assert basis_quality(scaled) == pytest.approx(basis_quality(mixed), rel=1e-9)


def test_independent_sources_score_better_than_their_mixture():
    independent, mixed = map(basis_quality, sources())
    for name in ("hoyer", "kurtosis", "negentropy"):
        assert independent[name] > mixed[name]
    for name in ("correlation", "mutual_information"):
        assert independent[name] < mixed[name]
    # Of independent bases the histogram shows its own bias, (bins − 1)² / 2n.
    assert independent["mutual_information"] == pytest.approx(15**2 / 6000, rel=0.15)


def test_constant_bases_are_counted_and_left_out():
    independent, _ = sources()
    constants = np.array([[0.0], [3.0]]) * np.ones((2, independent.shape[1]))
    with_constants = basis_quality(np.concatenate([independent, constants]).astype(np.float32))
    expected = basis_quality(independent.astype(np.float32)) | {"n_constant": 2}
    assert with_constants == pytest.approx(expected)
    alone = basis_quality(constants)
    assert alone.pop("n_constant") == 2
    assert all(math.isnan(value) for value in alone.values())


def test_bad_bases_fail_early():
    for bases in ([1, 2, 3], [[1]], [[1, math.nan]]):
        with pytest.raises(UserError, match="finite"):
            basis_quality(bases)


def image():
    return np.random.default_rng(1).random((2, 16, 18))


def test_reconstruction_by_hand():
    frame = image()
    assert reconstruction_quality(frame, frame) == {"psnr": math.inf, "ssim": 1, "explained_variance": 1}
    step = np.where(np.arange(20) < 10, -3.0, 5.0) * np.ones((20, 1))  # two values, range 8, mean 1
    flat = reconstruction_quality(np.ones((20, 20)), step)  # error ½ of the range everywhere
    assert flat["psnr"] == pytest.approx(10 * math.log10(4))
    assert flat["explained_variance"] == 0
    offset = reconstruction_quality(step + 0.8, step)  # a tenth of the range
    assert offset["psnr"] == pytest.approx(20)
    assert offset["explained_variance"] == pytest.approx(1)


def test_the_unit_of_the_image_does_not_matter():
    frame = image()
    noisy = frame + 0.1 * np.random.default_rng(2).normal(size=frame.shape)
    expected = reconstruction_quality(noisy, frame)
    assert reconstruction_quality(40 * noisy - 7, 40 * frame - 7) == pytest.approx(expected)


def test_more_noise_is_worse():
    frame, noise = image(), np.random.default_rng(2).normal(size=image().shape)
    light, heavy = (reconstruction_quality(frame + sigma * noise, frame) for sigma in (0.05, 0.2))
    assert all(light[name] > heavy[name] for name in light)


def test_degenerate_images():
    of_a_constant = reconstruction_quality(image()[:, :16, :16], np.ones((2, 16, 16)))
    assert all(map(math.isnan, of_a_constant.values()))
    with pytest.raises(UserError, match="11 rows"):
        reconstruction_quality(np.ones((2, 10, 16)), np.ones((2, 10, 16)))


def test_ssim_and_psnr_agree_with_monai():
    monai, torch = pytest.importorskip("monai.metrics"), pytest.importorskip("torch")
    frame = image()
    frame = (frame - frame.min()) / np.ptp(frame)
    noisy = frame + 0.1 * np.random.default_rng(2).normal(size=frame.shape)
    ours = reconstruction_quality(noisy, frame)
    batch = [torch.from_numpy(values[:, None]) for values in (noisy, frame)]
    ssim = monai.SSIMMetric(spatial_dims=2, data_range=1.0)(*batch).mean().item()
    assert ours["ssim"] == pytest.approx(ssim, rel=1e-5)
    psnr = monai.PSNRMetric(max_val=1.0)(*(values.reshape(1, -1) for values in batch)).item()
    assert ours["psnr"] == pytest.approx(psnr, rel=1e-6)


def test_scikit_learn_agrees():
    metrics = pytest.importorskip("sklearn.metrics")
    frame = image()
    noisy = 0.9 * frame + 0.1 * np.random.default_rng(2).normal(size=frame.shape)
    explained = metrics.explained_variance_score(frame.ravel(), noisy.ravel())
    assert reconstruction_quality(noisy, frame)["explained_variance"] == pytest.approx(explained, rel=1e-12)
    a, b = np.random.default_rng(3).integers(0, 4, size=(2, 200))
    assert mutual_information(a, b) == pytest.approx(metrics.mutual_info_score(a, b), rel=1e-12)


def test_fast_ica_finds_the_sources_again():
    decomposition = pytest.importorskip("sklearn.decomposition")
    independent, mixed = sources()
    found = decomposition.FastICA(whiten="unit-variance", random_state=0).fit_transform(mixed.T).T
    ours, truth, before = map(basis_quality, (found, independent, mixed))
    assert ours["correlation"] < 1e-6
    assert ours["negentropy"] == pytest.approx(truth["negentropy"], rel=0.05)
    assert ours["mutual_information"] == pytest.approx(truth["mutual_information"], rel=0.1)
    assert ours["mutual_information"] < before["mutual_information"]
