"""The U-Net that transforms the coefficients: each block is written for one stream and mapped over all m streams.

A stream is one coefficient tensor and what the backbone makes of it: (channels, B, d/2, h', w'). A lifted block maps
(m, channels, B, d/2, h', w'); the control `dense` runs the same blocks once, over all m coefficients as channels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from ica_unet_jax.config import ModelConfig
from ica_unet_jax.models import stream_layers
from ica_unet_jax.models.layers import ConvBlock, Norm, Volume, leaky_relu
from ica_unet_jax.models.stream_layers import Stream

STREAM_AXIS = "streams"  # the mapped axis, for statistics shared by all streams


class ContractingBlock(nn.Module):
    """C_k: A_k -> A_{k-1}. A stride-2 convolution, then `convs` more."""

    features: int
    convs: int
    block: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: Stream, train: bool, counted: Volume | None) -> Stream:
        x = self.block(self.features, stride=2)(x, train, counted)
        for _ in range(self.convs):
            x = self.block(self.features)(x, train, counted)
        return x


class UpsampleBlock(nn.Module):
    """U_k: A'_k -> A'_{k+1}. Transposed convolution; ours: norm and activation if `normed`, the skip A_{k+1}, `convs` convolutions."""

    features: int
    convs: int
    normed: bool
    block: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    upsample: Callable[..., nn.Module]
    act: Callable[[jax.Array], jax.Array] = leaky_relu

    @nn.compact
    def __call__(self, x: Stream, skip: Stream | None, train: bool, counted: Volume | None) -> Stream:
        x = self.upsample(self.features)(x)
        if self.normed:
            x = self.act(self.norm()(x, train, counted))
        if skip is not None:
            x = (x, skip) if self.convs else jnp.concatenate([x, skip])
        for _ in range(self.convs):
            x = self.block(self.features)(x, train, counted)
        return x


class ConcatenationBlock(nn.Module):
    """T_k: A'_k, the skip A_k (ours) and the correlations -> one coefficient per basis: 1x1 convolution, norm, activation.

    A 1x1 convolution of a concatenation is the sum of one 1x1 convolution a part; written so, the correlations,
    which are the same for all streams, are not copied m times.
    """

    features: int
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    signed: bool  # no activation at the end (ours)
    act: Callable[[jax.Array], jax.Array] = leaky_relu

    @nn.compact
    def __call__(self, expanded: Stream, skip: Stream | None, correlations: Stream | None, train: bool, counted: Volume | None) -> Stream:
        one_by_one = functools.partial(self.conv, self.features, kernel_size=1, use_bias=False)
        x = one_by_one()(expanded)
        if skip is not None:
            x = x + one_by_one()(skip)
        if correlations is not None:
            x = x + one_by_one(axis_name=None)(correlations)  # computed once where the streams share the kernel too
        x = self.norm()(x, train, counted)
        return x if self.signed else self.act(x)


def lift(block: type[nn.Module], streams: str, arrays: tuple[int | None, ...]) -> type[nn.Module]:
    """`block`, written for one stream, as a module over all of them; `train` and the mask that counts come last.

    `arrays` are the mapped axes of its arrays: 0 for one per stream, None for one that all share. `independent`
    gives every stream its own parameters, `shared` one set for all, `dense` is the block itself over an axis of one.
    """
    variables = {"independent": 0, "dense": 0, "shared": None}[streams]
    return nn.vmap(
        block,
        in_axes=(*arrays, None, None),
        out_axes=0,
        variable_axes={"params": variables, "batch_stats": variables},
        split_rngs={"params": variables == 0},
        axis_name=STREAM_AXIS,
    )


def as_one(streams: jax.Array) -> jax.Array:
    """All streams as one of as many channels: (m, c, B, d, h, w) -> (1, m * c, B, d, h, w)."""
    return streams.reshape(1, -1, *streams.shape[2:])


class Backbone(nn.Module):
    """C_n ... C_1, U_0 ... U_{n-1} and T_1 ... T_n, lifted over the streams.

    Level k has width p at the top (k >= n - 1) and 2p below.
    """

    config: ModelConfig

    def setup(self):
        c = self.config
        dense = c.streams == "dense"
        dtype = jnp.dtype(c.compute_dtype)
        shared = STREAM_AXIS if c.streams == "shared" else None
        conv = functools.partial(stream_layers.Conv, dense=dense, dtype=dtype, axis_name=shared)
        norm = functools.partial(Norm, kind=c.norm, dtype=dtype, axis=0, axis_name=shared)
        block = functools.partial(ConvBlock, conv=conv, norm=norm)
        upsample = functools.partial(stream_layers.Upsample, dtype=dtype, axis_name=shared)
        outputs = c.bases if dense else 1
        levels = range(c.contracting_blocks, 0, -1)
        contracting, expanding = ContractingBlock, UpsampleBlock
        if c.remat:
            contracting, expanding = nn.remat(contracting, static_argnums=(2,)), nn.remat(expanding, static_argnums=(3,))
        contracting = lift(contracting, c.streams, (0,))
        expanding = lift(expanding, c.streams, (0, 0))
        self.contract = {str(k): contracting(self.width(k - 1), c.convs_per_block, block) for k in levels}
        self.expand = {str(k - 1): expanding(self.width(k), c.expanding_convs, c.upsample_norm, block, norm, upsample) for k in levels}
        joining = lift(ConcatenationBlock, c.streams, (0, 0, None))
        if c.concatenation_over == "all":
            outputs, joining = c.bases, lift(ConcatenationBlock, "dense", (0, 0, None))
            conv, norm = functools.partial(conv, dense=True, axis_name=None), functools.partial(norm, axis_name=None)
        self.join = {str(k): joining(outputs, conv, norm, c.signed_coefficients) for k in levels}

    def width(self, level: int) -> int:
        return self.config.stream_width * (1 if level >= self.config.contracting_blocks - 1 else 2)

    def split(self, coefficients: Volume) -> jax.Array:
        """(B, d/2, h', w', m) -> the streams (m, 1, B, d/2, h', w'); dense: (1, m, B, d/2, h', w')."""
        streams = coefficients.transpose(4, 0, 1, 2, 3)
        return streams[None] if self.config.streams == "dense" else streams[:, None]

    def merge(self, streams: jax.Array) -> Volume:
        """The inverse of `split`."""
        coefficients = streams[0] if self.config.streams == "dense" else streams[:, 0]
        return coefficients.transpose(1, 2, 3, 4, 0)

    def contracting_path(self, coefficients: Volume, train: bool, counted: Volume | None = None) -> tuple[jax.Array, ...]:
        """A_n -> (A_n, A_{n-1}, ..., A_0) as streams; to A_1 alone where nothing expands again."""
        pyramid = [self.split(coefficients)]
        for k in range(self.config.contracting_blocks, int(self.config.mixing == "none"), -1):
            pyramid.append(self.contract[str(k)](pyramid[-1], train, counted))
        return tuple(pyramid)

    def expanding_path(
        self, pyramid: tuple[jax.Array, ...], correlations: dict[int, Stream | None], train: bool, counted: Volume | None = None
    ) -> list[Volume]:
        """(A_n ... A_0) and the correlations of each level -> [A'_{c,1}, ..., A'_{c,n}], each (B, d/2, h', w', m)."""
        n = self.config.contracting_blocks
        x, joined = pyramid[n], []
        for k in range(1, n + 1):
            skip = pyramid[n - k]
            x = self.expand[str(k - 1)](x, skip if self.config.expanding_skips else None, train, counted)
            parts = x, skip if self.config.concatenation_skip else None
            if self.config.concatenation_over == "all":
                parts = jax.tree.map(as_one, parts)
            mixed = self.join[str(k)](*parts, correlations[k], train, counted)
            joined.append(mixed.reshape(-1, *mixed.shape[2:]).transpose(1, 2, 3, 4, 0))
        return joined

