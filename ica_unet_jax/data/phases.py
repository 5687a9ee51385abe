"""Cohorts that keep ED and ES as files of their own, beside the cine or without one, and do not say when in the beat they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ica_unet_jax.data.case import LATE, Phase
from ica_unet_jax.data.folders import Images

TIMES = {"ED": 0, "ES": LATE}  # without a cine


def fields(files: Images, cine: Path | None, names: Mapping[str, tuple[str, str]], problems: list[str],
           truth_problems: list[str]) -> dict[str, Any]:
    """What a `Case` knows of the phases `names`, {"ED": (name of the image, name of its ground truth), "ES": ...}, in a folder.

    Beside a cine they are its frames, and images without a ground truth are not needed; without one they are the frames that there are.
    """
    found = {}
    for phase, (image, labels) in names.items():
        found[phase] = files.take(image, truth_problems if cine else problems), files.take(labels, truth_problems)
        if found[phase][1] and image not in files:
            truth_problems.append(f"{found[phase][1]} has no image; add {image}.nii.gz, which tells the frame.")
    if cine:
        return dict(phases=tuple(Phase(phase, image, labels) for phase, (image, labels) in found.items() if image and labels))
    there = {phase: pair for phase, pair in found.items() if pair[0]}
    return dict(
        frames={TIMES[phase]: image for phase, (image, _) in there.items()},
        labels={TIMES[phase]: labels for phase, (_, labels) in there.items() if labels},
        **{phase.lower(): TIMES[phase] for phase in there},
    )
