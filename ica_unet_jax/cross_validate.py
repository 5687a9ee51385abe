"""Trains and judges all folds; every patient is judged by a network that never saw it.

  python -m ica_unet_jax.cross_validate --flagfile=launch/acdc.flags --data_dir=ACDC --workdir=CV

One fold after the other, each in CV/foldK; the same command goes on after any kill. On a cluster each fold is a job of its
own (--only_fold=K); the one that ends last writes cases.csv, table.md and summary.json. A fold that diverges does not stop the
others, and is trained again only when its folder is gone.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from ica_unet_jax import launcher

_ONLY = flags.DEFINE_integer("only_fold", None, "Run this fold alone, counted from 0.")


def main() -> None:
    from ica_unet_jax.runtime import compilation
    from ica_unet_jax.sweeps import cross_validation

    compilation.keep_on_disk()  # the folds are one program: it is compiled once
    config = launcher.config()
    missing = cross_validation.run(config, _ONLY.value)
    if missing:
        print(f"still to be run: fold {', '.join(map(str, missing))}")
    else:
        print((Path(config.train.workdir) / "table.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    launcher.define()
    launcher.run(main)
