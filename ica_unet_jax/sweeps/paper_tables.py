"""The paper's Tables 1 and 2 from the run folders of `comparing`: Markdown, CSV, LaTeX, and a picture of both."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ica_unet_jax.benchmarking.measuring import RATES
from ica_unet_jax.benchmarking.systems import PAPER_RATE
from ica_unet_jax.labels import STRUCTURES
from ica_unet_jax.metrics import cases
from ica_unet_jax.portable.runtimes import JAX
from ica_unet_jax.reporting import figures
from ica_unet_jax.reporting.markup import NONE, Column, Item, Page, Row, Table, counted, latex, markdown_table, number
from ica_unet_jax.runtime.files import write_text
from ica_unet_jax.sweeps.lines import csv_text
from ica_unet_jax.sweeps.paper_figures import TABLE_1, Accuracy, RealTime
from ica_unet_jax.sweeps.paper_figures import clocks as printed_clocks
from ica_unet_jax.sweeps.system_results import FOLD, Network, Result, machine_of, networks, networks_of, read

LIMIT_MS = 50.0
FEW = 10  # patients below which differences are not tested
PHASES = ("ED", "ES")
SPANS = (2, 3, 5, 10)
DEPTHS = (3, 4)
SCORES = {"Dice": ("dice", 3), "HD": ("hd_mm", 1)}  # of Table 2: key of the summary, digits
UNPRINTED = "not available"  # in the paper, where its table has the column

NOTE_1 = (
    "Each row is one network; of a system that was trained narrow its full width is timed too. Each has its own loss, "
    "optimizer and schedule: ICA-UNet and the U-Net 2D those of the launch file, the rivals those that they were published "
    "with or else ours, untuned. Dice: mean over patients, a patient's frames averaged first, MSU-Net's over every position "
    "of a snippet, where before the first frame of a cine stands that frame again; the mean is over RV, MYO and LV. Times "
    "are of untrained networks on frames of the model's grid, from the host to labels on the host: medians, FPS of the "
    "mean. MSU-Net's channels are ours, and so its times are as much a matter of that choice as of the method. Compute: one "
    "call on a frame that is there; of a snippet, on its last frame. Arrival to mask: compute and the periods of the later "
    "frames that are waited for; of a snippet, for its first frame. A dash: cannot keep up, so that the latency grows for "
    "ever. Keeps 50 ms: arrival to mask at 22 FPS. Rows marked 'paper' are what the paper prints, of other data and another "
    "machine (NVIDIA P100); it does not say over what its ± is, and a dash is a column that its table has not. Its latencies "
    "mix two clocks: MSU-Net's include the wait for frames at 30 FPS, ICA-UNet's leave out the wait for frame t+1. Its text "
    "says that MSU-Nets keep 22 FPS; span 2 has 21.7. Training: the steps, without compilation and validation."
)
NOTE_RATIOS = (
    "Throughput above 1 is in MSU-Net's favour, latency above 1 in ICA-UNet's. The paper's throughput is the quotient of its "
    "FPS; its latencies are those that it prints, counted like ours: compute leaves out the wait for a snippet's later frames, "
    "which MSU-Net's has in it, and arrival to mask adds ICA-UNet's wait for frame t+1, which its has not. As printed: the "
    "quotient of the latencies on the paper's two clocks, of which its '12.6 x faster' is one. A dash: one of the two cannot "
    "keep up or was not timed, they were timed on two machines or at two commits, or the paper has no such network."
)
NOTE_2 = (
    "Each row is one network, as in Table 1. Mean over patients; without a phase a patient's frames are averaged first. HD: "
    "maximum distance in mm over structures found in patients of known voxel size; missed: structures that only one of "
    "prediction and truth has. Dice mean: as in Table 1. Compute: as in Table 1, without the mirroring with which the ensemble "
    "is judged. Rows marked 'paper' are what the paper prints, 'reported by the ACDC evaluation platform', of other patients "
    "than ours and of two protocols: its figures of Ω-Net are from five-fold cross-validation, the others from the "
    "challenge's test set. 'Not available': not printed there; a dash in these rows: a column that its table has not."
)


def arrival_to_mask(timing: dict[str, Any], rate: int) -> float | None:
    """Median milliseconds from a frame's arrival to its labels at one of `RATES`; None where it cannot keep up."""
    return timing["arrival_to_mask_ms"][str(rate)]["p50"]


def table_1(results: Iterable[Result]) -> Table:
    columns = [Column("System", number=False), Column("Parameters (M)"), Column("GFLOP a frame"), *(Column(f"Dice {s}") for s in (*STRUCTURES, "mean"))]
    columns += [Column("FPS"), Column("Compute (ms)"), Column("Waits for frames"), *(Column(f"Arrival to mask, {rate} FPS (ms)") for rate in RATES)]
    columns += [Column("Keeps 22 FPS"), Column("Keeps 50 ms"), Column("Training (h)", in_paper=False)]
    columns += [Column("Latency (ms, paper)")]
    rows = []
    for network in networks(results, 1):
        if isinstance(network.paper, RealTime):
            rows.append(_printed_row(network.title, columns, _printed_times(network.paper)))
            continue
        dice = network.summary.get("dice", {})
        scores = [_item(dice.get(name), 3) for name in (*STRUCTURES, "mean")]
        rows.append(Row([*_size(network), *scores, *_times(network.timing), _item(network.hours, 2), Item(NONE)]))
    return Table("Table 1: real time", columns, rows, NOTE_1, "Accuracy and speed on one machine.")


def _printed_times(paper: RealTime) -> dict[str, Item]:
    scores = {f"Dice {name}": Item(f"{score.mean:.3f} ± {score.spread:.3f}", score.mean) for name, score in paper.dice.items()}
    return scores | {"FPS": _item(paper.fps, 1), "Latency (ms, paper)": _item(paper.latency_ms, 0)}


def _printed_row(title: str, columns: Sequence[Column], printed: Mapping[str, Item]) -> Row:
    """What the paper prints of a system, in our columns."""
    return Row([Item(title), *(printed.get(column.head, Item(NONE)) for column in columns[1:])])


def _times(timing: dict[str, Any] | None) -> list[Item]:
    if timing is None:
        return [Item(NONE)] * 7
    arrivals = [arrival_to_mask(timing, rate) for rate in RATES]
    keeps = [timing["frames_per_second"] >= 22, arrivals[0] is not None and arrivals[0] <= LIMIT_MS]
    return [
        _item(timing["frames_per_second"], 1),
        _item(timing["compute_ms"]["p50"], 1),
        _item(timing["waits"], 0),
        *(_item(value, 0) for value in arrivals),
        *(Item("yes" if kept else "no") for kept in keeps),
    ]


def table_2(results: Iterable[Result]) -> Table:
    columns = [Column("System", number=False), Column("Parameters (M)"), Column("GFLOP a frame", in_paper=False)]
    columns += [Column(f"{score} {s}") for score in SCORES for s in STRUCTURES]
    columns += [Column(f"{score} {phase} {s}", in_paper=False) for score in SCORES for phase in PHASES for s in STRUCTURES]
    columns += [Column("Missed"), Column("Dice mean", in_paper=False), Column("Compute (ms)"), Column("Training (h)", in_paper=False)]
    rows = []
    for network in networks(results, 2):
        if isinstance(network.paper, Accuracy):
            rows.append(_printed_row(network.title, columns, _printed_scores(network.paper)))
            continue
        both = [_item(network.summary.get(score, {}).get(s), digits) for score, digits in SCORES.values() for s in STRUCTURES]
        at = {phase: cases.summarize([row for row in network.cases if row["phase"] == phase]) for phase in PHASES}
        scores = [_item(at[phase][score][s], digits) for score, digits in SCORES.values() for phase in PHASES for s in STRUCTURES]
        missed = Item(str(sum(network.summary["n_missed"].values())) if network.summary else NONE)
        compute = _item(network.timing["compute_ms"]["p50"] if network.timing else None, 1)
        mean = _item(network.summary.get("dice", {}).get("mean"), 3)
        rows.append(Row([*_size(network), *both, *scores, missed, mean, compute, _item(network.hours, 2)]))
    return Table("Table 2: accuracy at ED and ES", columns, rows, NOTE_2, "Dice and Hausdorff distance per structure.")


def _printed_scores(paper: Accuracy) -> dict[str, Item]:
    figures = {"Dice": (paper.dice, 3), "HD": (paper.hd_mm, 2)}
    return {
        f"{score} {s}": _item(values[s], digits) if values else Item(UNPRINTED)
        for score, (values, digits) in figures.items()
        for s in STRUCTURES
    }


def ratios(results: Iterable[Result]) -> Table:
    """MSU-Net in units of ICA-UNet, n = 3 and n = 4: throughput and latencies, as measured here and as the paper prints them."""
    known = {result.system.name: result for result in results}
    rows = []
    for n, span in itertools.product(DEPTHS, SPANS):
        ours, theirs = f"ica_unet_n{n}_independent", f"msu_net_span{span}"
        reference = known.get(ours)
        for network in networks_of(known[theirs]) if theirs in known else [Network(TABLE_1[theirs].title)]:
            measured, printed = [None] * 3, [None] * 4
            if reference and network.timing and reference.timings[1.0] and network.machine == reference.machine:
                measured = _quotients(clocks(network.timing), clocks(reference.timings[1.0]))
            if network.width == 1:
                printed = _quotients(printed_clocks(TABLE_1[theirs]), printed_clocks(TABLE_1[ours]))
            elif not network.timing:
                continue
            rows.append(Row([Item(network.title), Item(TABLE_1[ours].title), *(_item(value, 2) for value in (*measured, *printed))]))
    heads = ("Throughput", "Compute", f"Arrival to mask, {PAPER_RATE} FPS")
    columns = [Column("System", number=False), Column("In units of", number=False), *map(Column, heads)]
    columns += [Column(f"{head} (paper)") for head in (*heads, "Latency as printed")]
    caption = "Throughput and latencies as measured, and as the paper's figures give them when they are counted the same way."
    return Table("MSU-Net in units of ICA-UNet", columns, rows, NOTE_RATIOS, caption)


def clocks(timing: dict[str, Any]) -> tuple[float, float, float | None]:
    """Frames a second, compute in ms, and milliseconds from arrival to mask at the paper's rate: None if it cannot keep up."""
    return timing["frames_per_second"], timing["compute_ms"]["p50"], arrival_to_mask(timing, PAPER_RATE)


def _quotients(upper: Iterable[float | None], lower: Iterable[float | None]) -> list[float | None]:
    return [None if None in pair else pair[0] / pair[1] for pair in zip(upper, lower, strict=True)]


def write(folder: Path, split: str, left_out: Mapping[str, str]) -> None:
    """Writes tables.md, each table as CSV and LaTeX, and tables.png; `left_out` says why a system of that title is not in them."""
    results = read(folder, split)
    tables = {"table_1": table_1(results), "table_1_ratios": ratios(results), "table_2": table_2(results)}
    folds = sorted(path.name.removeprefix(FOLD) for path in folder.glob(f"{FOLD}[0-9]*"))
    facts = _facts(results, split + f" of fold {', '.join(folds)}, each row one network for each fold, hours their mean" * bool(folds))
    blocks = ["# The paper's tables", facts, *(f"    {command}" for command in _commands(results)), *left_out.values()]
    for table in tables.values():
        blocks += [f"## {table.title}", markdown_table(table), table.note]
    write_text(folder / "tables.md", "\n\n".join(blocks) + "\n")
    draw(folder / "tables.png", results)
    for name, table in tables.items():
        write_text(folder / f"{name}.tex", latex(Page(name, table.title + ".", "", facts, [table])))
        heads = [column.head for column in table.columns]
        lines = (dict(zip(heads, (item.text for item in row.items), strict=True)) for row in table.rows)
        write_text(folder / f"{name}.csv", csv_text(lines, heads))


def draw(path: Path, results: Sequence[Result]) -> None:
    """Mean Dice against compute latency of all networks that have both, if any has."""
    known = (network for table in (1, 2) for network in networks(results, table) if network.timing and network.summary)
    points = {row.title: (row.timing["compute_ms"]["p50"], row.summary["dice"]["mean"]) for row in known}
    if points:
        figures.accuracy_and_latency(path, points, LIMIT_MS)


def _facts(results: Iterable[Result], split: str) -> str:
    """Patients, samples seen, machines and commits in a few sentences."""
    patients = sorted({result.summary["n_patients"] for result in results if result.summary})
    measured = sorted({result.summary["n_mm"] for result in results if result.summary})
    seen = {(c["steps"], c["batch_size"], tuple(c["crop"]), c["spacing"]) for c in (result.config for result in results) if c}
    told = [f"split {split}", *(counted(n, "patient") for n in patients), *(f"{n} of known voxel size" for n in measured)]
    told += [f"{steps} steps of {size} frames of {'x'.join(map(str, crop))} at {spacing:g} mm" for steps, size, crop, spacing in sorted(seen)]
    sentences = [", ".join(told)]
    trained = dict.fromkeys(machine_of(result.trained) for result in results if result.trained)
    timed = dict.fromkeys(result.machine for result in results if result.machine)
    sentences += _runtimes(results)
    sentences += [f"{done} on {'; '.join(places)}" for done, places in (("Trained", trained), ("Timed", timed)) if places]
    if patients and patients[0] < FEW:
        sentences.append(f"One seed and {counted(patients[0], 'patient')} decide nothing between systems that lie close together")
    return ". ".join(sentences) + "."


def _runtimes(results: Iterable[Result]) -> list[str]:
    """Under which runtimes the systems were timed, where that was not JAX alone."""
    found: dict[str, list[str]] = {}
    for result in results:
        for runtime in sorted({row.get("runtime", JAX) for row in result.timings.values() if row}):
            found.setdefault(runtime, []).append(result.system.title)
    if set(found) <= {JAX}:
        return []
    return ["; ".join(f"Timed under {runtime}: {', '.join(titles)}" for runtime, titles in found.items())]


def _commands(results: Iterable[Result]) -> list[str]:
    """What trained the systems, without the flags that chose among them."""
    about = (result.trained["command"] for result in results if result.trained)
    return list(dict.fromkeys(shlex.join(word for word in command if not word.startswith(("--only", "--notimed"))) for command in about))


def _size(network: Network) -> list[Item]:
    timing = network.timing
    return [Item(network.title), _item(timing["parameters"] / 1e6 if timing else None, 2), _item(timing["gflop"] if timing else None, 2)]


def _item(value: float | None, digits: int) -> Item:
    return Item(number(value, digits), value)
