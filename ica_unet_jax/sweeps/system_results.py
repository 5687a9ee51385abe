"""Reads what the run folders of `comparing` say of the paper's systems, and which network each row of its tables is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ica_unet_jax.benchmarking.systems import SYSTEMS, System, network_name, widths
from ica_unet_jax.errors import UserError
from ica_unet_jax.metrics.cases import Row, read_cases_csv, summarize
from ica_unet_jax.reporting.markup import counted
from ica_unet_jax.runs import log, run_folder, status
from ica_unet_jax.sweeps.paper_figures import TABLE_1, TABLE_2, Accuracy, RealTime

FOLD = "fold"  # before its number, a folder of the tables of one fold
SHARED = ("crop", "spacing", "steps", "batch_size")  # by all rows, beside patients and metrics


class Result(NamedTuple):
    """What a run folder tells of a system; None and empty where it tells nothing."""

    system: System
    config: dict[str, Any]
    summary: dict[str, Any] | None
    cases: list[Row]
    timings: dict[float, dict[str, Any] | None]  # rows of a benchmark, by the width of the network
    machine: str  # on which it was timed
    trained: dict[str, Any]  # the provenance of its training
    hours: float
    state: str


def read(folder: Path, split: str) -> list[Result]:
    """The systems that have been begun, in the order of the tables; where there are tables of folds, of all their patients.

    Raises:
      UserError: two of them cannot stand in one table; see `SHARED`.
    """
    if folds := sorted(folder.glob(f"{FOLD}[0-9]*")):
        return _pooled([{result.system.name: result for result in read(fold, split)} for fold in folds])
    results = [read_run(folder / system.name, system, split) for system in SYSTEMS if (folder / system.name).is_dir()]
    judged = [(result, _shared(folder / result.system.name, result)) for result in results if result.summary]
    for result, shared in judged[1:]:
        first, expected = judged[0]
        if differing := [name for name, value in shared.items() if value != expected[name]]:
            raise UserError(
                f"{folder} holds runs that cannot stand in one table ({first.system.name} and {result.system.name} differ in "
                f"{', '.join(differing)}): move one of them to another --workdir."
            )
    return results


def _pooled(folds: list[dict[str, Result]]) -> list[Result]:
    """Of each system one result: the patients of all folds, each judged by the network that did not learn from him, and the mean hours of a training."""
    found = []
    for system in SYSTEMS:
        results = [fold[system.name] for fold in folds if system.name in fold]
        if not results:
            continue
        judged = [result for result in results if result.summary]
        rows = [row for result in judged for row in result.cases]
        left = next((result.state for result in results if result.state), "")
        state = "" if len(judged) == len(folds) else f"{len(judged)} of {len(folds)} folds" + f" ({left})" * bool(left)
        hours = [result.hours for result in judged if result.hours]
        found.append(
            results[0]._replace(
                summary=summarize(rows) if rows else None, cases=rows, state=state, hours=sum(hours) / len(hours) if hours else 0.0,
                timings=next((result.timings for result in results if any(result.timings.values())), results[0].timings),
                machine=next((result.machine for result in results if result.machine), ""),
            )
        )  # fmt: skip
    return found


def _shared(run: Path, result: Result) -> dict[str, Any]:
    about = {"split": run_folder.read_split(run), "version of the metrics": result.summary["metrics_version"]}
    return about | {name: result.config[name] for name in SHARED}


def read_run(run: Path, system: System, split: str) -> Result:
    path = run / f"evaluation_{split}" / "cases.csv"
    cases = read_cases_csv(path) if path.is_file() else []
    summary, told = _json(path.with_name("summary.json")), status.read(run)
    state = "" if summary else "not trained yet"
    if told:
        state = f"diverged at step {told['step']} ({told['message']})" if "step" in told else told["message"]
    config, trained = _json(run / "config.json") or {}, _json(run / "provenance.json") or {}
    timed = _json(run / "timing.json") or {"rows": {}}
    timings = {width: timed["rows"].get(network_name(system.name, width)) for width in _widths(system, config)}
    machine = machine_of(timed["machine"]) if "machine" in timed else ""
    return Result(system, config, summary, cases, timings, machine, trained, training_hours(run), state)


def _widths(system: System, config: Mapping[str, Any]) -> tuple[float, ...]:
    return widths(system.changes["model"], config.get("width_multiplier", 1.0))


def machine_of(known: dict[str, Any]) -> str:
    """A provenance's machine, JAX and commit in a few words."""
    return f"{known['device']} ({known['machine']}), {counted(known['cores'], 'core')}, JAX {known['versions']['jax']}, commit {known['commit'] or '?'}"


def training_hours(run: Path) -> float:
    """Wall-clock of a training's steps, compilation left out, over all its resumptions."""
    return next(reversed(log.training_minutes(log.read_metrics(run))), 0.0) / 60


class Network(NamedTuple):
    """A row: a system at one width, of which only the width that was trained has scores, or what the paper prints of it."""

    title: str
    timing: dict[str, Any] | None = None
    width: float = 1.0
    machine: str = ""  # on which it was timed
    summary: dict[str, Any] = {}
    cases: list[Row] = []
    hours: float | None = None
    paper: RealTime | Accuracy | None = None


def networks(results: Iterable[Result], table: int) -> Iterator[Network]:
    """The rows of a table: of each system its networks, where it has been begun, and what the paper prints of it."""
    known = {result.system.name: result for result in results}
    printed: Mapping[str, RealTime | Accuracy] = {1: TABLE_1, 2: TABLE_2}[table]
    for system in SYSTEMS:
        if table in system.tables:
            if system.name in known:
                yield from networks_of(known[system.name])
            if paper := printed.get(system.name):
                yield Network(f"{paper.title} (paper)", paper=paper)


def networks_of(result: Result) -> Iterator[Network]:
    """A system at full width, and at that of its training where it is narrower."""
    *wider, trained = result.timings
    for width in wider:
        yield Network(result.system.title, result.timings[width], width, result.machine)
    title = at_width(result.system.title, trained) + (f": {result.state}" if result.state else "")
    known = result.summary or {}, result.cases, result.hours or None
    yield Network(title, result.timings[trained], trained, result.machine, *known)


def at_width(title: str, width: float) -> str:
    return title if width == 1 else f"{title}, at {width:g} of its width"


def _json(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
