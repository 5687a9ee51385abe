"""Trains a network: `python -m ica_unet_jax.train --flagfile=launch/acdc.flags --data_dir=ACDC --workdir=RUN`."""

from __future__ import annotations

from ica_unet_jax import flags


def main() -> None:
    from ica_unet_jax import evaluation, training

    config = flags.config()
    training.train(config)
    if config.train.final_evaluation:
        out = evaluation.evaluate(config.train.workdir)
        print((out / "table.md").read_text())
        print(f"pictures in {out / 'pictures'}")


if __name__ == "__main__":
    flags.define()
    flags.run(main)
