"""Trains a network: `python -m ica_unet_jax.train --flagfile=launch/acdc.flags --data_dir=ACDC --workdir=RUN`."""

from __future__ import annotations

from ica_unet_jax import flags


def main() -> None:
    from ica_unet_jax import training

    training.train(flags.config())


if __name__ == "__main__":
    flags.define()
    flags.run(main)
