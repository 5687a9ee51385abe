"""ICA-UNet: unmix a frame, transform its coefficients, mix them again."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ica_unet_jax.config import ModelConfig
from ica_unet_jax.data.learning_frame import LearningFrame
from ica_unet_jax.models import fastica
from ica_unet_jax.models.backbone import Backbone
from ica_unet_jax.models.correlation import correlate
from ica_unet_jax.models.ica import IcaDecoder, IcaEncoder, in_channels, initial_patterns
from ica_unet_jax.models.layers import Conv, ConvBlock, Norm, Upsample3d, Volume, coarser
from ica_unet_jax.models.mixing import mix_with, stamps


class FrameFeatures(NamedTuple):
    """What is kept of a frame: everything that it contributes as current frame or as a neighbour."""

    pyramid: tuple[jax.Array, ...]  # A_n ... A_0 as streams, (m, 1, B, d/2, h/4, w/4) first
    own_bases: jax.Array | None  # what it adds to X, (B, d, h/16, w/16, u, m); None where X is a dictionary, or it serves as neighbour alone
    valid: jax.Array  # (B, d, h, w, 1), 1 where there is image, 0 where there is padding
    frame: jax.Array | None = None  # (B, d, h, w, 1), where the decoders see it


class IcaUNet(nn.Module):
    """The network of the paper, Sect. 2, on the grid `config.crop`.

    With d, h, w = 10, 192, 192, n = 4, m = 32, u = 4, p = 8 and B frames:

    | tensor          | shape                                                  |
    | --------------- | ------------------------------------------------------ |
    | frame           | (B, 10, 192, 192, 1)                                   |
    | X               | (B, 10, 12, 12, 4, 32)                                 |
    | A_4             | (32, 1, B, 5, 48, 48), streams first                   |
    | A_3 ... A_0     | (32, 8, B, 5, 24, 24), (32, 16, .. 12, 12), ..., (32, 16, .. 3, 3) |
    | A'_1 ... A'_4   | (32, 16, B, 5, 6, 6), ..., (32, 8, .. 48, 48)          |
    | A'_{c,1} ... A'_{c,4} | (B, 5, 6, 6, 32), ..., (B, 5, 48, 48, 32)        |
    | A'_{c,k} (x) X  | (B, 10, 24, 24, 4), ..., (B, 10, 192, 192, 4)          |
    | logits          | (B, 10, 24, 24, 4), ..., (B, 10, 192, 192, 4)          |
    """

    config: ModelConfig

    def setup(self):
        c = self.config
        dtype = jnp.dtype(c.compute_dtype)
        conv = functools.partial(Conv, dtype=dtype)
        norm = functools.partial(Norm, kind=c.norm, dtype=dtype)
        block = functools.partial(ConvBlock, conv=conv, norm=norm)
        self.encoder = IcaEncoder(c, conv, block, dtype)
        self.backbone = Backbone(c)
        decoder = nn.remat(IcaDecoder, static_argnums=(2,)) if c.remat else IcaDecoder
        self.decoders = [decoder(c.decoder_width, c.decoder_convs, c.decoder_size == "half", block, conv) for _ in range(c.contracting_blocks)]
        if c.mixing == "upsampled":
            self.upsample = Upsample3d(c.projection_width, (2, 4), dtype)

    def __call__(self, previous: Volume, current: Volume, following: Volume, valid: Volume, train: bool = False):
        """A frame (B, d, h, w, 1), those before and after it and the validity mask that they share -> (logits, aux).

        `previous` and `following`, (B, d, h, w, config.reach), are in the order of time.

        Returns:
          logits: [y_1, ..., y_n], coarse to fine, y_k (B, d, h / 2^(n-k), w / 2^(n-k), 4), float32.
          aux: `bases` X; `coefficients` A_n (B, d/2, h/4, w/4, m); `mixed` [A'_{c,k}]; `reconstruction`
            A_n (x) X, its mean over the u channels (ours), (B, d, h, w, 1). Without bases (--mixing) `mixed` alone.
        """
        features = self.encode(current, valid, train)
        neighbours = {}
        for offset in self.config.frames:
            frame = previous[..., offset, None] if offset < 0 else following[..., offset - 1, None]
            pyramid = self._pyramid(self.encoder.low_level(frame * valid, train, self._counted(valid))[0], valid, train)
            if not self.config.neighbour_gradients:
                pyramid = jax.lax.stop_gradient(pyramid)
            neighbours[offset] = FrameFeatures(pyramid, None, valid)
        return self.decode(neighbours, features, train)

    def encode(self, frame: Volume, valid: Volume, train: bool = False) -> FrameFeatures:
        """One frame (B, d, h, w, 1) and its validity mask -> its features, once for all three of its roles."""
        low, low_bases = self.encoder.low_level(frame * valid, train, self._counted(valid))
        bases = self._own_bases(low_bases, valid, train) if self.config.has_bases else None
        return FrameFeatures(self._pyramid(low, valid, train), bases, valid, frame * valid if self.config.decoder_frame else None)

    def decode(self, neighbours: dict[int, FrameFeatures], current: FrameFeatures, train: bool = False):
        """The features of a frame and, by their offsets in time, of its neighbours -> (logits, aux) as `__call__` gives."""
        transformed = self._transform(neighbours, current, train)
        logits = self._answer(current, transformed, train)
        aux = {} if self.config.mixing == "none" else {"mixed": transformed}
        return logits, aux | (self.unmixed(current) if self.config.has_bases else {})

    def decode_stack(self, neighbours: dict[int, FrameFeatures], current: FrameFeatures, starts: Sequence[int]) -> tuple[Volume, ...]:
        """The features of all slices of a deep stack, (B, D, h, w, 1) with D even -> for each of its windows the finest logits (B, d, h, w, 4).

        The windows begin at the slices `starts`, all even. What comes before the mixing looks at pairs of slices, and is done once.
        """
        transformed, depth, window = self._transform(neighbours, current, False), current.valid.shape[1], self.config.crop[0]

        def cut(x: jax.Array | None, start: int) -> jax.Array | None:
            if x is None:
                return None
            part = depth // x.shape[1]  # slices that one of `x` stands for
            return jax.lax.slice_in_dim(x, start // part, (start + window) // part, axis=1)

        windows = []
        for start in starts:
            seen = FrameFeatures((), cut(current.own_bases, start), cut(current.valid, start), cut(current.frame, start))
            windows.append(self._answer(seen, [cut(x, start) for x in transformed], False)[-1])
        return tuple(windows)

    def _transform(self, neighbours: dict[int, FrameFeatures], current: FrameFeatures, train: bool) -> list[Volume | None]:
        """[A'_{c,1}, ..., A'_{c,n}]; without mixing what a decoder sees of the neighbours, if there are any."""
        c, n = self.config, self.config.contracting_blocks
        correlations = {}
        for k in range(1, n + 1):
            parts = [correlate(current.pyramid[n - k], neighbours[i].pyramid[n - k], c.correlation_radius) for i in c.frames]
            correlations[k] = jnp.concatenate(parts) if parts else None
        if c.mixing == "none":
            return [enlarge(x) if c.frames else None for x in correlations.values()]
        return self.backbone.expanding_path(current.pyramid, correlations, train, self._counted(current.valid))

    def _answer(self, current: FrameFeatures, transformed: list[Volume | None], train: bool) -> list[Volume]:
        """The logits, coarse to fine."""
        c, n, counted = self.config, self.config.contracting_blocks, self._counted(current.valid)
        if c.has_bases:
            bases = self._bases(current)
            mix = functools.partial(self._mix, matrix=stamps(bases), bases=bases)
        logits = []
        for k, (decoder, mixed) in enumerate(zip(self.decoders, transformed, strict=True), start=1):
            d, h, w = current.valid.shape[1:4]
            size = (h // 2 ** (n - k), w // 2 ** (n - k))
            seen = []
            if c.mixing == "none":
                seen += [] if mixed is None else [mixed]
            else:
                mixed = mixed * coarser(current.valid, mixed.shape[1:4]).astype(mixed.dtype)
                seen.append(mix(mixed) if c.has_bases else self.upsample(mixed))
            if c.decoder_frame:
                frame = current.frame.reshape(-1, d, size[0], h // size[0], size[1], w // size[1], 1).mean((3, 5))
                seen.append(frame.astype(c.compute_dtype))
            logits.append(decoder(jnp.concatenate(seen, axis=-1), train, counted).astype(jnp.float32))
        return logits

    def unmixed(self, current: FrameFeatures) -> dict[str, jax.Array]:
        """What the ICA loss is about: X, A_n and A_n (x) X."""
        a_n = self.backbone.merge(current.pyramid[0])
        a_n = a_n * coarser(current.valid, a_n.shape[1:4]).astype(a_n.dtype)
        bases = self._bases(current)
        mean = bases.mean(4, keepdims=True)  # A (x) X is linear in X: its mean over u is that of the mean of X
        return {
            "bases": bases.astype(jnp.float32),
            "coefficients": a_n.astype(jnp.float32),
            "reconstruction": self._mix(a_n, stamps(mean), mean).astype(jnp.float32),
        }

    def _counted(self, valid: Volume) -> Volume | None:
        """What counts in the statistics of norms; None: all does."""
        return valid if self.config.masked_statistics else None

    def _pyramid(self, low: Volume, valid: Volume, train: bool) -> tuple[jax.Array, ...]:
        counted = self._counted(valid)
        a_n = self.encoder.coefficients(low, coarser(valid, low.shape[1:4]), train, counted)
        return self.backbone.contracting_path(a_n, train, counted)

    def _own_bases(self, low: Volume, valid: Volume, train: bool) -> jax.Array | None:
        d, h, w = valid.shape[1:4]
        return self.encoder.own_bases(low, coarser(valid, (d, h // 16, w // 16)), train, self._counted(valid))

    def _bases(self, current: FrameFeatures) -> jax.Array:
        return self.encoder.bases(current.own_bases, current.valid.shape[0])

    def _mix(self, coefficients: Volume, matrix: jax.Array, bases: jax.Array) -> Volume:
        mixed = mix_with(coefficients, matrix, bases.shape)
        if self.config.mixing_scale:
            d, h, w = self.config.crop
            mixed = mixed / (d * h * w * self.config.bases / (2 * 4 * 4 * 16 * 16)) ** 0.5
        return mixed


def prepare(batch_stats: dict, samples: Sequence[LearningFrame], crop: tuple[int, int, int]) -> dict:
    """The network's statistics, with FastICA's bases of the training frames where X is a fixed dictionary.

    They are as large as those with which a trained dictionary begins, with `--dictionary_cosines`: of random sign and size per channel. All channels of
    a basis are one pattern, and all seeds have the same.
    """
    encoder = batch_stats.get("encoder", {})
    if "dictionary" not in encoder:
        return batch_stats
    *shape, u, m = encoder["dictionary"]["bases"].shape
    size = jnp.sqrt(jnp.square(initial_patterns(tuple(shape), m, True)).mean((0, 1, 2)))
    found = jnp.asarray(fastica.patterns(samples, tuple(shape), m), jnp.float32) * size[None, None, None]
    return {**batch_stats, "encoder": {**encoder, "dictionary": {"bases": in_channels(jax.random.key(0), found, u)}}}


def enlarge(channels: jax.Array) -> Volume:
    """(c, B, d/2, h/4, w/4) -> (B, d, h, w, c): each value for all the voxels that a coefficient stands for."""
    for axis, times in ((2, 2), (3, 4), (4, 4)):
        channels = jnp.repeat(channels, times, axis=axis)
    return channels.transpose(1, 2, 3, 4, 0)
