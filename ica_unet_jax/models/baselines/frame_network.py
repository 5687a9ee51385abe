"""What the rivals that see one frame at a time have in common."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ica_unet_jax.config import ModelConfig
from ica_unet_jax.models.layers import Conv, ConvBlock, Norm, Upsample, Volume

Outputs = tuple[list[jax.Array], dict[str, Any]]


class Layers(NamedTuple):
    """The layers of a slice-by-slice network, with what the configuration says of them bound."""

    conv: Callable[..., Conv]
    block: Callable[[int], Callable[[jax.Array, bool], jax.Array]]  # of so many channels: convolution, norm, activation
    upsample: Callable[..., Upsample]

    @classmethod
    def of(cls, config: ModelConfig, act: Callable[[jax.Array], jax.Array], valid: Volume) -> Layers:
        """`valid` is the mask (B, d, h, w, 1) of what counts in the statistics of a norm."""
        dtype, counted = jnp.dtype(config.compute_dtype), valid if config.masked_statistics else None
        conv, norm = functools.partial(Conv, dtype=dtype), functools.partial(Norm, kind=config.norm, dtype=dtype)

        def block(width: int) -> Callable[[jax.Array, bool], jax.Array]:
            return functools.partial(ConvBlock(width, conv=conv, norm=norm, act=act), valid=counted)

        return cls(conv, block, functools.partial(Upsample, dtype=dtype))

    def stage(self, x: jax.Array, width: int, train: bool) -> jax.Array:
        """Two convolutions, each with norm and activation."""
        return self.block(width)(self.block(width)(x, train), train)


def pool(x: jax.Array) -> jax.Array:
    """The largest of each 2x2 pixels of a plane."""
    return nn.max_pool(x, (1, 2, 2), (1, 2, 2))


class Frame(NamedTuple):
    """The features of a frame: itself, 0 where there is padding, and the mask of what is not; both (B, d, h, w, 1)."""

    image: jax.Array
    valid: jax.Array


class FrameNetwork(nn.Module):
    """Same call as `IcaUNet`; the neighbours are ignored. A network writes `segment` alone."""

    config: ModelConfig

    def __call__(self, previous: Volume, current: Volume, following: Volume, valid: Volume, train: bool = False) -> Outputs:
        return self.decode({}, self.encode(current, valid), train)

    def encode(self, frame: Volume, valid: Volume, train: bool = False) -> Frame:
        return Frame(frame * valid, valid)

    def decode(self, neighbours: dict[int, Frame], current: Frame, train: bool = False) -> Outputs:
        return self.segment(current, train)

    def segment(self, frame: Frame, train: bool) -> Outputs:
        """(outputs, aux): logits, coarse to fine, the last (B, d, h, w, 4) float32, and what the loss needs besides."""
        raise NotImplementedError
