"""Judges a trained network: `python -m ica_unet_jax.evaluate --workdir=RUN --split=val`.

Writes summary.json, cases.csv, table.md, of a network with bases ica.csv, and pictures/ into --out.
"""

from __future__ import annotations

from absl import flags

from ica_unet_jax import launcher
from ica_unet_jax.inference import options

options.define_network()
options.define(options.JUDGE)
_SPLIT = flags.DEFINE_enum(
    "split", "val", ("val", "test", "train", "all"), "Patients: of the run's split, or all of --data_dir."
)
_OUT = flags.DEFINE_string("out", "", "Folder to write into; empty: RUN/evaluation_SPLIT, with what is asked for beside it, as in evaluation_val_follow.")
_CINES = flags.DEFINE_integer(
    "cines", 3, "So many patients are segmented over their whole cine, for the figures over time.", lower_bound=0
)
_BY = flags.DEFINE_enum(
    "by", None, ("cohort", "vendor", "centre", "group"), "A table of each of these too; by default of each cohort and vendor, where there are several."
)
_NSD_MM = flags.DEFINE_float("nsd_mm", 2.0, "Tolerance of the normalized surface Dice, in mm.", lower_bound=0.0)
launcher.define(["skip_bad_cases"])


def main() -> None:
    from ica_unet_jax.evaluation import judging

    out = judging.evaluate(
        options.network(),
        _OUT.value,
        split=_SPLIT.value,
        cines=_CINES.value,
        nsd_mm=_NSD_MM.value,
        skip_bad_cases=launcher.FLAGS.skip_bad_cases,
        by=_BY.value or "",
        **options.given(options.JUDGE),
    )
    print((out / "table.md").read_text(encoding="utf-8"))
    print(f"pictures in {out / 'pictures'}")


if __name__ == "__main__":
    launcher.run(main)
