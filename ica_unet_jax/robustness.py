"""Judges a trained network on images that went wrong: mirrored, turned, noisy, with slices missing.

  python -m ica_unet_jax.robustness --workdir=RUN
  python -m ica_unet_jax.robustness --weights=mine.safetensors --data_dir=ACDC --split=all --out=DIR
"""

from __future__ import annotations

from absl import flags

from ica_unet_jax import launcher
from ica_unet_jax.inference import options

options.define_network()
options.define(options.ROBUST)
_SPLIT = flags.DEFINE_enum("split", "val", ("val", "test", "train", "all"), "Patients: of the network's split, or all of --data_dir.")
_OUT = flags.DEFINE_string("out", "", "Folder to write into; empty: RUN/robustness.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the noise and all else that is drawn.", lower_bound=0)


def main() -> None:
    from ica_unet_jax.evaluation import robustness

    out = robustness.robustness(options.network(), _OUT.value, split=_SPLIT.value, seed=_SEED.value, **options.given(options.ROBUST))
    print((out / "robustness.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    launcher.run(main)
