"""The ICA-encoder (frame -> coefficients and bases) and the ICA-decoder (coefficients, bases -> logits)."""

from __future__ import annotations

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ica_unet_jax.config import ModelConfig
from ica_unet_jax.labels import NUM_CLASSES
from ica_unet_jax.models.layers import Dtype, Volume, depth_to_space, space_to_depth
from ica_unet_jax.models.mixing import Bases
from ica_unet_jax.models.tables import rows_at
from ica_unet_jax.runtime.compilation import is_for_elsewhere, once


class LowLevel(nn.Module):
    """Layers shared by both branches: (B, d, h, w, 1) -> (B, d, h/4, w/4, 4 * width), in two halves, or whole if not `shared`.

    The first layer works on 2x2 pixels as channels (ours): the same view as a 6x6 kernel at a quarter of its cost.
    """

    width: int
    shared: bool
    block: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, frame: Volume, train: bool, counted: Volume | None) -> tuple[Volume, Volume | None]:
        x = space_to_depth(frame)
        x = self.block(self.width)(x, train, counted)
        x = self.block(2 * self.width, stride=2)(x, train, counted)
        x = self.block(4 * self.width)(x, train, counted)
        if not self.shared:
            return x, None
        if is_for_elsewhere():
            return _halves(x)
        return tuple(jnp.split(x, 2, axis=-1))


def _halves(x: Volume) -> tuple[Volume, Volume]:
    """The two halves of the channels; in memory the first has pairs of slices beside each other, as `CoefficientBranch` reads it."""
    b, d, h, w, c = x.shape
    parts = x.reshape(b, d, h, w, 2, c // 2)
    numbers = np.arange(d * h * w * 2).reshape(d // 2, 2, h, w, 2)
    first = rows_at(parts, numbers[..., 0].transpose(0, 2, 3, 1), 1)
    second = rows_at(parts, numbers[..., 1].reshape(d, h, w), 1)
    return first.transpose(0, 1, 4, 2, 3, 5).reshape(b, d, h, w, -1), second


class CoefficientBranch(nn.Module):
    """Half of the low-level features -> A_n (B, d/2, h/4, w/4, m). The last layer is linear: coefficients carry a sign."""

    bases: int
    width: int
    convs: int
    dilate: bool
    block: Callable[..., nn.Module]
    conv: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: Volume, valid: Volume, train: bool, counted: Volume | None) -> Volume:
        b, d, h, w, c = x.shape
        # A pair of slices becomes one: the paper's stride in depth.
        x = (x * valid).reshape(b, d // 2, 2, h, w, c).transpose(0, 1, 3, 4, 2, 5).reshape(b, d // 2, h, w, 2 * c)
        x = self.block(self.width)(x, train, counted)
        for i in range(self.convs):
            dilated = functools.partial(self.conv, dilation=2**i if self.dilate else 1)
            x = self.block(self.width, conv=dilated)(x, train, counted)
        return self.conv(self.bases, kernel_size=1)(x)


class BasisBranch(nn.Module):
    """Half of the low-level features -> (B, d, h/16, w/16, u, m), linear at the end."""

    bases: int
    projection_width: int
    width: int
    block: Callable[..., nn.Module]
    conv: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: Volume, train: bool, counted: Volume | None) -> Float[Array, "B d K L u m"]:
        x = self.block(self.width, stride=2)(x, train, counted)
        x = self.block(self.width, stride=2)(x, train, counted)
        x = self.conv(self.projection_width * self.bases, kernel_size=1)(x)
        return x.reshape(*x.shape[:-1], self.projection_width, self.bases)


def local_windows(key: jax.Array, shape: tuple[int, ...], cosines: bool) -> jax.Array:
    """Initial dictionary (d, K, L, u, m): triangles local at the kernel's centre, random sign and size per channel.

    With `cosines` basis b carries the b-th pattern, by frequency, of a cosine transform of the 2x4x4 voxels that one
    coefficient stands for. The triangles are twice as wide, so beyond these 32 come the patterns with frequencies half way
    between, 256 in all. Without, all bases have one smooth shape, and whatever is mixed is blurred until they part.
    """
    d, rows, columns, u, m = shape
    return in_channels(key, initial_patterns((d, rows, columns), m, cosines), u)


def in_channels(key: jax.Array, patterns: jax.Array, u: int) -> jax.Array:
    """Patterns (d, K, L, m) -> a dictionary (d, K, L, u, m), of random sign and size per channel."""
    return patterns[:, :, :, None] * (0.3 * jax.random.normal(key, (u, patterns.shape[-1])))[None, None, None]


def initial_patterns(shape: tuple[int, int, int], m: int, cosines: bool) -> jax.Array:
    """The m patterns (d, K, L, m) of `local_windows`."""
    blocks = (2, 4, 4)

    def axis(size: int, block: int, frequencies: jax.Array) -> jax.Array:
        # The centre is where a coefficient's own voxels lie (see `mixing`).
        x = jnp.arange(size) - (size / 2 - 0.5)
        triangle = jnp.clip(1 - jnp.abs(x) / block, 0)
        return triangle[:, None] * jnp.cos(jnp.pi * frequencies[None] * (x[:, None] + block / 2) / block)

    halves = [tuple(i / 2 for i in twice) for twice in np.ndindex(*(2 * n for n in blocks))]
    between = [any(i % 1 for i in f) for f in halves]
    # The whole frequencies first, and of each kind the slowest.
    order = [f for _, _, f in sorted(zip(between, (sum((i / n) ** 2 for i, n in zip(f, blocks, strict=True)) for f in halves), halves, strict=True))]
    chosen = np.array([order[b % len(order)] for b in range(m)] if cosines else [(0, 0, 0)] * m)
    z, y, x = (
        axis(size, block, jnp.asarray(chosen[:, i], jnp.float32))
        for i, (size, block) in enumerate(zip(shape, blocks, strict=True))
    )
    return z[:, None, None] * y[None, :, None] * x[None, None, :]


class Dictionary(nn.Module):
    """X_0, the bases common to all frames, (d, h/16, w/16, u, m); a trainable parameter (ours), or fixed by `prepare` before training."""

    shape: tuple[int, ...]
    cosines: bool
    fixed: bool

    @nn.compact
    def __call__(self) -> Float[Array, "d K L u m"]:
        if self.fixed:
            return self.variable("batch_stats", "bases", local_windows, jax.random.key(0), self.shape, self.cosines).value
        return self.param("bases", local_windows, self.shape, self.cosines)


class IcaDecoder(nn.Module):
    """A'_c (x) X -> convolutions -> logits (B, d, 4h', 4w', 4).

    At half size (ours) the convolutions see 2x2 pixels as channels, as in the encoder: few channels at full size leave a
    processor idle, four times as many at half size do not.
    """

    width: int
    convs: int
    half: bool
    block: Callable[..., nn.Module]
    conv: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, mixed: Volume, train: bool, counted: Volume | None = None) -> Volume:
        x = space_to_depth(mixed) if self.half else mixed
        for _ in range(self.convs):
            # A convolution's gradients read it, and that of its result, in several orders: once for all of them.
            x = once(self.block(self.width)(x, train, counted))
        return depth_to_space(once(self.conv(4 * NUM_CLASSES)(x))) if self.half else self.conv(NUM_CLASSES)(x)


class IcaEncoder(nn.Module):
    """Unmixing: `low_level`, then `coefficients`, and `own_bases` and `bases`, which a caller may want for different frames.

    `counted` is the mask (B, d, h, w, 1) of what counts in the statistics of norms; None: all does.
    """

    config: ModelConfig
    conv: Callable[..., nn.Module]
    block: Callable[..., nn.Module]
    dtype: Dtype = jnp.float32

    def setup(self):
        c = self.config
        d, h, w = c.crop
        self.low = LowLevel(c.encoder_width, c.has_bases, self.block)
        self.unmix = CoefficientBranch(c.bases, 4 * c.encoder_width, c.encoder_convs, c.encoder_dilation, self.block, self.conv)
        if not c.has_bases:
            return
        if not c.dictionary_alone:
            self.branch = BasisBranch(c.bases, c.projection_width, 4 * c.encoder_width, self.block, self.conv)
        if c.dictionary_alone or c.bases_from == "dictionary_and_frame":
            shape = (d, h // 16, w // 16, c.projection_width, c.bases)
            self.dictionary = Dictionary(shape, c.dictionary_cosines, fixed=c.bases_from == "fastica")
        if c.bases_from == "dictionary_and_frame":
            self.frame_scale = self.param("frame_scale", nn.initializers.constant(0.1), ())

    def low_level(self, frame: Volume, train: bool, counted: Volume | None = None) -> tuple[Volume, Volume | None]:
        return self.low(frame.astype(self.dtype), train, counted)

    def coefficients(self, features: Volume, valid: Volume, train: bool, counted: Volume | None = None) -> Volume:
        """A_n from the first half of the low-level features; `valid` is (B, d, 1, 1, 1) or (B, d, h/4, w/4, 1)."""
        return self.unmix(features, valid.astype(features.dtype), train, counted)

    def own_bases(self, features: Volume, valid: Volume, train: bool, counted: Volume | None = None) -> Bases | None:
        """What a frame's second half of the low-level features adds to X; None where X is a dictionary alone.

        `valid` (B, d, h/16, w/16, 1) silences what comes from padded voxels.
        """
        if self.config.dictionary_alone:
            return None
        if self.config.bases_from == "frame_with_coordinates":
            batch, _, *plane, _ = features.shape
            grid = _coordinates((self.config.crop[0], *plane), features.dtype)
            features = jnp.concatenate([features, jnp.broadcast_to(grid, (batch, *grid.shape))], axis=-1)
        return self.branch(features, train, counted) * valid[..., None].astype(self.dtype)

    def bases(self, own: Bases | None, batch: int) -> Bases:
        """X of a batch of frames, from what each adds to it.

        The dictionary is indexed by offsets within a kernel, not by places in the frame: it has no mask.
        """
        if self.config.bases_from == "dictionary_and_frame":
            return self.dictionary()[None].astype(self.dtype) + self.frame_scale.astype(self.dtype) * own
        if own is None:
            common = self.dictionary()
            return jnp.broadcast_to(common, (batch, *common.shape)).astype(self.dtype)
        return own


def _coordinates(shape: tuple[int, int, int], dtype: Dtype) -> Float[Array, "d h w 3"]:
    """Channels that say where a feature lies, -1 to 1 over depth, height and width."""
    axes = [jnp.linspace(-1, 1, size, dtype=dtype) for size in shape]
    return jnp.stack(jnp.meshgrid(*axes, indexing="ij"), axis=-1)

