"""Times this machine: a streamed frame and a training step of each network, beside what the machine can do at best.

  python -m ica_unet_jax.benchmark --json=FILE
  python -m ica_unet_jax.benchmark --only=roi/n4/independent,train --compare=OLD.json
  python -m ica_unet_jax.benchmark --workdir=RUN --profile
  python -m ica_unet_jax.benchmark --parallel=4,8,16,32,64 --json=FILE
"""

from __future__ import annotations

from absl import flags

from ica_unet_jax import launcher
from ica_unet_jax.benchmarking import report
from ica_unet_jax.errors import UserError
from ica_unet_jax.portable import runtimes

_WORKDIR = flags.DEFINE_list("workdir", [], "Run folder of a training, or weights: its network is timed, not the paper's rows. Several, as A,B, are timed in turn.")
_ONLY = flags.DEFINE_list("only", [], "Rows whose name contains one of these; empty: all.")
_SECONDS = flags.DEFINE_float("seconds", 3.0, "For each figure, of all rounds together.", lower_bound=0.0)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "The rows of a grid take turns so often.", lower_bound=1)
_RUNTIMES = flags.DEFINE_list("runtimes", [], f"Under which the streams are timed, of {', '.join(runtimes.RUNTIMES[1:])}; empty: those that are installed.")
_DTYPES = flags.DEFINE_list("compute_dtype", ["float32"], "float32, bfloat16 or both: arithmetic of the networks. A runtime that cannot do one leaves it out.")
_PROFILE = flags.DEFINE_bool("profile", False, "Say also in which parts of the network the time goes.")
_PARALLEL = flags.DEFINE_list(
    "parallel", [], "Time so many streams alone: mapped, one after the other, as grouped convolutions, against a dense network; on one core and on all."
)
_JSON = flags.DEFINE_string("json", "", "File for the result.")
_COMPARE = flags.DEFINE_string("compare", "", "Result of an earlier run, to be compared with.")


def main() -> None:
    if _PARALLEL.value:
        time_parallel()
        return
    old = report.read(_COMPARE.value) if _COMPARE.value else None

    from ica_unet_jax.benchmarking import measuring, rows

    timed = rows.of_runs(_WORKDIR.value) if _WORKDIR.value else rows.paper_rows()
    timed = rows.under(rows.choose(timed, _ONLY.value), _RUNTIMES.value, _DTYPES.value)
    result = measuring.benchmark(timed, seconds=_SECONDS.value, rounds=_ROUNDS.value, json_file=_JSON.value, profiled=_PROFILE.value)
    print(report.report(result))
    if old:
        print(report.compare(old, result))


def time_parallel() -> None:
    from ica_unet_jax.benchmarking import parallel, rows
    from ica_unet_jax.config import Config
    from ica_unet_jax.reporting.markup import plain_table

    if not all(count.isdecimal() and int(count) for count in _PARALLEL.value):
        raise UserError(f"--parallel={','.join(_PARALLEL.value)}: give numbers of streams, as in --parallel=4,8,16.")
    streams, config = [int(count) for count in _PARALLEL.value], Config.make(crop=rows.ROI, neighbours="past")
    result = parallel.parallel(config.model, streams, seconds=_SECONDS.value, json_file=_JSON.value)
    print(plain_table(*parallel.table(result)))


if __name__ == "__main__":
    launcher.run(main)
