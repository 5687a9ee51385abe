"""Counts the products (matrix products, convolutions) of ICA-UNet by formula, from its `ModelConfig`.

Plans of sweeps ask for it hundreds of times, in processes that must not start JAX; to trace the network takes seconds each time.
"""

from __future__ import annotations

import functools

from ica_unet_jax.benchmarking.products import Product, chain, conv, correlation, mixing
from ica_unet_jax.config import ModelConfig
from ica_unet_jax.labels import NUM_CLASSES

Parts = dict[str, list[Product]]


def parts(c: ModelConfig, training: bool) -> Parts:
    """The products of each part of the network, for a frame and its neighbours, a batch of one.

    What no output depends on does not count: at inference the n-1 coarser correlations, concatenations, mixings and decoders
    and the reconstruction; of a neighbour's pyramid the levels below its coarsest correlation. One exception: the low level
    counts whole where one of its halves would do.
    """
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
    found = {
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
        found["mixing"] = [*upsampling(), Product(0, 0, 32 * c.projection_width * m)]
    elif c.mixing == "none":
        lowest = outputs[0]
        found |= {"contracting_path": [*contracting(lowest)], "expanding_path": [], "concatenation": [], "mixing": []}
    return found if c.has_bases else found | {"basis_branch": [], "reconstruction": []}


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
    if c.dictionary_alone:
        branch = [Product(0, 0, dictionary * (c.bases_from == "dictionary"))]
    elif c.bases_from == "dictionary_and_frame":
        branch.append(Product(0, 0, dictionary + 1))  # and the frame's scale
    return {
        "low_level": [first, conv(half, e, 2 * e, stride=2), conv(quarter, 2 * e, 4 * e)],
        "coefficient_branch": [*unmix, conv(paired, 4 * e, m, kernel=1, extra=m)],
        "basis_branch": branch,
    }
