"""What a training writes while it runs: losses and scores in metrics.jsonl, events in training.log."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ica_unet_jax.errors import UserError
from ica_unet_jax.runs.tensorboard import Events
from ica_unet_jax.runtime import processes
from ica_unet_jax.runtime.files import append_line, write_text, writing


class Metrics:
    """`metrics.jsonl`, one JSON object a line; with `tensorboard` as events too.

    Lines beyond the step `first` that a run resumes from are dropped; its validation too where that is still `pending`.
    All processes know the `lines`, the first writes them.
    """

    def __init__(self, folder: Path, first: int, *, pending: bool = False, tensorboard: bool = False):
        self.path = folder / "metrics.jsonl"
        self.lines = [line for line in read_metrics(folder) if line["step"] <= first]
        if pending:
            self.lines = [line for line in self.lines if line["step"] < first or "dice_mean" not in line]
        self.writes = processes.is_first()
        if self.writes:
            write_text(self.path, "".join(json.dumps(line) + "\n" for line in self.lines))
        self.events = Events(folder / "tensorboard", first) if tensorboard and self.writes else None

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, *_) -> None:
        if self.events:
            with writing(self.path.parent):
                self.events.close()

    def write(self, **values: Any) -> None:
        """Adds a line. Raises UserError on a full disk."""
        self.lines.append(values)
        if self.writes:
            append_line(self.path, json.dumps(values))
        if self.events:
            with writing(self.path.parent):
                self.events.write(**values)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl; a last line cut off by a kill is left out. Raises UserError for another."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return []
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True), start=1):
        if not line.endswith("\n"):
            break
        try:
            found.append(json.loads(line))
        except ValueError as error:
            raise UserError(f"{path}, line {number}, is no JSON: remove the line.") from error
    return found


class Span(NamedTuple):
    """The steps that end at a line of metrics.jsonl, since the line before; `compiled` where their time holds a compilation."""

    steps: int
    seconds_per_step: float
    compiled: bool

    @property
    def seconds(self) -> float:
        return self.steps * self.seconds_per_step


def spans(lines: Iterable[Mapping[str, Any]]) -> list[Span | None]:
    """What each line tells of the time; None for one that tells nothing of it, as a validation's."""
    found, last = [], 0
    for line in lines:
        span = None
        if "seconds_per_step" in line:
            span = Span(line["step"] - last, line["seconds_per_step"], line["compiled"])
            last = line["step"]
        found.append(span)
    return found


def training_minutes(lines: Iterable[Mapping[str, Any]]) -> list[float]:
    """Minutes of training up to each line, over all resumptions; compilation and validation count nothing."""
    plain = (0.0 if span is None or span.compiled else span.seconds / 60 for span in spans(lines))
    return list(itertools.accumulate(plain))


class Log:
    """`training.log`: what happened to a run, a line each with the date and the time; `say` shows it as well.

    The first process speaks for all.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]):
        self.path, self.say = folder / "training.log", say

    def __call__(self, text: str) -> None:
        if not processes.is_first():
            return
        self.say(text)
        append_line(self.path, f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}")
