"""MSU-Net: a multiscale statistical U-Net for real-time 3D cine MRI (Wang et al., MICCAI 2019), on SCNN (AAAI 2019).

A snippet of `span` frames becomes a canonical form; a U-Net moves mean and coefficients through its layers once for all
frames; each frame's logits are read out by its values of the sources. Scales are parallel branches.

Ours, as there is no public code: two scales, 1 and 2 (pixels and frames averaged); per branch a U-Net of four
resolutions, 32 channels at the top, two 3x3 convolutions a stage, batch norm, ReLU, max pooling, slice by slice; the
sum of the branches' logits; at most `sources` sources a branch.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ica_unet_jax.config import ModelConfig
from ica_unet_jax.labels import NUM_CLASSES
from ica_unet_jax.models.baselines.canonical import (
    Canonical,
    CanonicalConv,
    CanonicalNorm,
    CanonicalUpsample,
    concatenate,
    max_pool,
    read_out,
    relu,
)
from ica_unet_jax.models.baselines.frame_network import Frame, Outputs
from ica_unet_jax.models.baselines.unmixing import unmix
from ica_unet_jax.models.layers import Dtype, Volume

SCALES = (1, 2)
STAGES = 4
WIDTH = 32


class StatisticalUNet(nn.Module):
    """A U-Net on canonical forms: one channel -> logits, at the size of its input."""

    width: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Canonical, train: bool, valid: Volume | None = None) -> Canonical:
        def stage(x: Canonical, width: int) -> Canonical:
            for _ in range(2):
                # The norm subtracts a mean, so a bias before it would be without effect.
                x = CanonicalConv(width, use_bias=False, dtype=self.dtype)(x)
                x = relu(CanonicalNorm(self.dtype)(x, train, valid))
            return x

        skips = []
        for i in range(STAGES - 1):
            x = stage(x, self.width * 2**i)
            skips.append(x)
            x = max_pool(x)
        x = stage(x, self.width * 2 ** (STAGES - 1))
        for i in range(STAGES - 2, -1, -1):
            x = CanonicalUpsample(self.width * 2**i, self.dtype)(x)
            x = stage(concatenate(x, skips[i]), self.width * 2**i)
        return CanonicalConv(NUM_CLASSES, 1, dtype=self.dtype, name="logits")(x)


class MsuNet(nn.Module):
    """Called as `IcaUNet`, with the `span` - 1 frames before and after as channels of `previous` and `following`.

    In training the frame is read at a random place of the snippet (rng `dropout`), else in its middle. A stream calls
    `encode` for each frame and `decode_snippet` for each snippet.
    """

    config: ModelConfig

    def setup(self):
        c = self.config
        self.branches = [StatisticalUNet(c.channels(WIDTH), jnp.dtype(c.compute_dtype)) for _ in SCALES]

    def __call__(self, previous: Volume, current: Volume, following: Volume, valid: Volume, train: bool = False) -> Outputs:
        span = self.config.span
        window = jnp.concatenate([previous, current, following], axis=-1) * valid
        place = jax.random.randint(self.make_rng("dropout"), (), 0, span) if train else jnp.int32(span // 2)
        snippet = jax.lax.dynamic_slice_in_dim(window, span - 1 - place, span, axis=-1)
        logits, sources = self._answer(snippet, train, valid if self.config.masked_statistics else None)
        return [jax.lax.dynamic_index_in_dim(logits, place, keepdims=False)], {"sources": sources}

    def encode(self, frame: Volume, valid: Volume, train: bool = False) -> Frame:
        return Frame(frame * valid, valid)

    def decode_snippet(self, frames: list[Frame]) -> jax.Array:
        """The logits (span, B, d, h, w, 4) of all frames of a snippet."""
        return self._answer(jnp.concatenate([frame.image for frame in frames], axis=-1), False)[0]

    def _answer(self, snippet: Volume, train: bool, valid: Volume | None = None) -> tuple[jax.Array, list[jax.Array]]:
        """(B, d, h, w, span) -> logits (span, B, d, h, w, 4) float32, and the sources (B, K, span) of each branch."""
        logits, found = 0.0, []
        for scale, branch in zip(SCALES, self.branches, strict=True):
            form, sources = unmix(averaged(snippet, scale), self.config.sources)
            answer = read_out(branch(form, train, valid), sources).astype(jnp.float32)
            logits += jnp.repeat(jnp.repeat(answer, scale, axis=3), scale, axis=4)
            found.append(sources)
        return logits, found


def averaged(snippet: Volume, scale: int) -> Volume:
    """(B, d, h, w, S) -> (B, d, h / scale, w / scale, S): each frame with the scale - 1 that follow it, and their pixels."""
    b, d, h, w, span = snippet.shape
    pixels = snippet.reshape(b, d, h // scale, scale, w // scale, scale, span).mean((3, 5))
    later = [jnp.minimum(jnp.arange(span) + i, span - 1) for i in range(scale)]
    return sum(pixels[..., index] for index in later) / scale
