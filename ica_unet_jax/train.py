"""Trains a network: `python -m ica_unet_jax.train --flagfile=launch/acdc.flags --data_dir=ACDC --workdir=RUN`."""

from __future__ import annotations

from ica_unet_jax import flags


def main() -> None:
    from ica_unet_jax import experiment

    config = flags.config()
    if out := experiment.run(config):
        print((out / "table.md").read_text())
    print(f"report in {config.train.workdir}/report.md")


if __name__ == "__main__":
    flags.define()
    flags.run(main)
