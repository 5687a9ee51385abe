"""A benchmark's result as Markdown, alone or beside an older one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ica_unet_jax.errors import UserError
from ica_unet_jax.portable.runtimes import JAX
from ica_unet_jax.reporting.markup import NONE, counted, plain_table

Result = dict[str, Any]  # as `benchmarking.benchmark` gives it
CANNOT = "cannot keep up"


def read(path: str | Path) -> Result:
    """A result from the file that `--json` wrote. Raises UserError where it is none."""
    try:
        result = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        result = None
    if not isinstance(result, dict) or not {"machine", "ceilings", "rows"} <= set(result):
        raise UserError(f"--compare={path} is no result of a benchmark: name a file that --json wrote.")
    return result


def report(result: Result) -> str:
    """Tables: the machine, streamed frames, their latencies, training steps."""
    streams = {name: row for name, row in result["rows"].items() if "frame_ms" in row}
    steps = {name: row for name, row in result["rows"].items() if "step_ms" in row}
    return "\n".join(
        [
            *machine(result),
            *table(
                "A streamed frame, from the host to its labels on the host",
                ("network", "grid", "parameters", "GFLOP", "MB", "encode (ms)", "decode (ms)", "both p50 (ms)", "p95", "p99",
                 "jitter", "floor (ms)", "x floor", "of matmul", "of copy", "ready (s)", "Dice"),
                [stream_cells(*item) for item in streams.items()],
            ),
            *table(
                "The same network under several runtimes: its time over that in JAX, the median of the rounds (the smallest, the largest)",
                ("network", "runtime", "p50 (ms)", "over JAX"),
                ratios(streams),
            ),
            *table(
                "Latency (ms): computing alone, and from a frame's arrival to its mask, p50 (p95)",
                ("network", "waits for", "frames/s", "compute", *(f"arrival to mask at {rate}" for rate in rates(streams))),
                [latency_cells(*item) for item in streams.items()],
            ),
            *table(
                "A training step",
                ("network", "grid", "batch", "parameters", "GFLOP", "MB", "p50 (ms)", "p95", "floor (ms)", "x floor",
                 "of matmul", "ready (s)"),
                [step_cells(*item) for item in steps.items()],
            ),
            *(line for name, row in result["rows"].items() if row.get("profile") for line in profile(name, row)),
        ]
    )  # fmt: skip


def ratios(streams: dict[str, Any]) -> list[list[str]]:
    """A line for each row whose network was also timed in JAX, round by round."""
    lines = []
    for name, row in streams.items():
        network, *under = name.split("@")
        times, base = (np.array(found["frame_ms"]["rounds"]) for found in (row, streams.get(network, row)))
        if under and network in streams and len(times) == len(base):
            found = times / base
            lines.append([network, " ".join(under), ms(row["frame_ms"]["p50"]), f"{np.median(found):.2f} ({found.min():.2f}, {found.max():.2f})"])
    return lines


def profile(name: str, row: dict[str, Any]) -> list[str]:
    """In which parts of the network, or kinds of nodes, a row's time goes, those of a hundredth and more; the last row is the sum of all."""
    parts = row["profile"]
    if row.get("runtime", JAX) != JAX:
        whole = sum(part["ms"] for part in parts)
        shown = [part for part in parts if part["ms"] >= whole / 100]
        lines = [(part["part"], part["kind"], ms(part["ms"]), percent(part["ms"] / whole)) for part in (*shown, {"part": "all", "kind": "", "ms": whole})]
        return table(f"{name}: milliseconds by kind of node", ("graph", "kind of node", "ms", "share"), lines)
    whole = sum(part["forward"] + part["backward"] for part in parts)
    shown = [part for part in parts if part["forward"] + part["backward"] >= whole / 100]
    everything = {"name": "all", **{key: sum(part[key] for part in parts) for key in ("forward", "backward", "products")}}
    return table(
        f"{name}: milliseconds in XLA's operations, those of several threads added",
        ("part", "forward", "backward", "share", "of it products and convolutions"),
        [
            (part["name"], ms(part["forward"]), ms(part["backward"]), percent(total / whole), percent(part["products"] / total))
            for part in [*shown, everything]
            if (total := part["forward"] + part["backward"])
        ],
    )


def machine(result: Result) -> list[str]:
    """Its name, and its ceilings."""
    about, best = result["machine"], result["ceilings"]
    return [
        f"{about['device']} ({about['machine']}), {about['cores']} cores, JAX {about['versions']['jax']}"
        + (f", commit {about['commit']}" if about["commit"] else ""),
        "",
        f"Ceilings, measured in the same run: matrix products {best['float32'] / 1e9:.0f} GFLOP/s in float32, "
        f"{best['bfloat16'] / 1e9:.0f} in bfloat16 with float32 sums; copying {best['copy'] / 1e9:.1f} GB/s. "
        "Floor: the useful FLOPs or the bytes at these, whichever takes longer. Ready: compilation, or its cache.",
        "",
    ]


def table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table under its title; none without rows."""
    return [f"**{title}**", "", plain_table(heads, rows), ""] if rows else []


def stream_cells(name: str, row: dict[str, Any]) -> list[str]:
    frame = row["frame_ms"]
    return [
        name,
        grid(row),
        f"{row['parameters'] / 1e6:.2f} M",
        f"{row['gflop']:.2f}",
        f"{row['mbyte']:.0f}",
        *(ms(row[part]["p50"]) for part in ("encode_ms", "decode_ms")),
        *(ms(frame[figure]) for figure in ("p50", "p95", "p99", "jitter")),
        ms(row["floor_ms"]),
        f"{row['times_floor']:.1f}",
        percent(row["share_of_matmul"]),
        percent(row["share_of_copy"]),
        f"{row['ready_s']:.0f}",
        NONE if row["dice"] is None else f"{row['dice']:.3f}",
    ]


def latency_cells(name: str, row: dict[str, Any]) -> list[str]:
    compute, arrivals = row["compute_ms"], row["arrival_to_mask_ms"].values()
    return [
        name,
        counted(row["waits"], "frame"),
        f"{row['frames_per_second']:.1f}",
        *(CANNOT if found["p50"] is None else f"{ms(found['p50'])} ({ms(found['p95'])})" for found in (compute, *arrivals)),
    ]


def step_cells(name: str, row: dict[str, Any]) -> list[str]:
    return [
        name,
        grid(row),
        str(row["batch"]),
        f"{row['parameters'] / 1e6:.2f} M",
        f"{row['gflop']:.1f}",
        f"{row['mbyte']:.0f}",
        *(ms(row["step_ms"][figure]) for figure in ("p50", "p95")),
        ms(row["floor_ms"]),
        f"{row['times_floor']:.1f}",
        percent(row["share_of_matmul"]),
        f"{row['ready_s']:.0f}",
    ]


def rates(rows: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(rate for row in rows.values() for rate in row["arrival_to_mask_ms"]))


def compare(old: Result, new: Result) -> str:
    """What has changed in the rows that both have: times, and times over the floor that each run found for itself."""
    lines = []
    for name in old["rows"]:
        if name in new["rows"]:
            before, after = (result["rows"][name] for result in (old, new))
            times = [row.get("frame_ms", row.get("step_ms"))["p50"] for row in (before, after)]
            floors = [f"{row['times_floor']:.1f}" for row in (before, after)]
            lines.append([name, *map(ms, times), f"{times[1] / times[0]:.2f}", *floors])
    heads = ("network", "old p50 (ms)", "new p50 (ms)", "new / old", "old x floor", "new x floor")
    ratios = [f"{name} {new['ceilings'][name] / old['ceilings'][name]:.2f}" for name in new["ceilings"]]
    notes = [f"Ceilings, new / old: {', '.join(ratios)}."]
    changed = [key for key in ("device", "cores", "machine") if old["machine"][key] != new["machine"][key]]
    if changed:
        differs = ", ".join(f"{key} {old['machine'][key]} -> {new['machine'][key]}" for key in changed)
        notes.append(f"Not the same machine ({differs}): times say nothing about the networks.")
    return "\n".join(table("Old and new", heads, lines) or ["No row is in both.", ""]) + "\n" + " ".join(notes) + "\n"


def grid(row: dict[str, Any]) -> str:
    """The model's, and in brackets the frame's where it is larger."""
    own, native = ("x".join(map(str, sizes)) for sizes in (row["model"]["crop"], row.get("native", row["model"]["crop"])))
    return own if own == native else f"{own} ({native})"


def ms(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def percent(value: float) -> str:
    return f"{100 * value:.0f} %"
