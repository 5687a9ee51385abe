"""What the rivals that see one frame at a time have in common."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax

from ica_unet_jax.config import ModelConfig
from ica_unet_jax.models.layers import Volume

Outputs = tuple[list[jax.Array], dict[str, Any]]


class Frame(NamedTuple):
    """The features of a frame: itself, 0 where there is padding, and the mask of what is not; both (B, d, h, w, 1)."""

    image: jax.Array
    valid: jax.Array


class FrameNetwork(nn.Module):
    """Same call as `IcaUNet`; the neighbours are ignored. A network writes `segment` alone."""

    config: ModelConfig

    def __call__(self, previous: Volume, current: Volume, following: Volume, valid: Volume, train: bool = False) -> Outputs:
        return self.decode(None, self.encode(current, valid), None, train)

    def encode(self, frame: Volume, valid: Volume, train: bool = False) -> Frame:
        return Frame(frame * valid, valid)

    def decode(self, previous: Frame | None, current: Frame, following: Frame | None, train: bool = False) -> Outputs:
        return self.segment(current, train)

    def segment(self, frame: Frame, train: bool) -> Outputs:
        """(outputs, aux): logits, coarse to fine, the last (B, d, h, w, 4) float32, and what the loss needs besides."""
        raise NotImplementedError
