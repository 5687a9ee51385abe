"""One engine for all comparisons: a trial is a training and its evaluation, in a run folder; what is finished is kept.

Ablations run each trial in a process of its own and keep its figures alone (`runner`, `cell`); cross-validation and the paper's tables
run theirs here, one after the other, and keep the run folders.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax

from ica_unet_jax.config import Config
from ica_unet_jax.errors import Diverged
from ica_unet_jax.evaluation import judging
from ica_unet_jax.runs import status
from ica_unet_jax.runtime import processes
from ica_unet_jax.training import experiment, loop

LEFT = (status.OPEN, status.CRASHED)  # a divergence would only repeat itself


@dataclasses.dataclass(frozen=True)
class Trial:
    title: str
    config: Config  # `workdir` is its run folder
    split: str = "val"  # patients that it is judged on
    reported: bool = False  # with pictures and report.md, and judged as `train` judges; else as the network was published

    @property
    def folder(self) -> Path:
        return Path(self.config.train.workdir)

    @property
    def cleaning(self) -> dict[str, bool]:
        """How the answers are cleaned before they are judged."""
        cleaned = self.config.loss.published_loss and self.config.model.network.cleaned
        return {} if self.reported else dict(mirror=cleaned, largest_component=cleaned)

    def status(self) -> str:
        """One of those of `runs.status`. Raises UserError where the folder holds a run of other settings."""
        return status.of(self.config, split=self.split, **self.cleaning)

    def run(self) -> float:
        """Trains to the last step and judges, as far as that is not done; returns the seconds that judging took.

        Raises:
          UserError, Interrupted: as `loop.train` and `judging.evaluate` do.
          Diverged: noted in the folder as well, so that `status` tells it.
        """
        try:
            if self.reported:
                experiment.run(self.config)
            else:
                loop.train(self.config)
        except Diverged as error:
            if processes.is_first():
                status.note(self.folder, status.DIVERGED, error.what, error.step)
            raise
        began = time.perf_counter()
        if not self.reported:
            options = dict(split=self.split, cines=0, pictures=False, skip_bad_cases=self.config.data.skip_bad_cases)
            judging.evaluate(self.folder, self.folder / f"evaluation_{self.split}", **options, **self.cleaning)
        return time.perf_counter() - began


def run_missing(
    trials: Iterable[Trial], on_begin: Callable[[Trial], Any] = lambda trial: None, on_end: Callable[[Trial], Any] = lambda trial: None
) -> None:
    """Runs those of which something is left to do, in this process; one that diverges does not keep the others from running."""
    for trial in trials:
        if trial.status() in LEFT:
            on_begin(trial)
            with contextlib.suppress(Diverged):
                trial.run()
            jax.clear_caches()  # the next one has functions of its own
            on_end(trial)
