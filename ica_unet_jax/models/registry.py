"""The list of networks: one row each, with the settings that it reads. No code; `networks` finds that by the names here.

To add a network: its file, a row here, a launch file in launch/baselines, and a test.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

_EVERY = ("model", "crop", "compute_dtype", "masked_statistics", "dice_weight", "distillation_weight")
_WIDE = ("width_multiplier",)  # the rivals of several published widths
_EXPANDING = (
    "expanding_convs", "expanding_skips", "upsample_norm", "concatenation_skip", "concatenation_over", "signed_coefficients", "projection_width",
)  # fmt: skip
_BASES = (
    "bases_from", "dictionary_cosines", "mixing_scale", "ica_weight", "sparsity_weight", "independence_weight", "reconstruction_weight", "alpha",
    "ica_reduction", "standardize_bases", "whiten_bases", "independence", "standardize_independence",
)  # fmt: skip


class Network(NamedTuple):
    """Functions are named as they stand in the network's module, or in `losses`; "" is none."""

    module: str  # below ica_unet_jax.models
    network: str  # its class, called with the `ModelConfig`
    settings: tuple[str, ...]  # fields of ModelConfig and LossConfig that it reads beside those that every network reads
    by_mixing: Mapping[str, tuple[str, ...]] = MappingProxyType({})  # those that it reads besides, by the value of `mixing`
    multiple: int = 16  # of which height and width of the grid are multiples
    of_blocks: int = 0  # and of so many times 2^contracting_blocks, where that is more
    smallest: int = 16  # side of the grid in the plane
    snippet: str = ""  # the setting that says how many frames one run answers; "": it answers one
    trained: str = ""  # (logits, aux) -> the outputs that the loss of all networks is taken of; "": the logits
    own_terms: str = ""  # (logits, aux, labels, valid) -> {name: Term}, by which the network's further branches are trained
    published: str = "total_loss"  # the loss of --published_loss in the place of the common one; the own terms are part of neither
    cleaned: bool = False  # as published, answers to mirror images are averaged and the largest component of each structure is kept
    prepare: str = ""  # (batch_stats, samples, crop) -> batch_stats: what is learnt from the labelled frames before the training

    def reads(self, mixing: str) -> frozenset[str]:
        """The fields of ModelConfig and LossConfig on which the network or its loss depends, with this value of `mixing`."""
        return frozenset((*_EVERY, *self.settings, *self.by_mixing.get(mixing, ())))

    def grid(self, contracting_blocks: int) -> int:
        """Of which number height and width of the grid are multiples."""
        return max(self.multiple, self.of_blocks * 2**contracting_blocks)


NETWORKS: Mapping[str, Network] = MappingProxyType({
    "ica_unet": Network(
        "ica_unet",
        "IcaUNet",
        (
            "contracting_blocks", "bases", "stream_width", "convs_per_block", "streams", "encoder_width", "encoder_convs", "encoder_dilation",
            "decoder_width", "decoder_convs", "decoder_frame", "decoder_size", "mixing", "neighbours", "correlation_radius",
            "neighbour_gradients", "norm", "remat", "auxiliary_weight",
        ),
        {"ica": (*_EXPANDING, *_BASES), "upsampled": _EXPANDING},
        multiple=32,
        of_blocks=4,
        smallest=64,
        prepare="prepare",
    ),
    "unet2d": Network("baselines.unet2d", "UNet2d", ("unet_width", "norm"), multiple=8, smallest=8),
    "unet3d": Network(
        "baselines.unet3d",
        "UNet3d",
        (*_WIDE, "anisotropy", "expanding_kernels", "auxiliary_weight", "published_loss"),
        published="loss",
    ),
    "ensemble_unet": Network(
        "baselines.ensemble_unet",
        "EnsembleUNet",
        (*_WIDE, "published_loss"),
        trained="members",
        published="loss",
        cleaned=True,
    ),
    "msu_net": Network(
        "baselines.msu_net",
        "MsuNet",
        (*_WIDE, "span", "sources", "published_loss"),
        snippet="span",
        published="without_dice",
    ),
    "grid_net": Network(
        "baselines.grid_net",
        "GridNet",
        (*_WIDE, "norm", "published_loss"),
        own_terms="own_terms",
        published="without_dice",
        prepare="prepare",
    ),
    "omega_net": Network(
        "baselines.omega_net",
        "OmegaNet",
        (*_WIDE, "norm", "published_loss"),
        own_terms="own_terms",
        published="without_dice",
    ),
})  # fmt: skip
