"""The useful work of a network: FLOPs, bytes and parameters; see `products` for what counts.

ICA-UNet is counted by formula from its configuration alone; the other networks tell their layers while they are traced.

FLOPs are 2 x the multiply-adds of convolutions, matrix products, mixing and correlation. Bytes are what these move, in
`compute_dtype`. A gradient reads two of a product's arrays and writes the third: it costs what the product costs.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from ica_unet_jax.benchmarking import ica_unet_products
from ica_unet_jax.config import ModelConfig
from ica_unet_jax.data.geometry import stack_depth, window_starts

PER_WINDOW = ("mixing", "decoders")  # parts that see a window of a deep stack


class Work(NamedTuple):
    flops: int
    bytes: int


def streamed(config: ModelConfig) -> dict[str, Work]:
    """{part: Work} of a stream's frame, finest output alone: encoded once, its neighbours come from memory.

    Of a network that answers a whole snippet at once, the share of one frame.
    """
    return {
        name: Work(*(amount // config.answered for amount in work))
        for name, work in triple(config).items()
        if name != "neighbours"
    }


def streamed_stack(config: ModelConfig, slices: int) -> dict[str, Work]:
    """{part: Work} of a stream's frame of so many slices: of a network that takes stacks, per window only what mixes and comes after."""
    depth, found = config.crop[0], {}
    for name, work in streamed(config).items():
        once = config.takes_stacks and name not in PER_WINDOW
        seen = stack_depth(slices, depth) if once else depth * len(window_starts(slices, depth))
        found[name] = Work(*(amount * seen // depth for amount in work))
    return found


def triple(config: ModelConfig) -> dict[str, Work]:
    """{part: Work} of one frame by itself: `streamed`, and the `neighbours`' encodings."""
    return _count(config, training=False)


def training_sample(config: ModelConfig) -> dict[str, Work]:
    """{part: Work} of a batch of one, forward and backward, with all outputs, whatever their weights in the loss."""
    return _count(config, training=True)


def total(parts: dict[str, Work]) -> Work:
    """The sum over the parts."""
    return Work(*map(sum, zip(*parts.values(), strict=True)))


def of_a_frame(config: ModelConfig) -> int:
    """FLOPs of a stream's frame."""
    return total(streamed(config)).flops


def dense_twin(config: ModelConfig, figure: Callable[[ModelConfig], int] = of_a_frame) -> dict[str, Any]:
    """The changes to `config` that make it the plain U-Net over m channels whose `figure` is nearest to its own.

    With the stream width of a network of independent streams, for one stream each, it would be a very small one.
    """
    streams, widths = dataclasses.replace(config, streams="independent"), range(1, 1025)

    def excess(width: int) -> int:
        return figure(dataclasses.replace(streams, streams="dense", stream_width=width)) - figure(streams)

    first = bisect.bisect_left(widths, 0, key=excess)  # it grows with the width
    around = widths[max(0, first - 1) : first + 1] or widths[-1:]
    return dict(streams="dense", stream_width=min(around, key=lambda width: abs(excess(width))))


def equal_work(config: ModelConfig) -> dict[str, Any]:
    """The changes that give a dense network the width with which it works as much as independent streams; none for others."""
    return dense_twin(config) if config.model == "ica_unet" and config.streams == "dense" else {}


def parameters(config: ModelConfig) -> int:
    """Number of trainable parameters."""
    if config.model == "ica_unet":
        return sum(p.parameters for part in ica_unet_products.parts(config, training=True).values() for p in part)
    return traced().parameters(config)


def traced():
    """The module that traces a network; imported when it is needed, so that to count by formula starts no JAX."""
    from ica_unet_jax.benchmarking import traced_products as module

    return module


def _count(config: ModelConfig, training: bool) -> dict[str, Work]:
    size = {"float32": 4, "bfloat16": 2}[config.compute_dtype]
    by_formula, work = config.model == "ica_unet", {}
    parts = ica_unet_products.parts(config, training) if by_formula else {"layers": traced().layers(config, training)}
    for name, part in parts.items():
        passes = [p for p in part for _ in range(1 + p.gradients * training)]
        work[name] = Work(sum(2 * p.products for p in passes), sum(size * p.values for p in passes))
    return work
