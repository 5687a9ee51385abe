"""The finished trainings in a sweep's folder: a folder each while it runs, a few CSV files for all once it is compacted.

A running sweep has WORKDIR/cells/CELL/seedS_foldF/, whole, for every run that ended, and WORKDIR/peers/fastica_mM_foldF.csv for what
FastICA makes of the same frames. `compact` makes of them runs.csv (a line a run), cases.csv, ica.csv, places.csv, curves.csv and peers.csv (their
lines, with cell, seed and fold or m and fold before them) and, in sweep.json, the configurations and splits. Where a kept sweep has
gone on there is both, and what lies in cells/ is the later.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ica_unet_jax.errors import UserError
from ica_unet_jax.runs.log import read_metrics
from ica_unet_jax.runtime.files import read_object, write_json, write_text
from ica_unet_jax.sweeps.lines import csv_text

Key = tuple[str, int, int]  # cell, seed, fold
Line = dict[str, str]  # of a CSV; an empty field is not there

PLACE = ("cell", "seed", "fold")
ENDED = ("status", "message", "step", "metrics_version")
ORIGIN = ("commit", "python", "versions", "device", "devices", "processes", "cores", "machine")
TIMING = (
    "seconds_per_step", "compile_seconds", "training_seconds", "evaluation_seconds", "frame_ms", "wall_seconds", "threads",
)  # fmt: skip
CURVES = (
    "step", "loss", "cross_entropy_1", "soft_dice", "sparsity", "independence", "reconstruction", "distillation", "gradient_norm",
    "validation_cross_entropy", "dice_RV", "dice_MYO", "dice_LV", "dice_mean",
)  # fmt: skip
KEPT = ("configs", "splits")  # in sweep.json
PARTS = ("cases", "ica", "places")  # a CSV of each run
FILES = ("runs", *PARTS, "curves", "peers")
_NUMBERS = {"step", "metrics_version", "devices", "processes", "cores", *TIMING}
_AGAIN = "delete it (of a cell the whole folder) and run the sweep's command again"
_BACK = "bring it back as it was when the sweep was compacted"


@dataclasses.dataclass(frozen=True)
class Record:
    """A run that ended, as it was written down."""

    cell: str
    seed: int
    fold: int
    place: Path  # the folder where its files lie
    facts: dict[str, Any]  # `ENDED`, `ORIGIN` and `TIMING`, as far as they are known
    config: dict[str, Any]  # as whatever version wrote it; {} where it is not there
    split: dict[str, list[str]]
    figures: dict[str, list[Line]] = dataclasses.field(default_factory=dict)  # lines of `PARTS`, where they are there

    @property
    def key(self) -> Key:
        return self.cell, self.seed, self.fold

    @property
    def advice(self) -> str:
        """What to do about a damaged file."""
        return _AGAIN if self.place.name == name(self.seed, self.fold) else _BACK


def name(seed: int, fold: int) -> str:
    """Of a run's folder."""
    return f"seed{seed}_fold{fold}"


def read(workdir: str | Path, figures: bool = True) -> dict[Key, Record]:
    """All runs that ended, of either form. Raises UserError where a file is damaged."""
    workdir = Path(workdir)
    folders = sorted(path.parent for path in workdir.glob("cells/*/seed*_fold*/done.json"))
    return _compacted(workdir, figures) | {record.key: record for record in (_of_folder(folder, figures) for folder in folders)}


def find(workdir: str | Path, key: Key) -> Record | None:
    """One run, without its figures; None where it has not ended."""
    cell, seed, fold = key
    folder = Path(workdir) / "cells" / cell / name(seed, fold)
    return _of_folder(folder, False) if (folder / "done.json").is_file() else _compacted(Path(workdir), False).get(key)


def peers(workdir: str | Path) -> dict[tuple[int, int], list[Line]]:
    """FastICA's lines by (m, fold)."""
    found: dict[tuple[int, int], list[Line]] = {}
    path = Path(workdir) / "peers.csv"
    for line in _lines(path, _BACK) if path.is_file() else ():
        found.setdefault((int(line.pop("m")), int(line.pop("fold"))), []).append(line)
    for path in sorted(Path(workdir).glob("peers/fastica_m*_fold*.csv")):
        m, fold = map(int, re.findall(r"\d+", path.stem))
        found[m, fold] = list(_lines(path, _AGAIN))
    return found


def compact(workdir: str | Path) -> None:
    """Keeps what has ended in a few files, and removes the folders cells/ and peers/.

    A kill leaves both forms, of which `read` makes the same. Raises UserError where a file is damaged or cannot be written.
    """
    workdir = Path(workdir)
    plan, records = read_object(workdir / "sweep.json", "name the folder of a sweep"), read(workdir)
    ordered = [records[key] for key in sorted(records)]
    kept = curves(workdir, ordered)
    for part in PARTS:
        write_lines(workdir / f"{part}.csv", (_placed(record, line) for record in ordered for line in record.figures.get(part, ())))
    write_lines(workdir / "curves.csv", (_placed(record, line) for record in ordered for line in kept[record.key]))
    known = peers(workdir)
    write_lines(workdir / "peers.csv", ({"m": m, "fold": fold} | line for m, fold in sorted(known) for line in known[m, fold]))
    configs = {digest(_shared(record.config)): _shared(record.config) for record in ordered if record.config}
    splits = {digest(record.split): record.split for record in ordered if record.split}
    write_json(workdir / "sweep.json", plan | dict(zip(KEPT, (configs, splits), strict=True)))
    write_lines(workdir / "runs.csv", map(_line, ordered), (*PLACE, *ENDED, "config", "split", *ORIGIN, *TIMING))
    for folder in ("cells", "peers"):
        shutil.rmtree(workdir / folder, ignore_errors=True)


def curves(workdir: Path, records: Iterable[Record]) -> dict[Key, list[dict[str, Any]]]:
    """The lines of every run's training that say how it learned; six significant digits."""
    before = _by_run(workdir / "curves.csv")
    found: dict[Key, list[dict[str, Any]]] = {}
    for record in records:
        if record.place == workdir:
            found[record.key] = list(before.get(record.key, ()))
            continue
        lines = ({name: line[name] for name in CURVES if name in line} for line in read_metrics(record.place))
        found[record.key] = [{k: f"{v:.6g}" if isinstance(v, float) else v for k, v in line.items()} for line in lines]
    return found


def digest(value: Mapping[str, Any]) -> str:
    """Of what is written down once for many runs."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]], columns: Sequence[str] = ()) -> None:
    """A CSV of the lines, exact; removed where there is none."""
    lines = list(lines)
    if not lines:
        path.unlink(missing_ok=True)
        return
    write_text(path, csv_text(lines, columns, exact=True))


def _of_folder(folder: Path, figures: bool) -> Record:
    seed, fold = map(int, re.fullmatch(r"seed(\d+)_fold(\d+)", folder.name).groups())

    def of(file: str) -> dict[str, Any]:
        return read_object(folder / file, _AGAIN) if file == "done.json" or (folder / file).is_file() else {}

    done, origin, timing = of("done.json"), of("provenance.json"), of("timing.json")
    if versions := origin.get("versions"):
        origin = origin | {"versions": " ".join(f"{package}={version}" for package, version in versions.items())}
    facts = {name: part.get(name) for part, names in ((done, ENDED), (origin | timing, (*ORIGIN, *TIMING))) for name in names}
    parts = [part for part in PARTS if figures and (folder / f"{part}.csv").is_file()]
    lines = {part: list(_lines(folder / f"{part}.csv", _AGAIN)) for part in parts}
    known = {name: value for name, value in facts.items() if value not in (None, "")}
    return Record(folder.parent.name, seed, fold, folder, known, of("config.json"), of("split.json"), lines)


def _compacted(workdir: Path, figures: bool) -> dict[Key, Record]:
    path = workdir / "runs.csv"
    if not path.is_file():
        return {}
    plan = read_object(workdir / "sweep.json", _BACK)
    found = {}
    try:
        lines = {part: _by_run(workdir / f"{part}.csv") if figures else {} for part in PARTS}
        for line in _lines(path, _BACK):
            cell, seed, fold = key = line["cell"], int(line["seed"]), int(line["fold"])
            facts = {name: json.loads(line[name]) if name in _NUMBERS else line[name] for name in (*ENDED, *ORIGIN, *TIMING) if name in line}
            config = plan["configs"][line["config"]] | {"seed": seed, "fold": fold} if "config" in line else {}
            split = plan["splits"][line["split"]] if "split" in line else {}
            own = {part: of_all[key] for part, of_all in lines.items() if key in of_all}
            found[key] = Record(cell, seed, fold, workdir, facts, config, split, own)
    except (KeyError, ValueError) as error:
        raise UserError(f"{path} and the files beside it do not go together ({error!r}): {_BACK}.") from error
    return found


def _by_run(path: Path) -> dict[Key, list[Line]]:
    found: dict[Key, list[Line]] = {}
    for line in _lines(path, _BACK) if path.is_file() else ():
        cell, seed, fold = (line.pop(name, "") for name in PLACE)
        found.setdefault((cell, int(seed), int(fold)), []).append(line)
    return found


def _lines(path: Path, advice: str) -> Iterator[Line]:
    """Of a CSV, without the empty fields. Raises UserError where it cannot be read or a line has too few or too many fields."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for line in csv.DictReader(file, restkey="too many", restval=None):
                if None in line.values() or "too many" in line:
                    raise UserError(f"{path} is damaged (a line has not as many fields as the first): {advice}.")
                yield {name: value for name, value in line.items() if value}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error}): {advice}.") from error


def _line(record: Record) -> dict[str, Any]:
    """Of runs.csv."""
    shared = {part: digest(value) for part, value in (("config", _shared(record.config)), ("split", record.split)) if value}
    return _placed(record, record.facts | shared)


def _placed(record: Record, line: Mapping[str, Any]) -> dict[str, Any]:
    return dict(zip(PLACE, record.key, strict=True)) | dict(line)


def _shared(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a run's configuration shares with the other runs of its cell."""
    return {name: value for name, value in config.items() if name not in PLACE}
