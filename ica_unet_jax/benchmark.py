"""Times this machine: a streamed frame and a training step of each network, beside what the machine can do at best.

  python -m ica_unet_jax.benchmark --json=FILE
  python -m ica_unet_jax.benchmark --only=roi/n4/independent,train --compare=OLD.json
  python -m ica_unet_jax.benchmark --workdir=RUN
"""

from __future__ import annotations

from absl import flags

from ica_unet_jax import benchmark_report
from ica_unet_jax import flags as project_flags

_WORKDIR = flags.DEFINE_string("workdir", "", "Run folder of a training: its network is timed, not the paper's rows.")
_ONLY = flags.DEFINE_list("only", [], "Rows whose name contains one of these; empty: all.")
_SECONDS = flags.DEFINE_float("seconds", 3.0, "For each figure.", lower_bound=0.0)
_DTYPE = flags.DEFINE_enum("compute_dtype", "float32", ("float32", "bfloat16"), "Of the paper's rows.")
_JSON = flags.DEFINE_string("json", "", "File for the result.")
_COMPARE = flags.DEFINE_string("compare", "", "Result of an earlier run, to be compared with.")


def main() -> None:
    old = benchmark_report.read(_COMPARE.value) if _COMPARE.value else None

    from ica_unet_jax import benchmarking

    rows = benchmarking.run_rows(_WORKDIR.value) if _WORKDIR.value else benchmarking.paper_rows(_DTYPE.value)
    rows = benchmarking.choose(rows, _ONLY.value)
    result = benchmarking.benchmark(rows, seconds=_SECONDS.value, json_file=_JSON.value)
    print(benchmark_report.report(result))
    if old:
        print(benchmark_report.compare(old, result))


if __name__ == "__main__":
    project_flags.run(main)
