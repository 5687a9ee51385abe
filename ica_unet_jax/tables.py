"""Makes the paper's two tables: trains, judges and times what is missing. After a stop the same command goes on.

  python -m ica_unet_jax.tables --flagfile=launch/acdc_mini.flags --data_dir=ACDC --workdir=runs/tables --width_multiplier=0.25
  python -m ica_unet_jax.tables --flagfile=launch/acdc.flags --data_dir=ACDC --workdir=runs/tables --only=unet3d,ica_unet_n4
  python -m ica_unet_jax.tables --flagfile=launch/acdc.flags --data_dir=ACDC --workdir=runs/tables --only_folds=0,1,2,3
"""

from __future__ import annotations

from absl import flags

from ica_unet_jax import launcher
from ica_unet_jax.portable import runtimes

_ONLY = flags.DEFINE_list("only", [], "Systems whose name contains one of these; empty: all.")
_ONLY_FOLDS = flags.DEFINE_list(
    "only_folds", [], "Folds, as 0,1,2, on each of which all systems are trained, with the seed --seed + fold, and judged on the patients left out; empty: --fold alone."
)
_SPLIT = flags.DEFINE_enum("split", "val", ("val", "test"), "Patients that are judged.")
_SECONDS = flags.DEFINE_float("seconds", 3.0, "For each timing.", lower_bound=0.0)
_RUNTIME = flags.DEFINE_enum("runtime", "jax", runtimes.RUNTIMES, "What the timings are of; networks that it cannot run are timed in JAX.")
_TIMED = flags.DEFINE_bool("timed", True, "Time the systems at full width too.")


def main() -> None:
    from ica_unet_jax.sweeps import comparing

    config = launcher.config(several_networks=True)  # --width_multiplier is of the rivals
    how = dict(only=_ONLY.value, split=_SPLIT.value, seconds=_SECONDS.value, timed=_TIMED.value, runtime=_RUNTIME.value)
    folds = launcher.integers("only_folds", _ONLY_FOLDS.value)
    folder = comparing.compare_folds(config, folds, **how) if folds else comparing.compare(config, **how)
    print((folder / "tables.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    launcher.define()
    launcher.run(main)
