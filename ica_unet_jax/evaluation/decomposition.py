"""What a trained ICA-UNet makes of a frame: bases, coefficients, reconstruction; and how good these are as an ICA."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from ica_unet_jax.config import LossConfig
from ica_unet_jax.data.case import Cine
from ica_unet_jax.data.geometry import front_padding, resample_labels
from ica_unet_jax.errors import UserError
from ica_unet_jax.evaluation.frames import trained_placement
from ica_unet_jax.inference.segmenters import Segmenter
from ica_unet_jax.labels import NUM_CLASSES
from ica_unet_jax.metrics.cases import patient_means
from ica_unet_jax.metrics.cross_entropy import cross_entropy
from ica_unet_jax.metrics.ica import basis_quality, negentropies, reconstruction_quality
from ica_unet_jax.models import losses
from ica_unet_jax.models.ica_unet import FrameFeatures
from ica_unet_jax.models.networks import build_model
from ica_unet_jax.runtime.files import replacing

Row = dict[str, Any]
Judged = tuple[Row, np.ndarray]  # of a frame, and its X in the mean over depth windows
Parts = tuple[jax.Array, jax.Array, jax.Array]  # bases, coefficients, reconstruction

SCALES = ("scale_of_bases", "scale_of_coefficients")
COLUMNS = (
    "patient", "frame", "hoyer", "kurtosis", "negentropy", "correlation", "mutual_information", "n_constant",
    "psnr", "ssim", "explained_variance", *SCALES, "n_values",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Decomposition:
    """One depth window of one frame, on the model's grid (d, h, w), with m bases of u channels."""

    patient: str
    frame: int  # from 0
    first_slice: int  # of the native stack, from 0; negative where padding comes first
    image: Float[np.ndarray, "d h w"]  # normalized
    valid: Bool[np.ndarray, "d h w"]  # false in padding
    bases: Float[np.ndarray, "d K L u m"]  # X, K = h/16, L = w/16
    coefficients: Float[np.ndarray, "half rows columns m"]  # A_n, (d/2, h/4, w/4, m), before the backbone
    reconstruction: Float[np.ndarray, "d h w"]  # A_n (x) X, averaged over the u channels
    logits: Float[np.ndarray, "d h w classes"]
    mixed: Float[np.ndarray, "half rows columns m"] | None = None  # A'_{c,n}, after it, where it is asked for

    @property
    def cells(self) -> Bool[np.ndarray, "half rows columns"]:
        """Where a coefficient has image below it; the others are zero before they are mixed."""
        half, rows, columns, _ = self.coefficients.shape
        return self.valid.reshape(half, 2, rows, 4, columns, 4).any((1, 3, 5))

    @property
    def images_of_bases(self) -> Float[np.ndarray, "d K L m"]:
        """The bases averaged over their channels: all of them that the reconstruction sees, as it is linear in X."""
        return self.bases.mean(axis=3)

    @property
    def energy(self) -> Float[np.ndarray, " m"]:
        """What each basis adds to the reconstruction: mean A_n² times the sum of squares of its image, whatever its scale."""
        return np.square(self.coefficients[self.cells]).mean(axis=0) * np.square(self.images_of_bases).sum((0, 1, 2))


class Decomposer:
    """A segmenter's network with its intermediates, by the functions that are compiled already; in JAX, whatever its runtime.

    With `pictured` it also gives what the backbone makes of the coefficients, for which the decoder is compiled once more.
    Raises UserError for a network that has no bases.
    """

    def __init__(self, segmenter: Segmenter, *, pictured: bool = False):
        config = segmenter.config.model
        if not config.has_bases:
            what = f"--model={config.model}" if config.model != "ica_unet" else f"--mixing={config.mixing}"
            raise UserError(f"{what} has no bases: name the run of an ica_unet that mixes.")
        self.segmenter = segmenter.straight_in_jax()
        model, (first, offsets) = build_model(config), (segmenter.first, config.frames)

        def unmix(variables: Mapping[str, Any], features: FrameFeatures) -> Parts:
            parts = model.apply(variables, features, method=model.unmixed)
            return parts["bases"][0], parts["coefficients"][0], parts["reconstruction"][0, ..., 0]

        def transform(variables: Mapping[str, Any], *features: FrameFeatures) -> jax.Array:
            neighbours = {offset: features[first + offset] for offset in offsets}
            _, parts = model.apply(variables, neighbours, features[first], method=model.decode)
            return parts["mixed"][-1][0].astype(jnp.float32)

        self._unmix, self._transform = jax.jit(unmix), jax.jit(transform) if pictured else None

    def __call__(self, cine: Cine, times: Iterable[int] | None = None) -> Iterator[list[Decomposition]]:
        """The decompositions of some frames (by number from 0; without `times` the labelled ones), one after the other.

        A stack of more than d slices has several depth windows, each with bases of its own: an element each.
        """
        segmenter, config = self.segmenter, self.segmenter.config
        placement = trained_placement(segmenter, cine)
        front = front_padding(placement.shape[0], placement.crop[0])
        for time in sorted(cine.labels) if times is None else times:
            group = segmenter.group(cine.window(time, config.model.reach, config.data.cyclic))
            images = {t: segmenter.put(cine.frame(t)) for t in set(group)}
            features = {t: segmenter.encode(placement, image) for t, image in images.items()}
            [logits] = segmenter.decode(*(features[t] for t in group))
            windows = []
            for window, (image, valid) in enumerate(segmenter.views(placement, images[time])):
                seen = [features[t][window] for t in group]
                parts = map(np.asarray, self._unmix(segmenter.variables, features[time][window]))
                mixed = np.asarray(self._transform(segmenter.variables, *seen)) if self._transform else None
                what = np.asarray(image)[0, ..., 0], np.asarray(valid)[0, ..., 0] > 0
                first_slice = placement.windows[window] - front
                windows.append(Decomposition(cine.case.name, time, first_slice, *what, *parts, np.asarray(logits[window])[0], mixed))
            yield windows


def judge(decomposer: Decomposer, cine: Cine) -> list[Judged]:
    """How good the bases and the reconstruction of each labelled frame are; `rows_of` makes rows of it."""
    segmenter = decomposer.segmenter
    placement, found = trained_placement(segmenter, cine), []
    for windows in decomposer(cine):
        truth = resample_labels(cine.labels[windows[0].frame], placement, NUM_CLASSES)
        terms = [weighted_terms(part, labels, segmenter.config.loss) for part, labels in zip(windows, truth, strict=True)]
        found.append((row_of(windows) | mean_of(terms), np.mean([part.bases for part in windows], axis=0)))
    return found


def rows_of(judged: Sequence[Judged]) -> list[Row]:
    """A row a frame, of all frames of a cohort together, with `COLUMNS`.

    Further columns are what the loss weighs, see `weighted_terms`, and frame_share, the share of X's energy that differs from
    the mean over these frames.
    """
    shares = frame_shares([bases for _, bases in judged]) if judged else []
    return [row | {"frame_share": share} for (row, _), share in zip(judged, shares, strict=True)]


def summarize(rows: Sequence[Row]) -> dict[str, float | None]:
    """Each figure's mean over the frames of a patient, then over patients, JSON-safe; what is not finite is left out."""
    if not rows:
        return {}
    names = [name for name in rows[0] if name not in ("patient", "frame")]
    patients = np.array([*patient_means(((row["patient"], row) for row in rows), names).values()])
    finite = [column[np.isfinite(column)] for column in patients.T]
    return {name: float(column.mean()) if len(column) else None for name, column in zip(names, finite, strict=True)}


def weighted_terms(part: Decomposition, labels: np.ndarray, config: LossConfig) -> dict[str, float]:
    """The terms of one depth window as they stand in the loss, with their weights.

    cross_entropy: of the finest output, in nats. weighted_sparsity, weighted_independence, weighted_reconstruction: beta
    times lambda times the term of Eq. 1. negentropy_alpha: as the term that the paper cites has it, with the trained alpha.

    Args:
      labels: the truth (d, h, w) on the model's grid.
    """
    image, valid, rebuilt = (jnp.asarray(x[None, ..., None], jnp.float32) for x in (part.image, part.valid, part.reconstruction))
    terms = losses.ica_terms(jnp.asarray(part.bases[None]), rebuilt, image, valid, config)
    weighted = {f"weighted_{name}": weight * float(terms[name]) for name, weight in losses.weights(config).items()}
    flat = part.bases.reshape(-1, part.bases.shape[-1]).T
    return {
        "cross_entropy": cross_entropy(part.logits[part.valid], labels[part.valid]),
        **weighted,
        "negentropy_alpha": float(np.nanmean(negentropies(flat, config.alpha))),
    }


def frame_shares(bases: Sequence[np.ndarray]) -> list[float]:
    """Of the energy of X in each frame the share by which it differs from the mean over these frames, 0 to 1 and above."""
    stacked = np.stack(bases).astype(np.float64)
    moved = np.square(stacked - stacked.mean(0)).sum(tuple(range(1, stacked.ndim)))
    return (moved / np.square(stacked).sum(tuple(range(1, stacked.ndim)))).tolist()


def row_of(windows: Sequence[Decomposition]) -> Row:
    """The row of one frame. Its bases are averaged over their u channels, as the reconstruction sees them.

    So n_values is the number that FastICA has, without which the mutual information could not be compared.
    """
    return frame_row(windows[0].patient, windows[0].frame, [_figures(part) for part in windows])


def frame_row(patient: str, frame: int, figures: Sequence[Mapping[str, float]]) -> Row:
    """The row of frame number `frame` (from 0) by the figures of its depth windows, which are averaged."""
    return {"patient": patient, "frame": frame + 1} | mean_of(figures)


def mean_of(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Each figure's mean over the depth windows of a frame."""
    return {name: float(np.mean([window[name] for window in figures])) for name in figures[0]}


def _figures(part: Decomposition) -> dict[str, float]:
    bases, box = part.images_of_bases, image_box(part.valid)
    return figures_of(
        bases.reshape(-1, bases.shape[-1]).T, part.coefficients[part.cells], part.reconstruction[box], part.image[box]
    )


def figures_of(bases: np.ndarray, coefficients: np.ndarray, reconstruction: np.ndarray, image: np.ndarray) -> dict[str, float]:
    """The figures of one window, as in `COLUMNS`; all but the two scales are free of the scale of the bases.

    Args:
      bases: (m, n_values).
      coefficients: of any shape, without padding.
      reconstruction, image: (slices, rows, columns), without padding.

    Raises:
      UserError: bases that are not finite, images below 11 x 11.
    """
    scales = [float(np.abs(array).mean()) for array in (bases, coefficients)]
    return (
        basis_quality(bases)
        | reconstruction_quality(reconstruction, image)
        | dict(zip(SCALES, scales, strict=True))
        | {"n_values": bases.shape[1]}
    )


def image_box(valid: Bool[np.ndarray, "d h w"]) -> tuple[np.ndarray, ...]:
    """The index of the slices, rows and columns that hold image: `valid` is a box, true inside and false in padding."""
    return np.ix_(valid.any((1, 2)), valid.any((0, 2)), valid.any((0, 1)))


def write_csv(path: str | Path, rows: Sequence[Row]) -> None:
    """Rows as ica.csv: `COLUMNS`, then what else the rows have; 6 significant digits, but not beyond 1e-12 (round-off).

    Raises UserError where nothing can be written.
    """
    columns = dict.fromkeys([*COLUMNS, *(name for row in rows for name in row)])
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: value if name == "patient" else f"{round(value, 12):.6g}" for name, value in row.items()} for row in rows)


def read_csv(path: str | Path) -> list[Row]:
    """The rows that `write_csv` wrote. Raises UserError for a file that is none of these."""
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            return [
                {name: text if name == "patient" else (int if name == "frame" else float)(text) for name, text in row.items()}
                for row in csv.DictReader(file)
            ]
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read as a table of ICA quality ({error}): write it again.") from error
