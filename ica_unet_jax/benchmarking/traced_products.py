"""Counts the products of any network from the shapes of its layers, by tracing it; nothing is computed."""

from __future__ import annotations

import math
from collections.abc import Callable

import flax.linen as nn
import jax

from ica_unet_jax.benchmarking.products import Product, conv
from ica_unet_jax.config import ModelConfig
from ica_unet_jax.labels import NUM_CLASSES
from ica_unet_jax.models.baselines import msu_net, volumetric
from ica_unet_jax.models.baselines.canonical import Canonical, CanonicalConv, CanonicalUpsample
from ica_unet_jax.models.layers import Conv, Upsample, Upsample3d
from ica_unet_jax.models.networks import init_variables

Shape = tuple[int, ...]  # (batch, depth, height, width, channels)


def layers(config: ModelConfig, training: bool) -> list[Product]:
    """The convolutions of one run of the network, a batch of one; without `training`, those of the finest output."""
    found: list[Product] = []

    def record(call, arguments, keywords, context):
        layer = context.module
        if context.method_name == "__call__" and type(layer) in COUNTS:
            if training or not (layer.name or "").startswith("auxiliary"):
                found.extend(COUNTS[type(layer)](layer, arguments[0]))
        return call(*arguments, **keywords)

    with nn.intercept_methods(record):
        _shapes(config)
    return found


def parameters(config: ModelConfig) -> int:
    """Number of trainable parameters."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(_shapes(config)["params"]))


def _shapes(config: ModelConfig) -> dict:
    # A new function each time: a trace that JAX remembers would tell nothing.
    return jax.eval_shape(lambda key: init_variables(config, key), jax.random.key(0))


def convolution(shape: Shape, features: int, depth: int, size: int, strides: tuple[int, int], dilation: int = 1) -> Product:
    """A convolution on an input of `shape`, exact at borders. Bias and norm are parameters, but no product."""
    batch, *grid, cin = shape
    product = conv(tuple(grid), cin, features, size, strides[1], dilation, depth=(depth, strides[0]), extra=0, copies=batch)
    # What has one channel is the frame, to which no gradient goes.
    return product._replace(gradients=1 + (cin > 1))


def upsampling(shape: Shape, features: int, strides: tuple[int, int]) -> Product:
    """A transposed convolution whose kernel has the size of its strides: a matrix product."""
    return convolution(shape, strides[0] * strides[1] ** 2 * features, 1, 1, (1, 1))


def canonical(layer: nn.Module, form: Canonical, count: Callable[[Shape], Product]) -> list[Product]:
    """A linear layer on a canonical form: once for the mean and each source as one batch, once for the residual.

    The residual of the logits is read by nobody.
    """
    batch, *rest = form.mean.shape
    linear = count(((1 + len(form.sources)) * batch, *rest))
    return [linear] if layer.name == "logits" else [linear, count(form.residual.shape)]


def unmixing(config: ModelConfig) -> list[Product]:
    """MSU-Net's products outside its layers, for each scale: the covariance in time, the coefficients, the read-out.

    What costs the same on every grid, the rotation of a few numbers, is left out.
    """
    (d, h, w), span = config.crop, config.span
    found = min(config.sources, span - 1)
    products = []
    for scale in msu_net.SCALES:
        sites = d * (h // scale) * (w // scale)
        inputs, forms, logits = sites * span, sites * found, sites * NUM_CLASSES
        if span > 2:  # else there is one direction
            products += [
                Product(inputs * (span - 1), inputs + sites * (span - 1), gradients=0),
                Product(sites * (span - 1) ** 2, sites * (span - 1), gradients=0),
            ]
        products += [
            Product(inputs * found, inputs + forms, gradients=0),
            Product(logits * found * span, logits * (found + span), gradients=1),
        ]
    return products


COUNTS = {
    Conv: lambda x, y: [convolution(y.shape, x.features, 1, x.kernel_size, (1, x.stride), x.dilation)],
    Upsample: lambda x, y: [upsampling(y.shape, x.features, (1, 2))],
    volumetric.Conv3d: lambda x, y: [convolution(y.shape, x.features, x.depth, x.size, x.strides)],
    Upsample3d: lambda x, y: [upsampling(y.shape, x.features, x.strides)],
    CanonicalConv: lambda x, y: canonical(x, y, lambda shape: convolution(shape, x.features, 1, x.kernel_size, (1, 1))),
    CanonicalUpsample: lambda x, y: canonical(x, y, lambda shape: upsampling(shape, x.features, (1, 2))),
    nn.Dense: lambda x, y: [Product(y.size * x.features, y.size + len(y) * x.features + y.shape[-1] * x.features)],
    msu_net.MsuNet: lambda x, _: unmixing(x.config),
}
