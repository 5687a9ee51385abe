"""What is timed: networks on grids, under the runtimes at hand."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from ica_unet_jax.benchmarking.systems import SYSTEMS
from ica_unet_jax.benchmarking.work import equal_work
from ica_unet_jax.config import Config
from ica_unet_jax.errors import UserError
from ica_unet_jax.inference import segmenters
from ica_unet_jax.portable import runtimes
from ica_unet_jax.portable.runtimes import JAX

Grid = tuple[int, int, int]

ROI, FULL = (8, 128, 128), (10, 256, 256)
TRAINING = (8, 96, 96)


@dataclasses.dataclass(frozen=True)
class Row:
    """A network and what it is timed at: a stream of frames (s, h, w), or with `frame` None a training step."""

    name: str
    config: Config
    frame: Grid | None = None
    run: str = ""  # whose trained values are used; otherwise untrained ones
    dice: float | None = None  # of the run, on the grid that it was trained on
    runtime: str = JAX
    group: str = ""  # rows of a group are timed in turn, and may be compared; "" is the first part of the name


def paper_rows() -> list[Row]:
    """ICA-UNet in all its kinds and its rivals, on a window and on full frames; full frames through a window; training."""
    rivals = [system for system in SYSTEMS if system.changes["model"] != "ica_unet"]
    kinds = list(itertools.product((4, 3), ("independent", "dense", "shared"), ("past", "both")))
    found = []
    for name, grid in (("roi", ROI), ("full", FULL)):
        for n, streams, neighbours in kinds:
            config = Config.make(crop=grid, contracting_blocks=n, streams=streams, neighbours=neighbours)
            config = config.replace(**equal_work(config.model))
            found.append(Row(f"{name}/n{n}/{streams}/{neighbours}", config, grid))
        found += [Row(f"{name}/{rival.name}", Config.make(crop=grid, **rival.changes), grid) for rival in rivals]
    for streams in ("independent", "dense"):
        config = Config.make(crop=ROI, neighbours="past", streams=streams)
        found.append(Row(f"window/n4/{streams}/past", config.replace(**equal_work(config.model)), FULL, group="full"))
    for streams in ("independent", "dense", "shared"):
        config = Config.make(crop=TRAINING, contracting_blocks=3, streams=streams, decoder_convs=2)
        found.append(Row(f"train/n3/{streams}", config.replace(**equal_work(config.model))))
    trained = [rival for rival in rivals if rival.changes.get("span", 2) == 2]  # each network once
    return found + [Row(f"train/{rival.name}", Config.make(crop=TRAINING, **rival.changes)) for rival in trained]


def of_runs(run_dirs: Sequence[str | Path]) -> list[Row]:
    """`run_rows` of each; what they have in common is timed in turn. Raises UserError where two folders have one name, by which rows are told apart."""
    found = {}
    for folder in run_dirs:
        for row in run_rows(folder):
            if row.name in found:
                raise UserError(f"--workdir={','.join(map(str, run_dirs))}: two folders are called {Path(folder).resolve().name}; give one of them another name.")
            kind = row.name.rpartition("/")[2]
            found[row.name] = dataclasses.replace(row, group=f"{kind} {row.frame or row.config.model.crop}" if len(run_dirs) > 1 else "")
    return [*found.values()]


def run_rows(run_dir: str | Path) -> list[Row]:
    """A trained network on its own grid, on a full frame through its window, and, untrained, on the other grids; its training step."""
    config, name = segmenters.load(run_dir).config, Path(run_dir).resolve().name
    own, d = config.model.crop, config.model.crop[0]
    rows = [
        Row(f"{name}/own", config, own, str(run_dir), dice_of(run_dir)),
        Row(f"{name}/window", config, (d, *FULL[1:]), str(run_dir)),
    ]
    others = {"roi": ROI, "full": FULL}
    rows += [Row(f"{name}/{k}", config.replace(crop=grid), grid) for k, grid in others.items() if grid != own]
    return [*rows, Row(f"{name}/train", config)]


def dice_of(run_dir: str | Path) -> float | None:
    """Mean Dice of a run's evaluation, on test patients if there is one; None without any."""
    for split in ("test", "val"):
        path = Path(run_dir) / f"evaluation_{split}" / "summary.json"
        if path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))["dice"]["mean"]
    return None


def choose(rows: Sequence[Row], only: Sequence[str]) -> list[Row]:
    """The rows whose name contains one of `only`; all without any. Raises UserError where a word fits none."""
    for word in only:
        if not any(word in row.name for row in rows):
            raise UserError(f"--only={word} fits no row: give parts of {', '.join(row.name for row in rows)}.")
    return [row for row in rows if not only or any(word in row.name for word in only)]


def under(rows: Sequence[Row], names: Sequence[str], dtypes: Sequence[str]) -> list[Row]:
    """Each stream under each runtime that can run it, in each arithmetic that this can do here; training steps in JAX.

    Args:
      names: of `runtimes.RUNTIMES`, but auto; none: those at hand.

    Raises:
      UserError: a runtime that cannot be taken here, in none of the `dtypes`.
    """
    found = []
    for row in rows:
        for runtime, dtype in _pairs(names or runtimes.at_hand(), dtypes):
            if runtime == JAX or (row.frame and row.config.model.portable):
                told = "".join([f"@{runtime}" * (runtime != JAX), f"@{dtype}" * (dtype != "float32")])
                found.append(dataclasses.replace(row, name=row.name + told, config=row.config.replace(compute_dtype=dtype), runtime=runtime))
    return found


def _pairs(names: Sequence[str], dtypes: Sequence[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        refused = None
        able = []
        for dtype in dtypes:
            try:
                able.append((runtimes.choose(name, dtype), dtype))
            except UserError as error:
                refused = error
        if refused and not able:
            raise refused
        yield from able
