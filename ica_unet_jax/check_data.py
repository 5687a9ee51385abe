"""Reads a whole cohort and lists all that is wrong with it: `python -m ica_unet_jax.check_data --data_dir=DIR`."""

from __future__ import annotations

import functools
import sys

from absl import flags

from ica_unet_jax import launcher
from ica_unet_jax.config import DataConfig


def main() -> None:
    check(launcher.config().data, launcher.FLAGS.jobs)


def check(config: DataConfig, jobs: int = 0) -> None:
    """Prints the problems and remarks of each case, in the order of the cases, and a summary; exits with code 2 where a case is bad."""
    from ica_unet_jax.data import cohort, orientation, reading
    from ica_unet_jax.runtime import workers
    from ica_unet_jax.runtime.progress import Progress

    cases = cohort.open_cohort(config)
    find = functools.partial(reading.faults, label_map=config.label_map)
    bad = problems = 0
    with Progress(len(cases), unit="case") as progress:
        for number, (wrong, odd) in enumerate(workers.ordered(find, cases, jobs), start=1):
            for line in (*wrong, *(f"note: {remark}" for remark in odd)):
                print(line)
            bad, problems = bad + bool(wrong), problems + len(wrong)
            progress.update(number)
    if told := orientation.remark(reading.lie(cases)):
        print(f"note: {told}")
    print(f"{len(cases)} cases, {bad} bad, {problems} problems")
    if bad:
        sys.exit(2)


if __name__ == "__main__":
    flags.DEFINE_integer("jobs", 0, "Processes that read; 0: one for each core, where there are many cases.", lower_bound=0)
    launcher.define(["data_dir", "label_map", "reader", "labelled_frames", "cohort_csv"])
    launcher.run(main)
