"""scikit-learn's FastICA on the frames that an ICA-UNet decomposes, judged alike: what ICA itself makes of them.

As in the paper a frame is F = A (x) X, with m independent bases that all positions share: its patches, of a basis'
size and 4 pixels apart, are the mixtures, the pixels of a patch the samples. The components are then m bases of
d * h/16 * w/16 values, and the mixing matrix holds one coefficient for each patch and basis. Two differences remain:
a patch's mean, which FastICA takes off, is given back to it (one more coefficient a patch), and the patches span all
slices, while ICA-UNet has coefficients at d/2 depths. Padding is in no mixture, so a short stack has shorter bases.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from ica_unet_jax.config import Config
from ica_unet_jax.data import reading
from ica_unet_jax.data.case import Case
from ica_unet_jax.data.geometry import normalize, place
from ica_unet_jax.data.heart import on_heart
from ica_unet_jax.evaluation.decomposition import Row, figures_of, frame_row, image_box
from ica_unet_jax.models.fastica import TooFewDimensions, components

STRIDE = 4  # voxels between neighbouring coefficients, as in ICA-UNet's mixing


@dataclasses.dataclass(frozen=True)
class Unmixed:
    """What FastICA makes of one stack of slices (s, h, w)."""

    bases: np.ndarray  # (m, s, K, L), of unit variance and zero mean
    coefficients: np.ndarray  # (patches, m); 0 where a patch is constant
    reconstruction: np.ndarray  # (s, h, w)
    converged: bool


def quality(config: Config, cases: Iterable[Case]) -> tuple[list[Row], str]:
    """(rows, '') as `decomposition.rows_of` has them, with the column `converged`; or ([], why there are none).

    The frames are the labelled ones of `cases`, on the grid and with the number of bases of `config`. `converged` is 1
    where FastICA met its tolerance (in all depth windows of the frame; their share otherwise).

    Raises:
      UserError: scikit-learn is not installed, or a case cannot be read.
    """
    _, height, width = config.model.crop
    rows = []
    for case in cases:
        cine = reading.read(case, config.data.label_map)
        placement = place(cine.frames.shape[1:], cine.spacing, config.model.crop, config.data.spacing)
        if config.data.train_window == "heart":
            placement = on_heart(placement, cine.labels.values())
        for time in sorted(cine.labels):
            figures = []
            for image, valid in zip(placement.forward(normalize(cine.frame(time))), placement.valid, strict=True):
                image = image[image_box(valid)]
                try:
                    unmixed = unmix(image, config.model.bases, (height // 16, width // 16))
                except TooFewDimensions as reason:
                    return [], f"{case.name}, frame {time + 1}: {reason}"
                bases = unmixed.bases.reshape(config.model.bases, -1)
                found = figures_of(bases, unmixed.coefficients, unmixed.reconstruction, image)
                figures.append(found | {"converged": unmixed.converged})
            rows.append(frame_row(case.name, time, figures))
    return rows, ""


def unmix(image: np.ndarray, m: int, patch: tuple[int, int]) -> Unmixed:
    """FastICA of a stack (s, h, w) without padding: m bases of (s, *patch) voxels.

    The reconstruction averages patches that overlap. Deterministic; the order and the signs of the bases mean nothing.

    Raises:
      TooFewDimensions: m is not below s * K * L, the number of samples, or the image is too small or too plain for m.
      UserError: scikit-learn is not installed.
    """
    image = np.asarray(image, np.float64)
    rows, columns = (_starts(size, side) for size, side in zip(image.shape[1:], patch, strict=True))
    corners = [(slice(None), slice(i, i + patch[0]), slice(j, j + patch[1])) for i in rows for j in columns]
    samples = image.shape[0] * patch[0] * patch[1]
    mixtures = np.reshape([image[corner] for corner in corners], (len(corners), samples)).T
    means = mixtures.mean(axis=0)
    # A constant patch is its mean. As the first mixture, from which scikit-learn takes signs, it would be round-off.
    varying = np.ptp(mixtures, axis=0) > 1e-6 * np.ptp(image)
    size = "x".join(map(str, (image.shape[0], *patch)))
    found = components(mixtures[:, varying], m, f"its {len(corners)} patches of {size} voxels")

    coefficients = np.zeros((len(corners), m))
    coefficients[varying] = found.mixing
    total, count = np.zeros_like(image), np.zeros_like(image)
    for corner, values in zip(corners, coefficients @ found.sources.T + means[:, None], strict=True):
        total[corner] += values.reshape(total[corner].shape)
        count[corner] += 1
    bases = found.sources.T.reshape(m, image.shape[0], *patch)
    return Unmixed(bases, coefficients, total / count, found.converged)


def _starts(size: int, side: int) -> list[int]:
    """First voxels of the patches along an axis, STRIDE apart, and a last one that ends where the image does."""
    return sorted({*range(0, size - side + 1, STRIDE), size - side}) if size >= side else []
