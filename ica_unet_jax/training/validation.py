"""The scores of a network in training, on the validation patients."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from ica_unet_jax.data.case import Cine
from ica_unet_jax.data.geometry import argmax_labels
from ica_unet_jax.evaluation import frames
from ica_unet_jax.inference.segmenters import Segmenter
from ica_unet_jax.labels import STRUCTURES
from ica_unet_jax.metrics.cross_entropy import cross_entropy
from ica_unet_jax.metrics.overlap import structure_dice
from ica_unet_jax.runs.checkpoints import State
from ica_unet_jax.runtime import processes


@dataclasses.dataclass
class Validation:
    """Scores on the native grid of the validation patients' labelled frames."""

    cines: list[Cine]
    segmenter: Segmenter

    def __call__(self, state: State, to_stop: Callable[[], None] = lambda: None) -> dict[str, float]:
        """{"dice_RV", "dice_MYO", "dice_LV", "dice_mean", "validation_cross_entropy" (nats, inside the window)}.

        Frames are averaged within a patient, then patients; nothing where there are none. `to_stop` is called after each frame and may raise.
        """
        if not self.cines:
            return {}
        self.segmenter.variables = processes.own(state.variables)
        patients = []
        for cine in self.cines:
            inside, scores = frames.trained_placement(self.segmenter, cine).inside, []
            for time_, logits in frames.logits(self.segmenter, cine, sorted(cine.labels)):
                truth = cine.labels[time_]
                dice = structure_dice(argmax_labels(logits), truth)
                scores.append([*dice.values(), cross_entropy(logits[inside], truth[inside])])
                to_stop()
            patients.append(np.mean(scores, axis=0))
        *dice, entropy = np.mean(patients, axis=0).tolist()
        names = [f"dice_{name}" for name in STRUCTURES]
        return dict(zip(names, dice, strict=True)) | {
            "dice_mean": float(np.mean(dice)),
            "validation_cross_entropy": entropy,
        }
