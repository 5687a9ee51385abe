"""How steady the labels of whole cines are, and the mean of that over patients."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ica_unet_jax.labels import STRUCTURES
from ica_unet_jax.metrics.clinical import neighbour_dice, roughness, volumes_ml

MEASURES = ("roughness", "neighbour_dice")


def behaviour(prediction: np.ndarray, truth: np.ndarray | None, spacing: Sequence[float]) -> dict[str, Any]:
    """Figures over time of the labels (frames, slices, rows, columns) of a cine; truth: None where frames lack one.

    Returns, JSON-safe: n_frames, and for "prediction" and, where it is given, "truth" {"roughness": of the volume
    curves, "neighbour_dice": mean Dice of neighbouring frames}, each {RV, MYO, LV}, None where undefined. Free of units.
    """
    found: dict[str, Any] = {"n_frames": len(prediction)}
    for source, stack in {"prediction": prediction, "truth": truth}.items():
        if stack is not None:
            rough = {name: roughness(curve) for name, curve in volumes_ml(stack, spacing).items()}
            steady = {name: float(values.mean()) for name, values in neighbour_dice(stack).items()}
            found[source] = {
                "roughness": {name: value if np.isfinite(value) else None for name, value in rough.items()},
                "neighbour_dice": steady,
            }
    return found


def mean_behaviour(patients: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The means over patients of what `behaviour` says of each; {} without any.

    Returns {"prediction": {"n_patients", "roughness", "roughness_n", "neighbour_dice", "neighbour_dice_n"}}, and the
    same for "truth" over the patients that have one; a measure is {RV, MYO, LV}, None where no patient has it, and
    beside it stand the patients in it.
    """
    patients, means = list(patients), {}
    for source in ("prediction", "truth"):
        known = [patient[source] for patient in patients if source in patient]
        if known:
            means[source] = {"n_patients": len(known)}
        for measure in MEASURES if known else ():
            values = {name: [one[measure][name] for one in known if one[measure][name] is not None] for name in STRUCTURES}
            means[source][measure] = {name: float(np.mean(some)) if some else None for name, some in values.items()}
            means[source][f"{measure}_n"] = {name: len(some) for name, some in values.items()}
    return means
