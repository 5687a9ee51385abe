"""How long a sweep takes: from finished trainings of the same network where there are some, otherwise from measuring its parts."""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ica_unet_jax.config import Config
from ica_unet_jax.reporting.markup import plain_table
from ica_unet_jax.runs.provenance import processor
from ica_unet_jax.sweeps import records
from ica_unet_jax.sweeps.plan import Run, Sweep
from ica_unet_jax.sweeps.runner import Slot, environment
from ica_unet_jax.training import distillation

SILENCE = 30  # seconds, at most, without a line while something is measured
WORTH = 100  # steps of a run, at least, for a sweep to begin with measurements


def network(config: Config) -> tuple:
    """What decides how long a step takes, and a judgement."""
    train, loss = config.train, config.loss
    return config.model, train.batch_size, train.unlabelled, loss.whiten_bases, bool(loss.distillation_weight)


def pace(config: Config) -> tuple:
    """What decides how long a whole training takes."""
    return network(config), config.train.steps, config.train.evaluate_every


class Estimate:
    """Seconds of a sweep's runs on this machine; asked again as runs finish, it follows what they took."""

    def __init__(self, workdir: Path, sweep: Sweep, shares: Sequence[Slot]):
        self.workdir, self.shares = workdir, shares
        self.cells, self.titles = sweep.cells(), sweep.titles()
        self.parts: dict[tuple, Any] = {}  # probe.Parts of a network
        self.failed: dict[tuple, str] = {}  # a network's reason why it has none
        self.warm: set[str] = set()  # cells whose training step was compiled by measuring it
        self.look()

    def look(self) -> None:
        """Takes notice of what has finished."""
        self.took: dict[str, list[float]] = {}
        self.paces: dict[tuple, list[float]] = {}
        for record in records.read(self.workdir, figures=False).values():
            facts, here = record.facts, {"machine": processor(), "threads": self.shares[0].threads}
            seconds = facts.get("wall_seconds")
            if not seconds or any(facts.get(name) != value for name, value in here.items()):
                continue
            self.took.setdefault(record.cell, []).append(seconds)
            self.paces.setdefault(pace(Config.recorded(record.config)), []).append(seconds)

    def measure(self, runs: Iterable[Run], say: Callable[[str], Any]) -> None:
        """Measures each network of these runs of which nothing has finished, as many at a time as there are shares."""
        unknown: dict[tuple, tuple[str, Config]] = {}
        for run in runs:
            config = self.cells[run.cell]
            for part in filter(None, (config, distillation.own_teacher(config))):
                if pace(part) not in self.paces and network(part) not in {*self.parts, *self.failed}:
                    unknown.setdefault(network(part), (run.cell, part))
        todo, count = list(unknown.items()), len(self.shares)
        if not todo:
            return
        say(f"measuring {len(todo)} networks, each with a few steps after its compilation")
        # No share is idle while another measures: in the sweep none will be either.
        padded = todo + [todo[i % len(todo)] for i in range(-len(todo) % count)]
        free = list(self.shares)

        def work(item: tuple[tuple, tuple[str, Config]]) -> None:
            key, (cell, config) = item
            slot = free.pop()
            try:
                found, reason = probe(config, slot, lambda text: say(f"{self.titles[cell]}: {text}"))
            finally:
                free.append(slot)
            if found is None:
                self.failed.setdefault(key, reason)
                say(f"{self.titles[cell]}: cannot be measured ({reason})")
            elif key not in self.parts:
                self.parts[key] = found
                self.warm.add(cell)
                say(f"{self.titles[cell]}: {found.step:.3f} s a step")

        with ThreadPoolExecutor(count) as pool:
            list(pool.map(work, padded))

    def seconds(self, cell: str, first: bool = False) -> tuple[float, str] | None:
        """(seconds of a run of a cell, whence they are known); of its `first` run its compilation too. None: unknown."""
        if cell in self.took:
            return statistics.mean(self.took[cell]), "took"
        config = self.cells[cell]
        if pace(config) in self.paces:
            return statistics.mean(self.paces[pace(config)]), "took, another cell of this network"
        found = self._measured(cell, config, first)
        return None if found is None else (found * self.correction(), "measured" if cell in self.warm else "measured, this network")

    def _measured(self, cell: str, config: Config, first: bool) -> float | None:
        parts, own = self.parts.get(network(config)), distillation.own_teacher(config)
        teacher = self._measured(cell, own, first) if own else 0.0
        if parts is None or teacher is None:
            return None
        return parts.seconds(config, compiled=cell in self.warm or not first) + teacher

    def correction(self) -> float:
        """How much longer than by their measured parts runs took, the median over those that were measured and have finished."""
        ratios = []
        for cell, took in self.took.items():
            measured = self._measured(cell, self.cells[cell], False) if cell in self.cells else None
            if measured:
                ratios.append(statistics.mean(took) / measured)
        return statistics.median(ratios) if ratios else 1.0

    def left(self, runs: Sequence[Run]) -> tuple[float | None, int]:
        """(seconds until these runs have ended, how many of them are of unknown length, which count as the others' mean)."""
        counts = Counter(run.cell for run in runs)
        known = {cell: found for cell in counts if (found := self.total(cell, counts[cell])) is not None}
        unknown = sum(count for cell, count in counts.items() if cell not in known)
        if not known:
            return (0.0 if not runs else None), unknown
        each = sum(known.values()) / sum(counts[cell] for cell in known)
        # The last runs leave shares idle.
        waves = max(1.0, -(-len(runs) // len(self.shares)) * len(self.shares) / len(runs))
        return (sum(known.values()) + each * unknown) * waves / len(self.shares), unknown

    def total(self, cell: str, count: int) -> float | None:
        """Seconds of so many runs of a cell, one after the other."""
        first, other = self.seconds(cell, first=not self.took.get(cell)), self.seconds(cell)
        return first[0] + (count - 1) * other[0] if first and other else None


def report(sweep: Sweep, runs: Sequence[Run], left: Sequence[Run], estimate: Estimate) -> str:
    """The plan as a table: of every study its cells by title, runs left, minutes of one and whence they are known."""
    counts, lines, seen = Counter(run.cell for run in left), [], set()
    for study in sweep.studies:
        for cell, title in sweep.titles_of(study).items():
            found = estimate.seconds(cell)
            reason = found[1] if found else estimate.failed.get(network(estimate.cells[cell]), "unknown")
            total = estimate.total(cell, counts[cell]) if counts[cell] else 0.0
            if cell in seen:
                lines.append((study.name, title, "as above", "", "", ""))
                continue
            seen.add(cell)
            lines.append((study.name, title, counts[cell], _minutes(found and found[0]), _minutes(total), reason))
    shares = estimate.shares
    head = f"{len(runs)} runs, {len(left)} left; {len(shares)} at a time, on {shares[0].threads} core{'s' * (shares[0].threads > 1)} each."
    columns = ("study", "cell", "runs left", "minutes each", "minutes", "")
    return "\n".join([head, "", plain_table(columns, lines), "", f"Together {duration(*estimate.left(left))}."])


def duration(seconds: float | None, unknown: int) -> str:
    """As in "95 minutes (1.6 hours)"."""
    if seconds is None:
        return "an unknown time"
    text = f"{seconds / 60:.0f} minutes" if seconds >= 600 else f"{seconds / 60:.1f} minutes"
    text += f" ({seconds / 3600:.1f} hours)" if seconds >= 3600 else ""
    return text + (f", {unknown} runs of unknown length among them" if unknown else "")


def _minutes(seconds: float | None) -> str:
    return "?" if seconds is None else f"{seconds / 60:.1f}"


def probe(config: Config, slot: Slot, say: Callable[[str], Any]) -> tuple[Any, str]:
    """The parts of a cell, measured in a process with the slot's share of the machine; None with the reason where it fails."""
    from ica_unet_jax.sweeps.probe import Parts

    with tempfile.TemporaryDirectory() as folder:
        path, output, errors = (Path(folder) / name for name in ("config.json", "output", "errors"))
        path.write_text(config.to_json(), encoding="utf-8")
        command = [sys.executable, "-m", "ica_unet_jax.sweeps.cell", "--measure", str(path)]
        began = time.perf_counter()
        with output.open("w", encoding="utf-8") as out, errors.open("w", encoding="utf-8") as err:
            # Its standard input closes with this process, and it ends.
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=err, env=environment(slot))
            try:
                while True:
                    try:
                        process.wait(SILENCE)
                        break
                    except subprocess.TimeoutExpired:
                        say(f"still measuring after {time.perf_counter() - began:.0f} s")
            finally:
                process.stdin.close()
        whole = time.perf_counter() - began
        if process.returncode:
            lines = [line.strip() for line in errors.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
            return None, lines[-1][:200] if lines else f"exit code {process.returncode}"
        figures = json.loads(output.read_text(encoding="utf-8").splitlines()[-1])
    return dataclasses.replace(Parts(**{k: v for k, v in figures.items() if k != "inside"}), start=whole - figures["inside"]), ""
