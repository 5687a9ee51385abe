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
from jaxtyping import Array, Bool, Float

from ica_unet_jax.config import LossConfig
from ica_unet_jax.data import reading
from ica_unet_jax.data.case import Case, Cine
from ica_unet_jax.data.geometry import front_padding, normalize, resample_labels
from ica_unet_jax.errors import UserError
from ica_unet_jax.evaluation import judging
from ica_unet_jax.inference import segmenters
from ica_unet_jax.labels import NUM_CLASSES
from ica_unet_jax.metrics.ica import basis_quality, negentropies, reconstruction_quality
from ica_unet_jax.models import losses
from ica_unet_jax.models.networks import build_model
from ica_unet_jax.runs import run_folder
from ica_unet_jax.runtime.files import replacing
from ica_unet_jax.training.validation import cross_entropy

Row = dict[str, Any]

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
    mixed: Float[np.ndarray, "half rows columns m"]  # A'_{c,n}, after it
    reconstruction: Float[np.ndarray, "d h w"]  # A_n (x) X, averaged over the u channels
    logits: Float[np.ndarray, "d h w classes"]

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
    """The compiled network with all of its intermediates. Raises UserError for a network that has no bases."""

    def __init__(self, segmenter: segmenters.Segmenter):
        self.segmenter = segmenter
        self.traces = 0  # compilations so far; a test holds it down
        if not segmenter.config.model.has_bases:
            model = segmenter.config.model
            what = f"--model={model.model}" if model.model != "ica_unet" else f"--mixing={model.mixing}"
            raise UserError(f"{what} has no bases: name the run of an ica_unet that mixes.")
        model = build_model(segmenter.config.model)

        def decompose(
            variables: Mapping[str, Any],
            previous: Float[Array, "1 d h w 1"],
            current: Float[Array, "1 d h w 1"],
            following: Float[Array, "1 d h w 1"],
            valid: Float[Array, "1 d h w 1"],
        ):
            self.traces += 1
            logits, aux = model.apply(variables, previous, current, following, valid)
            reconstruction = aux["reconstruction"][..., 0]
            parts = aux["bases"], aux["coefficients"], aux["mixed"][-1], reconstruction, logits[-1]
            return [part[0].astype("float32") for part in parts]

        self._decompose = jax.jit(decompose)

    def __call__(self, cine: Cine, times: Iterable[int] | None = None) -> Iterator[list[Decomposition]]:
        """The decompositions of some frames (by number from 0; without `times` the labelled ones), one after the other.

        A stack of more than d slices has several depth windows, each with bases of its own: an element each.
        """
        placement = judging.trained_placement(self.segmenter, cine)
        front = front_padding(placement.shape[0], placement.crop[0])
        for time in sorted(cine.labels) if times is None else times:
            before, _, after = cine.window(time, 1, self.segmenter.config.data.cyclic)
            images = [placement.forward(normalize(cine.frame(t))) for t in (before, time, after)]
            windows = []
            for window, (start, valid) in enumerate(zip(placement.windows, placement.valid, strict=True)):
                arrays = [array[None, ..., None] for array in (*(stack[window] for stack in images), np.float32(valid))]
                parts = map(np.asarray, self._decompose(self.segmenter.variables, *arrays))
                windows.append(Decomposition(cine.case.name, time, start - front, images[1][window], valid, *parts))
            yield windows


def quality(
    run_dir: str | Path, cases: Iterable[Case] | str = "val", *, which: str = "latest", mean_of_channels: bool = False
) -> list[Row]:
    """How good the bases and the reconstruction of each labelled frame are: a row a frame, with `COLUMNS`.

    Further columns are what the loss weighs, see `weighted_terms`, and frame_share, the share of X's energy that
    differs from the mean over these frames.

    Args:
      run_dir: of the training.
      cases: cases, or "val", "test" or "all" of the run's cohort.
      which: "latest" or "best" checkpoint.
      mean_of_channels: judge the bases averaged over their u channels, as the reconstruction sees them; n_values is
        then the number that FastICA has, without which the mutual information cannot be compared.

    Raises:
      UserError: no such run, a network without bases, bad data, or none with a ground truth.
    """
    decomposer = Decomposer(segmenters.load(run_dir, which))
    data = decomposer.segmenter.config.data
    if isinstance(cases, str):
        cases = judging.choose_cases(run_folder.read_split(run_dir), data, cases)
    rows, bases = [], []
    for case in cases:
        cine = reading.read(case, data.label_map)
        placement = judging.trained_placement(decomposer.segmenter, cine)
        for windows in decomposer(cine):
            truth = resample_labels(cine.labels[windows[0].frame], placement, NUM_CLASSES)
            terms = [weighted_terms(part, labels, decomposer.segmenter.config.loss) for part, labels in zip(windows, truth, strict=True)]
            rows.append(row_of(windows, mean_of_channels=mean_of_channels) | mean_of(terms))
            bases.append(np.mean([part.bases for part in windows], axis=0))
    return [row | {"frame_share": share} for row, share in zip(rows, frame_shares(bases), strict=True)]


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


def row_of(windows: Sequence[Decomposition], *, mean_of_channels: bool = False) -> Row:
    """The row of one frame; see `quality`."""
    return frame_row(windows[0].patient, windows[0].frame, [_figures(part, mean_of_channels) for part in windows])


def frame_row(patient: str, frame: int, figures: Sequence[Mapping[str, float]]) -> Row:
    """The row of frame number `frame` (from 0) by the figures of its depth windows, which are averaged."""
    return {"patient": patient, "frame": frame + 1} | mean_of(figures)


def mean_of(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Each figure's mean over the depth windows of a frame."""
    return {name: float(np.mean([window[name] for window in figures])) for name in figures[0]}


def _figures(part: Decomposition, mean_of_channels: bool) -> dict[str, float]:
    bases = part.images_of_bases if mean_of_channels else part.bases
    box = image_box(part.valid)
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
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: value if name == "patient" else f"{round(value, 12):.6g}" for name, value in row.items()} for row in rows)


def read_csv(path: str | Path) -> list[Row]:
    """The rows that `write_csv` wrote. Raises UserError for a file that is none of these."""
    try:
        with Path(path).open(newline="") as file:
            return [
                {name: text if name == "patient" else (int if name == "frame" else float)(text) for name, text in row.items()}
                for row in csv.DictReader(file)
            ]
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read as a table of ICA quality ({error}): write it again.") from error
