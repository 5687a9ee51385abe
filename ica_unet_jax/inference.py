"""A trained model as an object: native frames and cines in, labels on the native grid out."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ica_unet_jax import checkpoints, run_folder
from ica_unet_jax.config import Config
from ica_unet_jax.data.device_geometry import NativeGrid, Windows
from ica_unet_jax.data.geometry import Placement, place
from ica_unet_jax.errors import UserError
from ica_unet_jax.models import build_model, init_variables, same_shapes

Frames = Mapping[int, np.ndarray] | np.ndarray  # (s, h, w) by number
Triple = tuple[int, int, int]
Features = list[Any]  # what the model's `encode` gives, for each view


class Segmenter:
    """The compiled model of a configuration; each frame is encoded once, whatever its roles.

    From a native frame to native logits or labels everything is compiled: the network once, for a batch of one window;
    the way to the windows and back once for each native grid. `variables` are given at construction or, during
    training, replaced before a call; `step` is the step they are of.
    """

    def __init__(self, config: Config, variables=None, *, mirror: bool = False, step: int = 0):
        self.config, self.variables, self.mirror, self.step = config, variables, mirror, step
        self.traces = 0  # of the network so far; a test holds it down
        self._grids: dict[Placement, NativeGrid] = {}

    @functools.cached_property
    def functions(self) -> tuple[Callable, Callable]:
        """(encode, decode) of one window, to be traced.

        encode: variables, image (1, d, h, w, 1), its mask -> features.
        decode: variables, features of t-1, t and t+1, whether the model looks at them or not -> logits (1, d, h, w, 4).
        """
        model, offsets = build_model(self.config.model), self.config.model.frames

        def encode(variables, image, valid):
            self.traces += 1
            return model.apply(variables, image, valid, method=model.encode)

        def decode(variables, previous, current, following):
            self.traces += 1
            neighbours = {-1: previous, 1: following}
            before, after = (neighbours[offset] if offset in offsets else None for offset in (-1, 1))
            logits, _ = model.apply(variables, before, current, after, method=model.decode)
            return logits[-1]

        return encode, decode

    @functools.cached_property
    def _network(self) -> tuple[Callable, Callable]:
        """The same, compiled."""
        encode, decode = map(jax.jit, self.functions)
        variables = jax.eval_shape(lambda key: init_variables(self.config.model, key), jax.random.key(0))
        image = jax.ShapeDtypeStruct((1, *self.config.model.crop, 1), jnp.float32)
        encoder = encode.lower(variables, image, image)
        return encoder.compile(), decode.lower(variables, *[encoder.out_info] * 3).compile()

    def place(self, shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> Placement:
        """The windows of this model's grid on a native volume (s, h, w) with spacing (dz, dy, dx) in mm."""
        return place(shape, spacing, self.config.model.crop, self.config.data.spacing)

    def grid(self, placement: Placement) -> NativeGrid:
        """The compiled way from a native grid to the windows and back; made once for each."""
        if placement not in self._grids:
            self._grids[placement] = NativeGrid(placement, mirror=self.mirror)
        return self._grids[placement]

    def encode(self, grid: NativeGrid, frame: np.ndarray) -> Features:
        """The features of one native frame (s, h, w): all that it is needed for, as neighbour too."""
        encode, _ = self._network
        # Put there by name, so that nothing else crosses to the device unseen.
        images = grid.windows(jax.device_put(np.asarray(frame, np.float32)))
        return [encode(self.variables, image, valid) for image, valid in zip(images, grid.valid, strict=True)]

    def decode(self, previous: Features, current: Features, following: Features) -> Windows:
        """The logits (1, d, H, W, 4) of each window of the frame with features `current`, on the device."""
        _, decode = self._network
        return tuple(decode(self.variables, *views) for views in zip(previous, current, following, strict=True))

    def logits(self, frames: Frames, placement: Placement, times: Iterable[Triple]) -> Iterator[np.ndarray]:
        """Native logits (s, h, w, 4), one after the other, for each (t-1, t, t+1) of `times`, keys of `frames`.

        A long stack is seen through several depth windows and averaged; with `mirror` each window twice.
        """
        for windows in self._decoded(frames, placement, times):
            yield np.asarray(self.grid(placement).logits(windows))

    def labels(self, frames: Frames, placement: Placement, times: Iterable[Triple]) -> Iterator[np.ndarray]:
        """The classes (s, h, w) uint8 of the largest of these logits."""
        for windows in self._decoded(frames, placement, times):
            yield np.asarray(self.grid(placement).labels(windows))

    def _decoded(self, frames: Frames, placement: Placement, times: Iterable[Triple]) -> Iterator[Windows]:
        grid, known = self.grid(placement), {}
        used = {-1, 0, 1} & {0, *self.config.model.frames}
        for triple in times:
            # A neighbour that the model does not look at is replaced by the frame itself: it is not encoded.
            triple = [triple[1 + offset] if offset in used else triple[1] for offset in (-1, 0, 1)]
            known = {t: known.get(t) or self.encode(grid, frames[t]) for t in set(triple)}
            yield self.decode(*(known[t] for t in triple))

    def segment_frame(self, frame: np.ndarray, spacing, previous: np.ndarray | None = None, following: np.ndarray | None = None) -> np.ndarray:
        """Labels (s, h, w) uint8 of one native frame; a missing neighbour is the frame itself."""
        frames = np.stack([frame if previous is None else previous, frame, frame if following is None else following])
        return next(self.labels(frames, self.place(frame.shape, spacing), [(0, 1, 2)]))

    def segment_cine(self, frames: np.ndarray, spacing, *, cyclic: bool = False, done: Callable[[int], None] = lambda t: None) -> np.ndarray:
        """Labels (t, s, h, w) uint8 of a native cine; `done(t)` is called after each frame."""
        count = len(frames)
        placement = self.place(frames.shape[1:], spacing)
        times = [(t - 1, t, t + 1) for t in range(count)]
        times = [tuple(t % count if cyclic else min(max(t, 0), count - 1) for t in triple) for triple in times]
        labels = np.empty(frames.shape, np.uint8)
        for t, found in enumerate(self.labels(frames, placement, times)):
            labels[t] = found
            done(t)
        return labels


def load(run_dir: str | Path, which: str = "latest", *, mirror: bool = False) -> Segmenter:
    """The trained model of a run folder, with its latest or best checkpoint.

    Raises:
      UserError: the folder is no run folder, holds no checkpoint, or never saw a mirrored heart that `mirror` shows it.
    """
    config = run_folder.read_config(run_dir)
    if mirror and not config.data.flip:
        raise UserError(f"--mirror needs a network that was trained with --flip, as {run_dir} was not: leave it out.")
    state = checkpoints.restore(run_dir, which)
    expected = jax.eval_shape(lambda key: init_variables(config.model, key), jax.random.key(0))
    if not same_shapes(expected, state.variables):
        raise UserError(f"{run_dir} was trained by another version of this package: its checkpoint does not fit the network.")
    return Segmenter(config, jax.device_put(state.variables), mirror=mirror, step=int(state.step))
