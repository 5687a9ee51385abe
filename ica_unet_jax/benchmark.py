"""Times this machine: a streamed frame and a training step of each network, beside what the machine can do at best.

  python -m ica_unet_jax.benchmark --json=FILE
  python -m ica_unet_jax.benchmark --only=roi/n4/independent,train --compare=OLD.json
  python -m ica_unet_jax.benchmark --workdir=RUN --profile
"""

from __future__ import annotations

from absl import flags

from ica_unet_jax import launcher
from ica_unet_jax.benchmarking import report

_WORKDIR = flags.DEFINE_string("workdir", "", "Run folder of a training: its network is timed, not the paper's rows.")
_ONLY = flags.DEFINE_list("only", [], "Rows whose name contains one of these; empty: all.")
_SECONDS = flags.DEFINE_float("seconds", 3.0, "For each figure.", lower_bound=0.0)
_DTYPE = flags.DEFINE_enum("compute_dtype", "float32", ("float32", "bfloat16"), "Of the paper's rows.")
_PROFILE = flags.DEFINE_bool("profile", False, "Say also in which parts of the network the time goes.")
_JSON = flags.DEFINE_string("json", "", "File for the result.")
_COMPARE = flags.DEFINE_string("compare", "", "Result of an earlier run, to be compared with.")


def main() -> None:
    old = report.read(_COMPARE.value) if _COMPARE.value else None

    from ica_unet_jax.benchmarking import measuring

    rows = measuring.run_rows(_WORKDIR.value) if _WORKDIR.value else measuring.paper_rows(_DTYPE.value)
    rows = measuring.choose(rows, _ONLY.value)
    result = measuring.benchmark(rows, seconds=_SECONDS.value, json_file=_JSON.value, profiled=_PROFILE.value)
    print(report.report(result))
    if old:
        print(report.compare(old, result))


if __name__ == "__main__":
    launcher.run(main)
