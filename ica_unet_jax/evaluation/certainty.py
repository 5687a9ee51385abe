"""How sure a network is of frames that it learned from: where doubt in others begins."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ica_unet_jax.data import reading
from ica_unet_jax.evaluation import frames, judging
from ica_unet_jax.inference import segmenters, turning
from ica_unet_jax.inference.options import LOAD, choose
from ica_unet_jax.runs.trained import Run
from ica_unet_jax.runtime.files import write_json
from ica_unet_jax.runtime.progress import Progress

PATIENTS = 100  # of a larger cohort, so many
SHARE = 99  # percent of the frames lie below the limit


def learn(workdir: str | Path) -> None:
    """Writes `doubts.json` into a run folder: the limit of "unsure", above what the network shows on `SHARE` percent of labelled training frames.

    Raises UserError and BadData, where training patients are no longer there, or as they were.
    """
    run, chosen = Run(Path(workdir)), choose(LOAD, {})
    segmenter = segmenters.load_as(run, chosen)
    data = segmenter.config.data
    patients = [case for case in judging.choose_cases(run.split, data, "train", run.began_in) if case.perhaps_labelled]
    patients = [patients[i] for i in np.linspace(0, len(patients) - 1, min(PATIENTS, len(patients))).astype(int)]
    codes, found = turning.codes_for(run, data, chosen), []
    with Progress(len(patients), unit="patient, how sure") as progress:
        for done, case in enumerate(patients, start=1):
            cine = reading.read(case, data.label_map, codes=codes)
            found += frames.segment_and_doubt(segmenter, cine, sorted(cine.labels))[1].values()
            progress.update(done)
    if found:
        write_json(run.path / "doubts.json", {"unsure": float(np.percentile(found, SHARE))})
