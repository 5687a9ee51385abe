"""A trained network on images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ica_unet_jax.inference.segmenters import Segmenter


def load(network: Any, **options: Any) -> Segmenter:
    """`segmenters.load`, which see. It loads JAX when it is called, not when this is imported."""
    from ica_unet_jax.inference import segmenters

    return segmenters.load(network, **options)
