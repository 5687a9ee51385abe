"""How wide a rival may be: the widest whose training step takes at most twice that of ICA-UNet, timed in turns.

  python ablations/widths.py --rivals=unet3d,grid_net

Steps of `launch/acdc.flags` and of each width of a rival alternate in one process, so that a ratio is never one of two minutes of a
shared machine. It prints a line for each width; the launch files in launch/baselines have what it found.
"""

from __future__ import annotations

import bisect
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # not this folder, whose modules would hide the standard library's

from absl import flags  # noqa: E402

from ica_unet_jax import launcher  # noqa: E402
from ica_unet_jax.config import Config  # noqa: E402
from ica_unet_jax.errors import UserError  # noqa: E402
from ica_unet_jax.runtime import launch_files  # noqa: E402

LIMIT = 2.0  # times the step of ICA-UNet
# Each half or a third as much work as the next, or less.
WIDTHS = {"unet2d": ("unet_width", (8, 12, 16, 24, 32, 48, 64))}
MULTIPLIERS = ("width_multiplier", (0.0625, 0.09375, 0.125, 0.1875, 0.25, 0.375, 0.5, 0.75, 1.0))
RIVALS = ("unet2d", "unet3d", "ensemble_unet", "msu_net", "grid_net", "omega_net")

_RIVALS = flags.DEFINE_list("rivals", list(RIVALS), "Which rivals, by the names of their launch files.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Steps of each, in turns.", lower_bound=1)


def main() -> None:
    import jax

    reference = Config.make(**launch_files.read(ROOT / "launch" / "acdc.flags"))
    for name in _RIVALS.value:
        if name not in RIVALS:
            raise UserError(f"--rivals={name} is no rival: choose some of {', '.join(RIVALS)}.")
        config = reference.replace(**launch_files.read(ROOT / "launch" / "baselines" / f"{name}.flags"))
        knob, widths = WIDTHS.get(name, MULTIPLIERS)
        own = _step(reference)

        def too_wide(width: float, config: Config = config, knob: str = knob, own: Callable[[], Any] = own, name: str = name) -> bool:
            ratio, seconds = in_turns(own, _step(config.replace(**{knob: width})), _ROUNDS.value)
            print(f"{name}, --{knob}={width:g}: {seconds:.2f} s a step, {ratio:.2f} of ICA-UNet's", flush=True)
            return ratio > LIMIT

        fit = bisect.bisect_left(widths, True, key=too_wide)
        print(f"{name}: " + (f"--{knob}={widths[fit - 1]:g}" if fit else "none is narrow enough"), flush=True)
        jax.clear_caches()


def in_turns(own: Callable[[], Any], other: Callable[[], Any], rounds: int, clock: Callable[[], float] = time.perf_counter) -> tuple[float, float]:
    """(median of the ratios other / own of neighbouring calls, median seconds of `other`); a first call of each does not count."""
    import numpy as np

    spans = []
    for _ in range(1 + rounds):
        times = [clock()]
        for call in (own, other):
            call()
            times.append(clock())
        spans.append(np.diff(times))
    mine, theirs = np.array(spans[1:]).T
    return float(np.median(theirs / mine)), float(np.median(theirs))


def _step(config: Config) -> Callable[[], Any]:
    import jax

    from ica_unet_jax.benchmarking.measuring import training_step

    step = training_step(config)
    return lambda: jax.block_until_ready(step())


if __name__ == "__main__":
    launcher.run(main)
