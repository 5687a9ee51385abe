"""What a live session looks like in a terminal; plain lines where the output is none."""

from __future__ import annotations

import time

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ica_unet_jax.streaming.tally import Tally

SECONDS_BETWEEN_PICTURES = 0.25
SECONDS_BETWEEN_LINES = 5.0


class LiveView:
    """`with LiveView() as view: view.update(tally)` after each frame; it draws now and then."""

    def __init__(self, console: Console | None = None):
        self.console = console or Console(stderr=True, soft_wrap=True, highlight=False)
        self._live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None
        self._every = SECONDS_BETWEEN_PICTURES if self._live else SECONDS_BETWEEN_LINES
        self._drawn = time.monotonic(), 0  # when, and how many had been answered
        self._refused = 0

    def __enter__(self) -> LiveView:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_) -> None:
        if self._live:
            self._live.stop()

    def update(self, tally: Tally) -> None:
        if tally.refused > self._refused:
            self.console.print(tally.refusal, markup=False)
            self._refused = tally.refused
        (since, answered), now = self._drawn, time.monotonic()
        if now - since < self._every or tally.last is None:
            return
        rate = (tally.answered - answered) / (now - since)
        self._drawn = now, tally.answered
        if self._live:
            self._live.update(picture(tally, rate), refresh=True)
        else:
            self.console.print(line(tally, rate))


def picture(tally: Tally, rate: float) -> Group:
    """Rate, latency bar, volumes, ejection fractions and counts; `rate` in answers a second."""
    late = tally.last.arrival_to_mask_ms > tally.deadline_ms
    bar = ProgressBar(
        total=tally.deadline_ms,
        completed=min(tally.last.arrival_to_mask_ms, tally.deadline_ms),
        width=30,
        complete_style="red" if late else "green",
        finished_style="red" if late else "green",
    )
    table = Table.grid(padding=(0, 2))
    rows = {
        "rate": Text(f"{rate:.1f} frames/s"),
        "arrival to mask": Text(f"{tally.last.arrival_to_mask_ms:.1f} ms of {tally.deadline_ms:g}"),
        "": bar,
        "compute": Text(f"{tally.last.compute_ms:.1f} ms"),
        "volumes": Text(volumes(tally)),
        "EF so far": Text(fractions(tally)),
        "frames": Text(counts(tally)),
    }
    for name, cell in rows.items():
        table.add_row(Text(name, style="bold"), cell)
    return Group(table)


def line(tally: Tally, rate: float) -> str:
    """The same in a line."""
    last = tally.last
    latencies = f"arrival to mask {last.arrival_to_mask_ms:.1f} ms  compute {last.compute_ms:.1f} ms"
    return f"{counts(tally)}  {rate:.1f} frames/s  {latencies}  {volumes(tally)}  EF {fractions(tally)}"


def volumes(tally: Tally) -> str:
    return ", ".join(f"{name} {volume:.0f}" for name, volume in tally.last.volumes_ml.items()) + " mL"


def fractions(tally: Tally) -> str:
    values = {name: tally.ejection_fraction(name) for name in ("LV", "RV")}
    return ", ".join(f"{name} " + (f"{100 * v:.0f} %" if v == v else "–") for name, v in values.items())


def counts(tally: Tally) -> str:
    return f"{tally.frames} frames, {tally.dropped} dropped, {tally.refused} refused, {tally.deadline_misses} late"
