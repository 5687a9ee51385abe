"""One frame on several devices: the slices of ICA-UNet's window divided among them, put together again behind it.

For CPUs, where a device can be a core: cores that compute a slab each wait for each other at the mixing alone, those that
share the operations at each of them. A GPU is faster with a frame than several are with its parts.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ica_unet_jax import compilation
from ica_unet_jax.config import ModelConfig
from ica_unet_jax.errors import UserError
from ica_unet_jax.models.ica_unet import SLICES
from ica_unet_jax.models.slabs import AXIS

MOST = 8  # devices; a frame has few pairs of slices

_VOLUME = PartitionSpec(None, AXIS)  # (B, d, ...)


def one_device_a_core() -> None:
    """JAX's devices are the cores that the process may use, `MOST` of them, if it computes on CPUs.

    Not where their number was chosen already: `JAX_NUM_CPU_DEVICES=1` leaves frames undivided.

    Raises:
      UserError: something was computed before, so that JAX has its devices already.
    """
    if jax.config.jax_num_cpu_devices >= 0 or "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    try:
        jax.config.update("jax_num_cpu_devices", min(MOST, compilation.threads()))
    except RuntimeError:
        raise UserError("JAX has its devices already: call one_device_a_core() before anything is computed.") from None


def slabs(config: ModelConfig) -> int:
    """Devices among which a frame of this network can be divided here: 1 unless it is an ICA-UNet on CPUs.

    Each computes as many pairs of slices: 2 or 4 devices for a grid of 8 slices, 5 for one of 10.
    """
    if config.model != "ica_unet" or jax.default_backend() != "cpu":
        return 1
    most = min(jax.local_device_count(), compilation.threads())
    return max(n for n in range(1, most + 1) if config.crop[0] // 2 % n == 0)


class Division:
    """The first `slabs` devices, and how a network of one window is compiled for them.

    Raises:
      ValueError: there are fewer devices, or the network's slices cannot be divided among them.
    """

    def __init__(self, config: ModelConfig, slabs: int):
        if config.model != "ica_unet" or config.crop[0] // 2 % slabs or slabs > jax.local_device_count():
            raise ValueError(f"{config.model} with d = {config.crop[0]} cannot be divided into {slabs} on {jax.local_device_count()} devices")
        devices = jax.local_devices()[:slabs]
        self._mesh = Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))
        self._slices, self._everywhere = (NamedSharding(self._mesh, spec) for spec in (_VOLUME, PartitionSpec()))
        self._options = compilation.one_window_options(slabs)
        self._first = devices[0]

    def replicate(self, variables: Any) -> Any:
        """The same arrays on each device."""
        return jax.device_put(variables, self._everywhere)

    def compile(self, encode: Callable, decode: Callable, variables: Any, image: jax.ShapeDtypeStruct, frames: int) -> tuple[Callable, Callable]:
        """Both compiled, as `Segmenter.functions` describes them: images in and logits out whole, on the first device.

        Args:
          encode, decode: of an `IcaUNet` of so many slabs.
          variables: shapes of the network's.
          image: shape of an image, and of its mask.
          frames: whose features `decode` takes.
        """
        replicated = PartitionSpec()
        encode = self._mapped(encode, (replicated, _VOLUME, _VOLUME), SLICES)
        decode = self._mapped(decode, (replicated, *[SLICES] * frames), (_VOLUME,))
        variables = self._shapes(variables, self._everywhere)
        encoder = encode.lower(variables, *[self._shapes(image, self._slices)] * 2).compile(self._options)
        features = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), encoder.out_info, encoder.output_shardings)
        decoder = decode.lower(variables, *[features] * frames).compile(self._options)

        def encode_divided(variables, *view):
            return encoder(variables, *jax.device_put(view, self._slices))

        def decode_whole(variables, *features):
            return jax.device_put(decoder(variables, *features), self._first)

        return encode_divided, decode_whole

    def _mapped(self, function: Callable, given: tuple, gives: Any) -> Callable:
        return jax.jit(jax.shard_map(function, mesh=self._mesh, in_specs=given, out_specs=gives, check_vma=False))

    @staticmethod
    def _shapes(tree: Any, sharding: NamedSharding) -> Any:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)
