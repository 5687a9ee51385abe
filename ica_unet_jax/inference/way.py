"""From a native frame on the host to native labels on the host: in JAX, or all of it in another runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from ica_unet_jax.data.geometry import Placement, limits
from ica_unet_jax.inference.native_grid import Windows
from ica_unet_jax.inference.roi import Sight
from ica_unet_jax.runtime import compilation

if TYPE_CHECKING:
    from ica_unet_jax.inference.segmenters import Segmenter


Image = tuple[np.ndarray, np.ndarray]  # a frame and its percentiles
Features = list[Any]  # what the model's `encode` gives, for each image that it is shown; elsewhere the arrays of the graph


@runtime_checkable
class Way(Protocol):
    """What a stream asks for; the features are what `encode` gives, through the same placement."""

    def put(self, frame: np.ndarray) -> Any:
        """A native frame (s, h, w) float32 where it is worked on: once for all windows that it is seen through."""

    def encode(self, placement: Placement, image: Any) -> Features:
        """The features of what `put` gave."""

    def labels(self, placement: Placement, frames: Sequence[Features], count: int) -> list[np.ndarray]:
        """Labels (s, h, w) uint8 on the native grid, of the first `count` frames that one run of the network answers."""

    def look(self, placement: Placement, image: Any) -> Sight:
        """What is seen of what `put` gave, its own neighbour, through the window of a placement."""


class InJax:
    """Each step a compiled function of its own, on JAX's device."""

    def __init__(self, segmenter: Segmenter):
        self._segmenter = segmenter

    def put(self, frame: np.ndarray) -> jax.Array:
        return self._segmenter.put(frame)

    def encode(self, placement: Placement, image: jax.Array) -> Features:
        return self._segmenter.encode(placement, image)

    def labels(self, placement: Placement, frames: Sequence[Features], count: int) -> list[np.ndarray]:
        answers = self._segmenter.decode(*frames)[:count]
        return jax.device_get([self._segmenter.to_labels(placement, windows) for windows in answers])

    def look(self, placement: Placement, image: jax.Array) -> Sight:
        return self._segmenter.look(placement, image)


class StacksInJax(InJax):
    """The same for deep stacks of one native grid: what comes before the mixing is done once for all windows of a stack."""

    def __init__(self, segmenter: Segmenter, placement: Placement):
        super().__init__(segmenter)
        self._grid, encode, decode = segmenter.stack_functions(placement)

        def features(variables: Any, frame: jax.Array, offset: jax.Array) -> Features:
            return [encode(variables, *view) for view in self._grid.to_windows(frame, offset)]

        shapes = [jax.ShapeDtypeStruct(placement.shape, jnp.float32), jax.ShapeDtypeStruct((2,), jnp.int32)]
        options = compilation.one_window_options()
        traced = jax.jit(features).lower(segmenter.variables, *shapes)
        self._encode = traced.compile(options)
        self._decode = jax.jit(decode).lower(segmenter.variables, *[traced.out_info] * segmenter.decoded).compile(options)

    def encode(self, placement: Placement, image: jax.Array) -> Features:
        return self._encode(self._segmenter.variables, image, self._grid.offset(placement))

    def labels(self, placement: Placement, frames: Sequence[Features], count: int) -> list[np.ndarray]:
        return [jax.device_get(self._grid.labels(self._windows(frames), self._grid.offset(placement)))]

    def look(self, placement: Placement, image: jax.Array) -> Sight:
        return self._segmenter.sight(placement, self._windows([self.encode(placement, image)] * self._segmenter.decoded))

    def _windows(self, frames: Sequence[Features]) -> Windows:
        [windows] = self._decode(self._segmenter.variables, *frames)
        return windows


class Elsewhere:
    """Two graphs of another runtime, for one native grid: normalization, resampling and the choice of labels are in them too.

    Two small things are done on the host: the percentiles of a frame, and that labels are put where the window lies. How sure the network is nobody
    asks for in each frame: to look for the heart, the network alone is run elsewhere.
    """

    def __init__(self, segmenter: Segmenter, placement: Placement):
        from ica_unet_jax.portable import network  # needs onnx

        grid, encode_image, decode_images = segmenter.stack_functions(placement, exact=True)
        self._grid, self._segmenter = grid, segmenter

        def encode(frame: jax.Array, limits: jax.Array, offset: jax.Array) -> Features:
            found = [encode_image(segmenter.variables, *view) for view in grid.to_windows(frame, offset, limits)]
            return [features._replace(valid=None) for features in found]  # the masks are made anew, which is less than to keep them

        def decode(offset: jax.Array, *frames: Features) -> tuple[jax.Array, ...]:
            masks = [mask for _, mask in grid.to_windows(jnp.zeros(placement.shape), offset, jnp.zeros(2))]
            frames = [[features._replace(valid=mask) for features, mask in zip(views, masks, strict=True)] for views in frames]
            return tuple(grid.to_label_box(windows, offset)[0] for windows in decode_images(segmenter.variables, *frames))

        shapes = [jax.ShapeDtypeStruct(placement.shape, jnp.float32), jax.ShapeDtypeStruct((2,), jnp.float32), jax.ShapeDtypeStruct((2,), jnp.int32)]
        graphs = network.graphs(encode, decode, shapes, segmenter.decoded, shapes[2:])
        self._network = network.Network(graphs, segmenter.runtime, segmenter.config.model.compute_dtype)

    def put(self, frame: np.ndarray) -> Image:
        frame = np.ascontiguousarray(frame, np.float32)
        return frame, limits(frame)

    def encode(self, placement: Placement, image: Image) -> Features:
        return self._network.encode(*image, _offset(placement))

    def labels(self, placement: Placement, frames: Sequence[Features], count: int) -> list[np.ndarray]:
        row, column = self._grid.corner(placement)
        found = []
        for box in self._network.decode(*frames, besides=[_offset(placement)])[:count]:
            labels = np.zeros(placement.shape, np.uint8)
            labels[:, row : row + box.shape[1], column : column + box.shape[2]] = box
            found.append(labels)
        return found

    def look(self, placement: Placement, image: Image) -> Sight:
        return self._segmenter.look(placement, self._segmenter.put(image[0]))

    def node_times(self, placement: Placement, image: Image) -> list[dict[str, Any]]:
        """Where a frame takes its time: [{part, kind of node, milliseconds}, ...]."""
        found = self._network.node_times(*image, _offset(placement), frames=self._segmenter.decoded, besides=[_offset(placement)])
        return [{"part": part, "kind": kind, "ms": spent} for part, kinds in zip(("encode", "decode"), found, strict=True) for kind, spent in kinds.items()]


def _offset(placement: Placement) -> np.ndarray:
    return np.array(placement.offset, np.int32)
