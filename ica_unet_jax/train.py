"""Trains a network: `python -m ica_unet_jax.train --flagfile=launch/acdc.flags --data_dir=ACDC --workdir=RUN`."""

from __future__ import annotations

from absl import flags

from ica_unet_jax import launcher

_COORDINATOR = flags.DEFINE_string("coordinator", "", "Several processes: HOST:PORT on which the first one listens; SLURM's tasks find it.")
_PROCESSES = flags.DEFINE_integer("processes", None, "Several processes: how many; 1 keeps the tasks of a SLURM step apart.", lower_bound=1)
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Several processes: which one this is, counted from 0.", lower_bound=0)


def main() -> None:
    from ica_unet_jax.runtime import processes
    from ica_unet_jax.training import experiment

    config = launcher.config()
    processes.connect(_COORDINATOR.value, _PROCESSES.value, _PROCESS_ID.value)
    out = experiment.run(config)
    if out:
        print((out / "table.md").read_text(encoding="utf-8"))
    if processes.is_first():
        print(f"report in {config.train.workdir}/report.md")


if __name__ == "__main__":
    launcher.define()
    launcher.run(main)
