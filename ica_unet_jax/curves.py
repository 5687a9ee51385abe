"""Draws learning curves of one or several runs: `python -m ica_unet_jax.curves --runs=RUN,OTHER --out=curves.png`."""

from __future__ import annotations

from absl import flags

from ica_unet_jax import launcher

_RUNS = flags.DEFINE_list("runs", None, "Run folders.", required=True)
_OUT = flags.DEFINE_string("out", "curves.png", "PNG file to write.")


def main() -> None:
    from ica_unet_jax.reporting import figures

    figures.compare_runs(_RUNS.value, _OUT.value)
    print(_OUT.value)


if __name__ == "__main__":
    launcher.run(main)
