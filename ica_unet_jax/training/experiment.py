"""One experiment from its configuration to its report: training, evaluation of the validation patients, report.md."""

from __future__ import annotations

from pathlib import Path

from ica_unet_jax.config import Config
from ica_unet_jax.reporting import run_report
from ica_unet_jax.runs import run_folder
from ica_unet_jax.runtime import processes
from ica_unet_jax.training import loop


def run(config: Config) -> Path | None:
    """Does what is still to be done in `config.train.workdir`; returns the folder of the evaluation, if there is one.

    Several processes train together; the first alone evaluates and reports.

    Raises UserError and Interrupted as `loop.train` and `judging.evaluate` do.
    """
    from ica_unet_jax.evaluation import certainty, judging, pictures  # matplotlib, which a training itself does without

    loop.train(config, draw=pictures.training_report)
    processes.disconnect()
    out = None
    if not processes.is_first():
        return out
    if config.train.final_evaluation and run_folder.read_split(config.train.workdir)["val"]:
        out = judging.evaluate(config.train.workdir, skip_bad_cases=config.data.skip_bad_cases)
    run_report.write(config.train.workdir)
    if config.train.final_evaluation:
        certainty.learn(config.train.workdir)
    return out
