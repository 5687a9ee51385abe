"""Reads a whole cohort and lists all that is wrong with it: `python -m ica_unet_jax.check_data --data_dir=DIR`."""

from __future__ import annotations

import sys

from ica_unet_jax import flags


def main() -> None:
    from ica_unet_jax.data import acdc, cohort

    config = flags.config()
    problems = 0
    cases = cohort.open_cohort(config.data)
    for case in cases:
        found = acdc.check(case, config.data.label_map)
        problems += len(found)
        for problem in found:
            print(problem)
        for remark in [] if found else acdc.remarks(case):
            print(f"note: {remark}")
    print(f"{len(cases)} cases, {problems} problems")
    if problems:
        sys.exit(2)


if __name__ == "__main__":
    flags.define(["data_dir", "label_map"])
    flags.run(main)
