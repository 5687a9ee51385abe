"""How good bases and reconstruction are as an ICA, whatever their scale."""

import functools
import math
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ica_unet_jax.errors import UserError

CONSTANT = 1e-6  # a basis whose SD is below this share of its largest value is constant up to float32 rounding
SSIM_SIGMA, SSIM_RADIUS = 1.5, 5  # Wang et al. 2004: an 11×11 Gaussian window


@functools.cache
def gaussian_log_cosh(alpha: float) -> float:
    """E[alpha log cosh(g / alpha)] of a standard normal g, by the trapezoidal rule."""
    g = np.linspace(-12, 12, 24001)  # of a smooth function that vanishes at both ends: exact to round-off
    density = np.exp(-np.square(g) / 2) / math.sqrt(2 * math.pi)
    return float((alpha * _log_cosh(g / alpha) * density).sum() * (g[1] - g[0]))


def _log_cosh(z: np.ndarray) -> np.ndarray:
    return np.logaddexp(z, -z) - math.log(2)  # finite for any z


def negentropies(bases: npt.ArrayLike, alpha: float) -> np.ndarray:
    """(E[G(z)] - E[G(g)])^2 of each basis (m, n_values), standardized: G(z) = alpha log cosh(z / alpha), g a standard normal.

    NaN of a constant basis.
    """
    bases = np.asarray(bases, dtype=np.float64)
    varies = bases.std(axis=1, keepdims=True) > CONSTANT * np.abs(bases).max(axis=1, keepdims=True)
    deviation = np.where(varies, bases.std(axis=1, keepdims=True), np.nan)
    z = (bases - bases.mean(axis=1, keepdims=True)) / deviation
    return ((alpha * _log_cosh(z / alpha)).mean(axis=1) - gaussian_log_cosh(alpha)) ** 2


def basis_quality(bases: npt.ArrayLike, bins: int = 16) -> dict[str, float]:
    """Sparsity and independence of the bases of one frame: bases (m, n_values) → a dict of

    hoyer: mean of (√n − ‖x‖₁/‖x‖₂) / (√n − 1), from 0 (all values of one size) to 1 (a single value).
    kurtosis: mean excess kurtosis, 0 for a Gaussian, positive for sparse values.
    negentropy: mean of (E[log cosh z] − E[log cosh ν])², z the standardized basis, ν a standard normal.
    correlation: mean absolute Pearson correlation over the pairs of bases.
    mutual_information: mean over the pairs, in nats, of a joint histogram of bins × bins of equal population;
        independent bases have about (bins − 1)² / 2n_values, so compare at one n_values.
    n_constant: constant bases; they are in none of the means. Means over nothing are NaN.

    Nothing changes when a basis is multiplied by a number other than 0.
    Raises UserError for values that are not finite, or fewer than two.
    """
    bases = np.asarray(bases, dtype=np.float64)
    if bases.ndim != 2 or bases.shape[1] < 2 or not np.isfinite(bases).all():
        raise UserError(f"Bases of shape {bases.shape} cannot be judged: give (m, n_values ≥ 2) finite numbers.")
    varying = bases[bases.std(axis=1) > CONSTANT * np.abs(bases).max(axis=1)]
    z = (varying - varying.mean(axis=1, keepdims=True)) / varying.std(axis=1, keepdims=True)

    root = math.sqrt(bases.shape[1])
    norms_ratio = np.abs(varying).sum(axis=1) / np.sqrt((varying**2).sum(axis=1))
    pairs = list(combinations(range(len(z)), 2))
    correlations = np.abs(z @ z.T / z.shape[1])
    quantiles = np.quantile(z, np.arange(1, bins) / bins, axis=1).T
    codes = [np.searchsorted(edges, basis, side="right") for edges, basis in zip(quantiles, z, strict=True)]
    return {
        "hoyer": _mean((root - norms_ratio) / (root - 1)),
        "kurtosis": _mean((z**4).mean(axis=1) - 3),
        "negentropy": _mean(negentropies(varying, 1.0)),
        "correlation": _mean([correlations[pair] for pair in pairs]),
        "mutual_information": _mean([mutual_information(codes[i], codes[j]) for i, j in pairs]),
        "n_constant": len(bases) - len(varying),
    }


def mutual_information(a: np.ndarray, b: np.ndarray) -> float:
    """Mutual information in nats of two arrays (n,) of bin numbers 0, 1, …, by their joint histogram."""
    shape = a.max() + 1, b.max() + 1
    joint = np.bincount(np.ravel_multi_index((a, b), shape), minlength=math.prod(shape)).reshape(shape) / a.size
    product = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    seen = joint > 0
    return float((joint[seen] * np.log(joint[seen] / product[seen])).sum())


def reconstruction_quality(reconstruction: np.ndarray, image: np.ndarray) -> dict[str, float]:
    """How well a frame is rebuilt: two arrays (..., rows, columns), at least 11 × 11 → a dict of

    psnr: −10 log₁₀ of the mean squared error, in dB; inf for a perfect reconstruction.
    ssim: mean structural similarity over the slices, Gaussian window 11 × 11 (σ 1.5), inside the border of 5.
    explained_variance: 1 − var(image − reconstruction) / var(image); an offset costs nothing here.

    Both arrays first go through the map that takes the image's range to [0, 1], so its unit does not matter.
    All NaN for a constant image. Raises UserError for shapes that differ or are too small.
    """
    image, reconstruction = np.asarray(image, np.float64), np.asarray(reconstruction, np.float64)
    if image.shape != reconstruction.shape or image.ndim < 2 or min(image.shape[-2:]) <= 2 * SSIM_RADIUS:
        raise UserError(
            f"Images of shapes {reconstruction.shape} and {image.shape} cannot be compared: "
            f"give one shape, at least {2 * SSIM_RADIUS + 1} rows and columns."
        )
    low, extent = image.min(), np.ptp(image)
    if extent == 0:
        return dict.fromkeys(("psnr", "ssim", "explained_variance"), math.nan)
    x, y = (image - low) / extent, (reconstruction - low) / extent
    error = float(np.mean((x - y) ** 2))
    return {
        "psnr": -10 * math.log10(error) if error else math.inf,
        "ssim": _ssim(x, y),
        "explained_variance": float(1 - np.var(x - y) / np.var(x)),
    }


def _ssim(x: np.ndarray, y: np.ndarray) -> float:
    c1, c2 = 0.01**2, 0.03**2  # Wang et al. 2004, for a data range of 1
    inside = (..., slice(SSIM_RADIUS, -SSIM_RADIUS), slice(SSIM_RADIUS, -SSIM_RADIUS))

    def local_mean(values):
        return ndimage.gaussian_filter(values, SSIM_SIGMA, radius=SSIM_RADIUS, axes=(-2, -1))[inside]

    mean_x, mean_y = local_mean(x), local_mean(y)
    var_x, var_y = local_mean(x * x) - mean_x**2, local_mean(y * y) - mean_y**2
    covariance = local_mean(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (var_x + var_y + c2)
    return float(np.mean(luminance * structure))


def _mean(values) -> float:
    return float(np.mean(values)) if len(values) else math.nan
