"""The generated parts of docs/results/speed.md, of what a benchmark, an hour of a stream and sessions of a server measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ica_unet_jax.benchmarking import report, work
from ica_unet_jax.benchmarking.rows import FULL, ROI
from ica_unet_jax.config import Config
from ica_unet_jax.reporting.markup import NONE, plain_table

NETWORKS = {  # rows of a benchmark
    "roi/n4/independent/past": "ICA-UNet, n = 4, past frame alone, independent streams",
    "roi/n4/dense/past": "the same, dense, equal work",
    "roi/n4/shared/past": "the same, shared streams",
    "roi/unet2d": "U-Net 2D",
    "full/n4/independent/past": "ICA-UNet, n = 4, past frame alone, independent streams, whole",
    "full/n4/dense/past": "the same, dense, equal work",
    "window/n4/independent/past": "ICA-UNet, independent streams, through a window of 8x128x128",
    "window/n4/dense/past": "the same, dense, equal work",
    "full/unet2d": "U-Net 2D, whole",
}
PERIOD = 1000 / 22  # ms between frames, in the paper
PERCENTILES = ("p50", "p95", "p99", "max")
PROTOCOLS = {
    "mrd": "MRD",
    "mrd_view": "MRD, with a page",
    "openigtlink": "OpenIGTLink",
    "openigtlink_view": "OpenIGTLink, with a page",
    "http": "HTTP, 22 frames a request",
}

Measured = Mapping[str, Any]


def runtimes(rows: Measured) -> str:
    """A streamed frame under each runtime, and its time over that in JAX in the same round; `rows` of a benchmark."""
    over = {(network, under): ratio for network, under, _, ratio in report.ratios(rows)}
    found = []
    for name, row in rows.items():
        network, *under = name.split("@")
        if under == ["bfloat16"]:  # JAX has no fast code for it on CPUs
            continue
        frame, words = row["frame_ms"], " ".join(under)
        found.append([NETWORKS[network], words or "jax", f"{row['gflop']:.1f}", f"{frame['p50']:.1f}", f"{frame['p95']:.1f}", over.get((network, words), "1")])
    heads = ("Network", "Runtime", "GFLOP a frame", "p50 (ms)", "p95 (ms)", "Over JAX: median of rounds (least, most)")
    return plain_table(heads, found, [False, False, True, True, True, True])


def answer(rows: Measured, on_gpu: Measured) -> str:
    """The first sentences of the page, of the rows of a benchmark on the window and of a stream on a GPU."""
    frame = {name: row["frame_ms"]["p50"] for name, row in rows.items()}
    own, dense, unet = (f"roi/{name}" for name in ("n4/independent/past", "n4/dense/past", "unet2d"))
    fast, half = "@openvino", "@openvino@bfloat16"
    too = "keeps 22 frames a second too" if rows[unet + fast]["frame_ms"]["p95"] < PERIOD else "does not keep 22 frames a second in float32"
    return (
        f"**On two CPU cores a frame of the causal network takes {frame[own + fast]:.0f} ms with OpenVINO and {frame[own + half]:.0f} in bfloat16, of the {PERIOD:.0f} that 22 "
        f"frames a second leave; with dense streams {frame[dense + fast]:.0f} and {frame[dense + half]:.0f}. In JAX it takes {frame[own]:.0f}, dense {frame[dense]:.0f}. A 2D U-Net with OpenVINO {too} ({frame[unet + fast]:.0f} ms, "
        f"{frame[unet + half]:.0f} in bfloat16): over a plain network the method gains a factor of {frame[unet + fast] / frame[dense + fast]:.1f} with dense streams and "
        f"{frame[unet + fast] / frame[own + fast]:.1f} with independent ones. On an {gpu(on_gpu)} the recommended network takes {on_gpu['compute_ms']['p50']:.0f} ms for a full frame through its window, in JAX.**"
    )


def gpu(ran: Measured) -> str:
    """The name of the GPU of a stream."""
    return ran["provenance"]["device"]


def streamed_on_gpu(ran: Measured) -> str:
    """What became of the frames of a stream on a GPU."""
    delay = ran["arrival_to_mask_ms"]
    return (
        f"`launch/recommended.flags` on an {gpu(ran)}, JAX {ran['provenance']['versions']['jax']}, {ran['compute_dtype']}: {ran['frames']} frames of {'x'.join(map(str, ran['shape']))}, {ran['rate']:g} a second, through a window of "
        f"{'x'.join(map(str, ran['model']['crop']))}; {ran['dropped']} were dropped. Compute p50 {ran['compute_ms']['p50']:.1f} ms, p95 {ran['compute_ms']['p95']:.1f}; arrival to mask p50 {delay['p50']:.1f}, p95 {delay['p95']:.1f}; "
        f"later than {ran['deadline_ms']:.0f} ms: {ran['deadline_misses']}, the latest after {delay['max']:.0f} ms."
    )


def trained_on_gpu(timings: Sequence[Measured], cpu: Measured) -> str:
    """What a step of the recommended network took, of the `timing.json` of several trainings on a GPU and of one on CPU cores."""
    steps, compiling = ([one[name] for one in timings] for name in ("seconds_per_step", "compile_seconds"))
    return (
        f"A training step of this network (batch 4) took {1000 * min(steps):.0f} to {1000 * max(steps):.0f} ms in {len(timings)} trainings, up to five of them at a time on the GPU, after {min(compiling):.0f} to "
        f"{max(compiling):.0f} seconds of compilation; on {cpu['threads']} CPU cores {1000 * cpu['seconds_per_step']:.0f} ms."
    )


def full_frames(rows: Measured) -> str:
    """What whole frames cost; `rows` of a benchmark of them."""
    config = Config.make(neighbours="past")
    window, full = (work.streamed(config.replace(crop=grid).model) for grid in (ROI, FULL))
    voxels = math.prod(FULL) / math.prod(ROI)
    more, mixing = work.total(full).flops / work.total(window).flops, full["mixing"].flops / window["mixing"].flops
    seen = rows["window/n4/independent/past@openvino"]["frame_ms"]["p50"] / rows["full/n4/independent/past@openvino"]["frame_ms"]["p50"]
    return (
        f"A full frame of {'x'.join(map(str, FULL))} has {voxels:g} times the voxels of a window of {'x'.join(map(str, ROI))}, and costs ICA-UNet {more:.1f} times the work. Mixing "
        f"alone costs {mixing:.0f} times as much, as it grows with the square: there are more coefficients, and each is multiplied with a larger basis. It is "
        f"{100 * full['mixing'].flops / work.total(full).flops:.0f} % of the work then, of the window's {100 * window['mixing'].flops / work.total(window).flops:.0f} %. All else grows with the voxels. Through a "
        f"window on the heart a frame takes {seen:.2f} of the time of the whole one (independent streams, OpenVINO), though its ten slices need two windows of eight.\n\n{runtimes(rows)}"
    )


def hour(ran: Measured) -> str:
    """What became of the frames of an hour, and of the memory; `ran` is the result of a stream."""
    memory = [megabytes for _, megabytes in ran["resident_mb"]]
    delay, grid = ran["arrival_to_mask_ms"], "x".join(map(str, ran["shape"]))
    return (
        f"{ran['frames']} frames of {grid} came in {ran['seconds'] / 60:.0f} minutes, {ran['rate']:g} a second, under {ran['runtime']} in {ran['compute_dtype']}, through a window of {'x'.join(map(str, ran['model']['crop']))} ({ran['window']}; it moved {ran['window_moves']} times): {ran['answered']} were "
        f"answered, {ran['refused']} were the faulty ones and refused, {ran['dropped']} were lost in the queue of {ran['queue']}. Nothing was compiled on the way ({ran['compilations']}). "
        f"From arrival to mask p50 {delay['p50']:.1f} ms, p95 {delay['p95']:.1f}, p99 {delay['p99']:.1f}, what piled up behind a stall included; {ran['deadline_misses']} masks came later than {ran['deadline_ms']:.0f} ms; the network itself p50 "
        f"{ran['compute_ms']['p50']:.1f} ms, p99 {ran['compute_ms']['p99']:.1f}. Resident memory was {min(memory):.1f} MB at least and {max(memory):.1f} MB at most "
        f"({100 * (max(memory) / min(memory) - 1):.2f} %)."
    )


def served(stream: Measured, sessions: Mapping[str, Measured]) -> str:
    """What a mask takes over each protocol, with and without somebody who looks, and what that is more than in a stream."""
    delay = stream["arrival_to_mask_ms"]
    rows = [["none: `stream`", f"{stream['frames']:,}", f"{stream['answered']:,}", NONE, *(f"{delay[name]:.1f}" for name in PERCENTILES), NONE]]
    for name, words in PROTOCOLS.items():
        found = sessions[name]
        own = found["sent_to_mask_ms"]
        more = NONE if name == "http" else f"{own['p95'] - delay['p95']:+.1f}"
        rows.append([words, f"{found['frames']:,}", f"{found['answered']:,}", str(len(found["unlike"])), *(f"{own[name]:.1f}" for name in PERCENTILES), more])
    heads = ("Protocol", "Frames", "Answered", "Unlike an earlier mask of the frame", *(f"{name} (ms)" for name in PERCENTILES), "p95 over `stream` (ms)")
    return plain_table(heads, rows, [False, *[True] * (len(heads) - 1)])
