"""A progress bar with the time left; plain lines where the output is not a terminal."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

SECONDS_BETWEEN_LINES = 15


class Progress:
    """`with Progress(total, done) as p: p.update(n, loss); p.note(text)`; `quiet` shows nothing."""

    def __init__(self, total: int, done: int = 0, unit: str = "step", *, quiet: bool = False):
        self.console = Console(stderr=True, soft_wrap=True, highlight=False, quiet=quiet)
        self.total, self.unit = total, unit
        self.bar = None
        if self.console.is_terminal:
            columns = (
                TextColumn(unit), MofNCompleteColumn(), BarColumn(), TimeElapsedColumn(), TextColumn("left"),
                TimeRemainingColumn(), TextColumn("{task.description}"),
            )
            self.bar = RichProgress(*columns, console=self.console)
            self.task = self.bar.add_task("", total=total, completed=done)
        # The first step compiles: the time left is reckoned from its end.
        self.began: tuple[float, int] | None = None
        self.last = time.monotonic()

    def __enter__(self) -> Progress:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_) -> None:
        if self.bar:
            self.bar.stop()

    def update(self, done: int, loss: float | None = None) -> None:
        text = "" if loss is None else f"loss {loss:.4f}"
        if self.bar:
            self.bar.update(self.task, completed=done, description=text)
            return
        now = time.monotonic()
        if self.began is None:
            self.began = now, done
        elif now - self.last >= SECONDS_BETWEEN_LINES or done == self.total:
            since, first = self.began
            left = (now - since) / (done - first) * (self.total - done)
            self.note(f"{self.unit} {done}/{self.total}  {text}  {left / 60:.1f} min left")
            self.last = now

    def note(self, text: str) -> None:
        """A line that stays."""
        (self.bar.console if self.bar else self.console).print(text)
