"""Plays a cine or a phantom as a scanner would, at a given rate, against a trained network.

  python -m ica_unet_jax.stream --workdir=RUN --input=cine_4d.nii.gz --rate=22 --seconds=60 --json=stream.json
  python -m ica_unet_jax.stream --workdir=RUN --input=phantom --window=follow --gif=beat.gif
"""

from __future__ import annotations

import signal

from absl import flags

from ica_unet_jax import launcher
from ica_unet_jax.errors import Interrupted
from ica_unet_jax.inference import options
from ica_unet_jax.viewing import flags as view

options.define_network()
_INPUT = flags.DEFINE_string(
    "input", None, "4D NIfTI file, repeated without end, or phantom: a beating heart.", required=True
)
options.define(options.STREAM, **options.REAL_TIME)
_RATE = flags.DEFINE_float("rate", 22.0, "Frames a second.", lower_bound=0.01, upper_bound=1000.0)
_SECONDS = flags.DEFINE_float("seconds", 60.0, "For so long.", lower_bound=0.0)
_QUEUE = flags.DEFINE_integer("queue", 2, "Frames that may wait; the oldest is dropped for one more.", lower_bound=1)
_DEADLINE = flags.DEFINE_float(
    "deadline_ms", 50.0, "Answers later than this after the frame's arrival are deadline misses.", lower_bound=0.0
)
_FAULTS = flags.DEFINE_boolean(
    "faults", False, "Play also what scanners do wrong: frames with NaN, frames of another size, stalls and what is held up by them at once."
)
_JSON = flags.DEFINE_string("json", "", "File for the counts and latencies.")
_GIF = flags.DEFINE_string("gif", "", "File for a moving picture of the last three seconds.")
view.define()


def main() -> None:
    from ica_unet_jax.streaming import session, tally

    with view.page() as show:
        summary = session.stream(
            options.network(),
            _INPUT.value,
            rate=_RATE.value,
            seconds=_SECONDS.value,
            queue_size=_QUEUE.value,
            deadline_ms=_DEADLINE.value,
            json_file=_JSON.value,
            gif=_GIF.value,
            faults=_FAULTS.value,
            show=show,
            **options.given(options.STREAM),
        )
    print(tally.describe(summary))
    if summary["interrupted"]:
        raise Interrupted(signal.Signals[summary["interrupted"]], f" after {summary['frames']} frames: this is the summary of these")


if __name__ == "__main__":
    launcher.run(main)
