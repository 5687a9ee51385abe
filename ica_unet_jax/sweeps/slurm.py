"""The same runs as array jobs of a SLURM cluster, by submitit; the folder must lie where all nodes see it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ica_unet_jax.errors import UserError
from ica_unet_jax.runtime import packages
from ica_unet_jax.sweeps import runner
from ica_unet_jax.sweeps.plan import Run


class Task:
    """What a node does: one run. Preempted or out of time it is queued again and goes on from its last checkpoint."""

    def __init__(self, workdir: Path, threads: int):
        self.workdir, self.threads = workdir, threads

    def __call__(self, run: Run) -> str:
        # The cluster binds cores and GPUs to the job: nothing is shared out here.
        return runner.execute(self.workdir, run, runner.Slot(threads=self.threads))

    def checkpoint(self, run: Run):
        import submitit

        return submitit.helpers.DelayedSubmission(self, run)


def run_all(
    workdir: Path,
    runs: Iterable[Run],
    on_end: Callable[[Run, str], Any],
    *,
    jobs: int,
    threads: int,
    parameters: dict[str, Any],
    cluster: str = "slurm",
) -> None:
    """Submits them as one array, `jobs` at a time (0: no limit), and waits; `on_end(run, status)` after each.

    Args:
      parameters: submitit's, for example {"slurm_partition": "gpu", "timeout_min": 240}.
      cluster: "local" runs the same on this machine, for tests.

    Raises:
      UserError: submitit is not installed, or there is no cluster.
    """
    packages.require("--executor=slurm", "slurm", ("submitit",))
    import submitit

    runs = list(runs)
    try:
        executor = submitit.AutoExecutor(folder=workdir / "slurm", cluster=cluster)
    except RuntimeError as error:
        raise UserError(f"--executor=slurm: {error}; run on a login node of the cluster, or with --executor=local.") from None
    executor.update_parameters(cpus_per_task=threads, slurm_array_parallelism=jobs or len(runs), **parameters)
    waiting = dict(zip(map(id, submitted := executor.map_array(Task(workdir, threads), runs)), runs, strict=True))
    for job in submitit.helpers.as_completed(submitted):
        run = waiting[id(job)]
        error = job.exception()
        on_end(run, "crashed" if error else job.result())
