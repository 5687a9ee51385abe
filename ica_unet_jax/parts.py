"""A streamed frame in parts, each a compiled function of its own, to see where the time goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ica_unet_jax import compilation, flops
from ica_unet_jax.config import ModelConfig
from ica_unet_jax.flops import Work
from ica_unet_jax.models import build_model
from ica_unet_jax.models.correlation import correlate
from ica_unet_jax.models.ica_unet import IcaUNet
from ica_unet_jax.models.layers import coarser
from ica_unet_jax.models.mixing import stamps


class Part(NamedTuple):
    """A step of the network, on the arrays that the steps before it gave."""

    call: Callable[[], Any]
    work: Work


def parts(config: ModelConfig, variables: Any, image: jax.Array, valid: jax.Array) -> tuple[dict[str, Part], Any]:
    """{name: part} in order, and what comes out at their end: the network's logits of a frame that is its own neighbour.

    Nothing, and None, for a network that is not taken apart here.

    Args:
      variables: of the network.
      image: (1, d, h, w, 1); valid: its mask.
    """
    if not config.has_bases or config.decoder_frame:
        return {}, None
    n, model, work, found = config.contracting_blocks, build_model(config), flops.streamed(config), {}

    def add(name: str, method: Callable, *arrays: Any, of: tuple[str, ...] = ()) -> Any:
        """The part `name`, whose work is that of the parts `of` of `flops`; what it gives."""
        function = jax.jit(lambda variables, *arrays: model.apply(variables, *arrays, method=method))
        compiled = function.lower(variables, *arrays).compile(compilation.one_window_options())
        names = of or (name,)
        found[name] = Part(lambda: compiled(variables, *arrays), flops.total({part: work[part] for part in names}))
        return found[name].call()

    low, low_bases = add("low_level", _low_level, image, valid)
    a_n = add("coefficient_branch", _coefficients, low, valid)
    bases = add("basis_branch", _bases, low_bases, valid)
    pyramid = add("contracting_path", _contract, a_n)
    correlations = {k: None for k in range(1, n + 1)}
    if config.frames:
        correlations[n] = add("correlation", _correlate, pyramid[0])
    mixed = add("expanding_path", _expand, pyramid, correlations, of=("expanding_path", "concatenation"))
    volume = add("mixing", _mix, mixed, bases, valid)
    return found, add("decoders", _decode, volume)


def _low_level(net: IcaUNet, image: jax.Array, valid: jax.Array):
    return net.encoder.low_level(image * valid, False)


def _coefficients(net: IcaUNet, low: jax.Array, valid: jax.Array):
    return net.encoder.coefficients(low, coarser(valid, low.shape[1:4]), False)


def _bases(net: IcaUNet, low: jax.Array, valid: jax.Array):
    return net._bases(low, valid, False)


def _contract(net: IcaUNet, a_n: jax.Array):
    return net.backbone.contracting_path(a_n, False)


def _correlate(net: IcaUNet, streams: jax.Array):
    """With each neighbour, at the finest resolution: the coarser ones serve the auxiliary outputs alone."""
    radius = net.config.correlation_radius
    return jnp.concatenate([correlate(streams, streams, radius) for _ in net.config.frames])


def _expand(net: IcaUNet, pyramid: tuple[jax.Array, ...], correlations: dict[int, jax.Array | None]):
    return net.backbone.expanding_path(pyramid, correlations, False)[-1]


def _mix(net: IcaUNet, coefficients: jax.Array, bases: jax.Array, valid: jax.Array):
    masked = coefficients * coarser(valid, coefficients.shape[1:4]).astype(coefficients.dtype)
    return net._mix(masked, stamps(bases), bases)


def _decode(net: IcaUNet, mixed: jax.Array):
    return net.decoders[-1](mixed, False).astype(jnp.float32)
