"""One experiment from its configuration to its report: training, evaluation of the validation patients, report.md."""

from __future__ import annotations

from pathlib import Path

from ica_unet_jax import evaluation, parallel, report, training
from ica_unet_jax.config import Config


def run(config: Config) -> Path | None:
    """Does what is still to be done in `config.train.workdir`; returns the folder of the evaluation, if there is one.

    Several processes train together; the first alone evaluates and reports.

    Raises UserError and Interrupted as `training.train` and `evaluation.evaluate` do.
    """
    training.train(config)
    parallel.disconnect()
    out = None
    if not parallel.is_first():
        return out
    if config.train.final_evaluation:
        out = evaluation.evaluate(config.train.workdir, skip_bad_cases=config.data.skip_bad_cases)
    report.write(config.train.workdir)
    return out
