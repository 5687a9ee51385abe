"""The useful work of a network, by formula from its `ModelConfig`: FLOPs, bytes and parameters.

ICA-UNet and the plain 2D U-Net are counted layer by layer from the configuration alone, without JAX; the other rivals
tell their layers while they are traced (`layer_flops`).

FLOPs are 2 x the multiply-adds of convolutions, matrix products, mixing and correlation, exact at borders: a tap
outside the image or a kernel index outside its patch does not count, even where a lowering multiplies zeros.
Norms, activations, poolings, masks, sums, losses, the optimizer and what `remat` repeats are left out.

Bytes are each product's operands read once and its result written once, in `compute_dtype`. A gradient reads two of
these arrays and writes the third: it costs what the product costs.

What no output depends on does not count: at inference the n-1 coarser correlations, concatenations, mixings and
decoders and the reconstruction; of a neighbour's pyramid the levels below its coarsest correlation. One exception: the
low level counts whole where one of its halves would do.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from ica_unet_jax.config import ModelConfig
from ica_unet_jax.labels import NUM_CLASSES

Grid = tuple[int, int, int]  # slices, rows, columns
_BY_FORMULA = ("ica_unet", "unet2d")


class Work(NamedTuple):
    flops: int
    bytes: int


class Product(NamedTuple):
    """Two arrays multiplied: multiply-adds, values moved, trainable parameters, operands that need a gradient."""

    products: int
    values: int
    parameters: int = 0
    gradients: int = 2


Parts = dict[str, list[Product]]


def streamed(config: ModelConfig) -> dict[str, Work]:
    """{part: Work} of a stream's frame, finest output alone: encoded once, its neighbours come from memory.

    Of a network that answers a whole snippet at once, the share of one frame.
    """
    return {
        name: Work(*(amount // config.answered for amount in work))
        for name, work in triple(config).items()
        if name != "neighbours"
    }


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
    if config.model not in _BY_FORMULA:
        return layer_flops().parameters(config)
    return sum(p.parameters for part in _parts(config, training=True).values() for p in part)


def _parts(config: ModelConfig, training: bool) -> Parts:
    if config.model not in _BY_FORMULA:
        return {"layers": layer_flops().layers(config, training)}
    return _unet2d(config) if config.model == "unet2d" else _ica_unet(config, training)


def layer_flops():
    """The module that traces a network; imported when it is needed, so that counting by formula starts no JAX."""
    from ica_unet_jax.benchmarking import layer_flops as module

    return module


def _count(config: ModelConfig, training: bool) -> dict[str, Work]:
    size = {"float32": 4, "bfloat16": 2}[config.compute_dtype]
    work = {}
    for name, part in _parts(config, training).items():
        passes = [p for p in part for _ in range(1 + p.gradients * training)]
        work[name] = Work(sum(2 * p.products for p in passes), sum(size * p.values for p in passes))
    return work


@functools.cache
def taps(size: int, kernel: int, stride: int = 1, dilation: int = 1) -> int:
    """Pairs (output, tap) of a zero-padded convolution along one axis that meet inside the image."""
    offsets = [dilation * (i - kernel // 2) for i in range(kernel)]
    return sum(0 <= stride * o + offset < size for o in range(size // stride) for offset in offsets)


@functools.cache
def pairs(coefficients: int, stride: int, patch: int) -> int:
    """Pairs (z, j) of the mixing along one axis: 0 <= z - stride * j + (patch - stride) / 2 < patch, z in the frame."""
    starts = [stride * j - (patch - stride) // 2 for j in range(coefficients)]
    return sum(min(start + patch, stride * coefficients) - max(start, 0) for start in starts)


def conv(
    grid: Grid, cin: int, cout: int, kernel: int = 3, stride: int = 1, dilation: int = 1,
    *, extra: int | None = None, copies: int = 1, sets: int = 1,
) -> Product:  # fmt: skip
    """`copies` of a convolution on `grid`, with so many `sets` of weights among them.

    `extra` parameters come with a kernel; unless told, a norm's 2 * cout.
    """
    slices, rows, columns = grid
    size = slices * rows * columns
    weights = sets * (kernel * kernel * cin * cout + (2 * cout if extra is None else extra))
    inside = slices * taps(rows, kernel, stride, dilation) * taps(columns, kernel, stride, dilation)
    return Product(copies * inside * cin * cout, copies * (size * cin + size // stride**2 * cout) + weights, weights)


def correlation(config: ModelConfig, grid: Grid, channels: int) -> Product:
    """One neighbour at all displacements; `channels` over all streams."""
    slices, rows, columns = grid
    side = 2 * config.correlation_radius + 1
    products = slices * taps(rows, side) * taps(columns, side) * channels
    values = slices * rows * columns * (2 * channels + side**2)
    return Product(products, values, gradients=1 + config.neighbour_gradients)


def mixing(config: ModelConfig, grid: Grid, u: int) -> Product:
    """A (x) X of u channels, A on `grid`: each coefficient stamps what of its patch lies inside the frame."""
    (slices, rows, columns), (d, h, w) = grid, config.crop
    m, height, width = config.bases, h // 16, w // 16
    a = slices * rows * columns
    inside = pairs(slices, 2, d) * pairs(rows, 4, height) * pairs(columns, 4, width)
    return Product(inside * m * u, a * m + d * height * width * u * m + 2 * 4 * 4 * a * u)


def chain(grid: Grid, cin: int, width: int, count: int, **weights: int) -> list[Product]:
    """`count` convolutions to `width` channels, the first from `cin`."""
    return [conv(grid, width if i else cin, width, **weights) for i in range(count)]


def _ica_unet(c: ModelConfig, training: bool) -> Parts:
    n, m, frames = c.contracting_blocks, c.bases, len(c.frames)
    d, h, w = c.crop
    encoder = _encoder(c)

    # Levels 0 ... n of the pyramid: a stream's A_k has channels[k] and its A'_k width[k].
    copies, coefficients = (1, m) if c.streams == "dense" else (m, 1)
    sets = m if c.streams == "independent" else 1
    stream, streams = (functools.partial(layer, copies=copies, sets=sets) for layer in (conv, chain))
    width = [2 * c.stream_width] * (n - 1) + [c.stream_width] * 2
    channels = [*width[:n], coefficients]
    grids = [(d // 2, h // 2**i, w // 2**i) for i in range(n + 2, 1, -1)]
    outputs = range(1 if training else n, n + 1)

    def contracting(lowest: int):
        for k in range(lowest, n):
            yield stream(grids[k + 1], channels[k + 1], width[k], stride=2)
            yield from streams(grids[k], width[k], width[k], c.convs_per_block)

    def expanding():
        for k in range(1, n + 1):
            yield stream(grids[k - 1], width[k - 1], 4 * width[k], kernel=1, extra=2 * width[k] * c.upsample_norm)
            yield from streams(grids[k], width[k] + c.expanding_skips * channels[k], width[k], c.expanding_convs)

    def concatenation():
        correlations = frames * (2 * c.correlation_radius + 1) ** 2  # channels common to all streams
        for k in outputs:
            seen = width[k] + channels[k] * c.concatenation_skip
            if c.concatenation_over == "all":
                yield conv(grids[k], copies * seen, m, kernel=1)
            else:
                yield stream(grids[k], seen, coefficients, kernel=1)
            if frames:
                outs = m if c.concatenation_over == "all" else sets * coefficients
                yield conv(grids[k], correlations, outs, kernel=1, extra=0)

    def decoders():
        pixels = 4 if c.decoder_size == "half" else 1  # as channels
        seen = frames * (2 * c.correlation_radius + 1) ** 2 if c.mixing == "none" else c.projection_width
        seen, logits = pixels * (seen + c.decoder_frame), pixels * NUM_CLASSES
        for k in outputs:
            slices, rows, columns = grids[k]
            side = 2 if pixels == 4 else 4
            grid = (2 * slices, side * rows, side * columns)
            yield from chain(grid, seen, c.decoder_width, c.decoder_convs)
            yield conv(grid, c.decoder_width if c.decoder_convs else seen, logits, extra=logits)

    def upsampling():
        """Each coefficient gives 2x4x4 voxels of u channels; the levels share the kernel."""
        for k in outputs:
            yield conv(grids[k], m, 32 * c.projection_width, kernel=1, extra=0)._replace(parameters=0)

    neighbours = [*encoder["low_level"], *encoder["coefficient_branch"], *contracting(outputs[0])] * frames
    trained = c.neighbour_gradients
    parts = {
        **encoder,
        "contracting_path": [*contracting(0)],
        "expanding_path": [*expanding()],
        "correlation": [correlation(c, grids[k], copies * channels[k]) for k in outputs] * frames,
        "concatenation": [*concatenation()],
        "mixing": [mixing(c, grids[k], c.projection_width) for k in outputs],
        "decoders": [*decoders()],
        "reconstruction": [mixing(c, grids[n], 1)] * training,
        "neighbours": [p._replace(parameters=0, gradients=trained * p.gradients) for p in neighbours],
    }
    if c.mixing == "upsampled":
        parts["mixing"] = [*upsampling(), Product(0, 0, 32 * c.projection_width * m)]
    elif c.mixing == "none":
        lowest = outputs[0]
        parts |= {"contracting_path": [*contracting(lowest)], "expanding_path": [], "concatenation": [], "mixing": []}
    return parts if c.has_bases else parts | {"basis_branch": [], "reconstruction": []}


def _encoder(c: ModelConfig) -> Parts:
    (d, h, w), e, m, um = c.crop, c.encoder_width, c.bases, c.projection_width * c.bases
    half, quarter, paired = (d, h // 2, w // 2), (d, h // 4, w // 4), (d // 2, h // 4, w // 4)
    first = conv(half, 4, e)._replace(gradients=1)  # none towards the frame
    dilations = [1, *(2**i if c.encoder_dilation else 1 for i in range(c.encoder_convs))]
    low = 2 * e if c.has_bases else 4 * e  # what is not the basis branch's
    unmix = [conv(paired, 4 * e if i else 2 * low, 4 * e, dilation=dilation) for i, dilation in enumerate(dilations)]
    branch = [
        conv(quarter, 2 * e + 3 * (c.bases_from == "frame_with_coordinates"), 4 * e, stride=2),
        conv((d, h // 8, w // 8), 4 * e, 4 * e, stride=2),
        conv((d, h // 16, w // 16), 4 * e, um, kernel=1, extra=um),
    ]
    dictionary = d * (h // 16) * (w // 16) * um
    if c.bases_from == "dictionary":
        branch = [Product(0, 0, dictionary)]
    elif c.bases_from == "dictionary_and_frame":
        branch.append(Product(0, 0, dictionary + 1))  # and the frame's scale
    return {
        "low_level": [first, conv(half, e, 2 * e, stride=2), conv(quarter, 2 * e, 4 * e)],
        "coefficient_branch": [*unmix, conv(paired, 4 * e, m, kernel=1, extra=m)],
        "basis_branch": branch,
    }


def _unet2d(c: ModelConfig) -> Parts:
    d, h, w = c.crop
    grids = [(d, h // 2**i, w // 2**i) for i in range(4)]
    width = [c.unet_width * 2**i for i in range(4)]
    parts = {f"contracting_{i}": chain(grids[i], width[i - 1] if i else 1, width[i], 2) for i in range(4)}
    parts["contracting_0"][0] = conv(grids[0], 1, width[0])._replace(gradients=1)
    for i in (2, 1, 0):
        upsample = conv(grids[i + 1], width[i + 1], 4 * width[i], kernel=1, extra=0)
        parts[f"expanding_{i}"] = [upsample, *chain(grids[i], 2 * width[i], width[i], 2)]
    return parts | {"logits": [conv(grids[0], width[0], NUM_CLASSES, kernel=1, extra=NUM_CLASSES)]}
