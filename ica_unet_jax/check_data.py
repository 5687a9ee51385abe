"""Reads a whole cohort and lists all that is wrong with it: `python -m ica_unet_jax.check_data --data_dir=DIR`."""

from __future__ import annotations

import functools
import sys

from ica_unet_jax import launcher


def main() -> None:
    from ica_unet_jax.data import cohort, orientation, reading
    from ica_unet_jax.runtime import workers
    from ica_unet_jax.runtime.progress import Progress

    config = launcher.config()
    cases = cohort.open_cohort(config.data)
    find = functools.partial(reading.faults, label_map=config.data.label_map)
    bad = problems = 0
    with Progress(len(cases), unit="case") as progress:
        for number, (wrong, odd) in enumerate(workers.ordered(find, cases, config.data.jobs), start=1):
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
    launcher.define(["data_dir", "label_map", "reader", "labelled_frames", "cohort_csv", "jobs"])
    launcher.run(main)
