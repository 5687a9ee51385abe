"""Reads a whole cohort and lists all that is wrong with it: `python -m ica_unet_jax.check_data --data_dir=DIR`."""

from __future__ import annotations

import sys

from ica_unet_jax import launcher


def main() -> None:
    from ica_unet_jax.data import cohort, orientation, reading
    from ica_unet_jax.runtime.progress import Progress

    config = launcher.config()
    cases = cohort.open_cohort(config.data)
    bad = problems = 0
    with Progress(len(cases), unit="case") as progress:
        for number, case in enumerate(cases, start=1):
            seen = reading.examine(case, config.data.label_map)
            for line in (*seen.problems, *(f"note: {remark}" for remark in seen.remarks)):
                print(line)
            bad, problems = bad + bool(seen.problems), problems + len(seen.problems)
            progress.update(number)
    if told := orientation.remark(reading.lie(cases)):
        print(f"note: {told}")
    print(f"{len(cases)} cases, {bad} bad, {problems} problems")
    if bad:
        sys.exit(2)


if __name__ == "__main__":
    launcher.define(["data_dir", "label_map", "reader", "labelled_frames", "cohort_csv"])
    launcher.run(main)
