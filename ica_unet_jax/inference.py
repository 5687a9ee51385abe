"""A trained model as an object: native frames and cines in, labels on the native grid out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ica_unet_jax import checkpoints, run_folder
from ica_unet_jax.config import NUM_CLASSES, Config
from ica_unet_jax.data.geometry import Placement, argmax_labels, normalize, place
from ica_unet_jax.errors import UserError
from ica_unet_jax.models import build_model, init_variables, same_shapes


class Segmenter:
    """The compiled model of a configuration; each frame is encoded once, whatever its roles.

    `variables` are given at construction or, during training, replaced before a call; `step` is the step they are of.
    """

    def __init__(self, config: Config, variables=None, *, mirror: bool = False, step: int = 0):
        self.config, self.variables, self.mirror, self.step = config, variables, mirror, step
        self.traces = 0  # compilations so far; a test holds it down
        model = build_model(config.model)

        def encode(variables, frame, valid):
            self.traces += 1
            return model.apply(variables, frame, valid, method=model.encode)

        def decode(variables, previous, current, following):
            self.traces += 1
            logits, _ = model.apply(variables, previous, current, following, method=model.decode)
            return logits[-1]

        self._encode, self._decode = jax.jit(encode), jax.jit(decode)

    def place(self, shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> Placement:
        """The windows of this model's grid on a native volume (s, h, w) with spacing (dz, dy, dx) in mm."""
        return place(shape, spacing, self.config.model.crop, self.config.data.spacing)

    def logits(
        self, frames: Mapping[int, np.ndarray] | np.ndarray, placement: Placement, times: Iterable[tuple[int, int, int]]
    ) -> Iterator[np.ndarray]:
        """Native logits (s, h, w, 4), one after the other, for each (t-1, t, t+1) of `times`, keys of `frames`.

        A long stack is seen through several depth windows and averaged; with `mirror` each window twice.
        """
        offsets = self.config.model.frames
        mirrors = [(), (2,)] if self.mirror else [()]  # left-right, as --flip trains
        # A batch of one, view after view: a single compilation whatever the number of slices.
        views = [(window, axes) for window in range(len(placement.windows)) for axes in mirrors]
        valid = [_to_batch(np.flip(placement.valid[window], axes)) for window, axes in views]

        def features(t: int):
            image = placement.forward(normalize(frames[t]))
            parts = zip(views, valid, strict=True)
            return [self._encode(self.variables, _to_batch(np.flip(image[i], axes)), mask) for (i, axes), mask in parts]

        known: dict[int, list] = {}
        for previous, current, following in times:
            used = {0: current} | {i: {-1: previous, 1: following}[i] for i in offsets}
            known = {t: known.get(t) or features(t) for t in set(used.values())}
            windows = np.zeros((*placement.valid.shape, NUM_CLASSES), np.float32)
            for view, (window, axes) in enumerate(views):
                parts = {i: known[t][view] for i, t in used.items()}
                y = self._decode(self.variables, parts.get(-1), parts[0], parts.get(1))
                windows[window] += np.flip(np.asarray(y[0]), axes) / len(mirrors)
            yield placement.backward(windows)

    def segment_frame(self, frame: np.ndarray, spacing, previous: np.ndarray | None = None, following: np.ndarray | None = None) -> np.ndarray:
        """Labels (s, h, w) uint8 of one native frame; a missing neighbour is the frame itself."""
        frames = np.stack([frame if previous is None else previous, frame, frame if following is None else following])
        return argmax_labels(next(self.logits(frames, self.place(frame.shape, spacing), [(0, 1, 2)])))

    def segment_cine(self, frames: np.ndarray, spacing, *, cyclic: bool = False, done: Callable[[int], None] = lambda t: None) -> np.ndarray:
        """Labels (t, s, h, w) uint8 of a native cine; `done(t)` is called after each frame."""
        count = len(frames)
        placement = self.place(frames.shape[1:], spacing)
        times = [(t - 1, t, t + 1) for t in range(count)]
        times = [tuple(t % count if cyclic else min(max(t, 0), count - 1) for t in triple) for triple in times]
        labels = np.empty(frames.shape, np.uint8)
        for t, logits in enumerate(self.logits(frames, placement, times)):
            labels[t] = argmax_labels(logits)
            done(t)
        return labels


def _to_batch(volume: np.ndarray) -> jax.Array:
    """(d, h, w) -> (1, d, h, w, 1) float32 on the device."""
    return jnp.asarray(volume[None, ..., None], jnp.float32)


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
