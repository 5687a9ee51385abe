"""A trained model as an object: native frames and cines in, labels on the native grid out."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ica_unet_jax.config import Config
from ica_unet_jax.data.geometry import Placement, place
from ica_unet_jax.errors import UserError
from ica_unet_jax.inference import roi, way
from ica_unet_jax.inference.native_grid import NativeGrid, Views, Windows
from ica_unet_jax.inference.options import LOAD, Options, choose
from ica_unet_jax.inference.roi import Sight, Window
from ica_unet_jax.inference.way import Features, Way
from ica_unet_jax.models.networks import build_model, init_variables
from ica_unet_jax.portable import runtimes
from ica_unet_jax.portable.runtimes import AUTO, JAX
from ica_unet_jax.runs.trained import Trained, find
from ica_unet_jax.runtime import compilation

if TYPE_CHECKING:
    from ica_unet_jax.portable.network import Network

Frames = Mapping[int, np.ndarray] | np.ndarray  # (s, h, w) by number
Watch = Callable[[Placement, Windows], None]  # called with the logits of each frame, and where they were seen, before they become labels
Times = tuple[int, ...]  # a frame between its neighbours: t - reach ... t ... t + reach, three for most networks
LIKELY = 0.1  # probability of heart from which a voxel counts in `unsure`


class Segmenter:
    """The compiled model of a configuration; each frame is encoded once, whatever its roles.

    From a native frame to native logits or labels everything is compiled: the network once, for a batch of one window (a
    stream of deep stacks compiles it for these); the way to the windows and back once for each native grid, wherever the
    windows lie in it. `variables` are given at construction or, during training, replaced before a call; `step` is the step
    they are of. The network is computed by `runtime`, one of `runtimes.RUNTIMES` but auto; all but JAX keep the variables that
    it had when it was first asked.
    """

    position = 0  # of the answer that is read, among those of one run of the network

    def __init__(self, config: Config, variables=None, *, mirror: bool = False, step: int = 0, runtime: str = JAX):
        self.config, self.variables, self.mirror, self.step, self.runtime = config, variables, mirror, step, runtime
        self.traces = 0  # of the network so far; a test holds it down
        self._grids: dict[tuple[Placement, bool], NativeGrid] = {}

    @property
    def decoded(self) -> int:
        """Frames whose features one run of the network takes: those within its reach of frame t, in the order of time."""
        return 2 * self.config.model.reach + 1

    @property
    def first(self) -> int:
        """Of these, the first that the run answers."""
        return self.config.model.reach

    @property
    def functions(self) -> tuple[Callable, Callable]:
        """(encode, decode) of one window, to be traced.

        encode: variables, image (1, d, h, w, 1), its mask -> features.
        decode: variables, features of `decoded` frames -> logits (1, d, h, w, 4) of each that they answer, a tuple: of t
          alone, whichever of the others the model looks at.
        """
        return self._functions(build_model(self.config.model))

    def _functions(self, model: nn.Module) -> tuple[Callable, Callable]:
        reach, offsets = self.config.model.reach, self.config.model.frames

        def encode(variables, image, valid):
            self.traces += 1
            return model.apply(variables, image, valid, method=model.encode)

        def decode(variables, *features):
            self.traces += 1
            neighbours = {offset: features[reach + offset] for offset in offsets}
            logits, _ = model.apply(variables, neighbours, features[reach], method=model.decode)
            return (logits[-1],)

        return encode, decode

    @functools.cached_property
    def _network(self) -> tuple[Callable, Callable]:
        """The same, compiled."""
        if self.runtime != JAX:
            network = self._elsewhere
            return (lambda _, *view: network.encode(*view)), (lambda _, *features: network.decode(*features))
        variables = jax.eval_shape(lambda key: init_variables(self.config.model, key), jax.random.key(0))
        image = jax.ShapeDtypeStruct((1, *self.config.model.crop, 1), jnp.float32)
        encode, decode = map(jax.jit, self.functions)
        encoder, options = encode.lower(variables, image, image), compilation.one_window_options()
        return encoder.compile(options), decode.lower(variables, *[encoder.out_info] * self.decoded).compile(options)

    @functools.cached_property
    def _elsewhere(self) -> Network:
        """The network as another runtime computes it."""
        from ica_unet_jax.portable import network  # needs onnx

        window = jax.ShapeDtypeStruct((1, *self.config.model.crop, 1), jnp.float32)
        functions = (functools.partial(function, self.variables) for function in self._functions(self._exact))
        graphs = network.graphs(*functions, [window, window], self.decoded)
        return network.Network(graphs, self.runtime, self.config.model.compute_dtype)

    @property
    def _exact(self) -> nn.Module:
        """The network in float32, for other runtimes."""
        return build_model(dataclasses.replace(self.config.model, compute_dtype="float32"))

    def stack_functions(self, placement: Placement, *, exact: bool = False) -> tuple[NativeGrid, Callable, Callable]:
        """(grid, encode, decode) of native frames, to be traced: of a deep stack all is done once that the network can.

        encode: variables, an image that the grid shows, its mask -> features.
        decode: variables, for each of `decoded` frames a list of features, one for each of these images -> for each frame that
          they answer the logits (1, d, H, W, 4) of the grid's views.

        Args:
          exact: in float32, whatever the network computes in.
        """
        model = self._exact if exact else build_model(self.config.model)
        grid, (encode, decode_window) = self.grid(placement, whole=self.config.model.takes_stacks), self._functions(model)
        reach, offsets = self.config.model.reach, self.config.model.frames

        def decode(variables, *frames: Features) -> tuple[Windows, ...]:
            images = list(zip(*frames, strict=True))
            if not grid.whole:
                return tuple(zip(*(decode_window(variables, *features) for features in images), strict=True))
            self.traces += 1
            stacks = []
            for features in images:
                neighbours = {offset: features[reach + offset] for offset in offsets}
                stacks.append(model.apply(variables, neighbours, features[reach], placement.windows, method=model.decode_stack))
            return (tuple(logits for windows in zip(*stacks, strict=True) for logits in windows),)  # a window, and its mirror images

        return grid, encode, decode

    def straight_in_jax(self) -> Segmenter:
        """The same network in JAX, on each window as it is, not mirrored; what is compiled of it there is shared."""
        if self.runtime == JAX and not self.mirror:
            return self
        twin = type(self)(self.config, self.variables, step=self.step)
        if self.runtime == JAX:
            twin._network = self._network
        return twin

    def place(self, shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> Placement:
        """The windows of this model's grid on a native volume (s, h, w) with spacing (dz, dy, dx) in mm."""
        return place(shape, spacing, self.config.model.crop, self.config.data.spacing)

    def grid(self, placement: Placement, *, whole: bool = False) -> NativeGrid:
        """The compiled way from a native grid to the windows and back; made once for all offsets of the windows.

        `whole`: a deep stack is shown at once, for a network that takes stacks.
        """
        grid, whole = placement.at(0, 0), whole and len(placement.windows) > 1
        if (grid, whole) not in self._grids:
            self._grids[grid, whole] = NativeGrid(grid, mirror=self.mirror, whole=whole)
        return self._grids[grid, whole]

    def forget_grids(self) -> None:
        """Lets go of what was made for native grids, for whoever meets grids without end; it is made anew where it is needed."""
        self._grids.clear()

    def way(self, placement: Placement) -> Way:
        """From a native frame on the host to native labels on the host, in a stream on this native grid; made, and compiled, anew."""
        if self.runtime != JAX:
            return way.Elsewhere(self, placement)
        deep = self.grid(placement, whole=self.config.model.takes_stacks).whole
        return way.StacksInJax(self, placement) if deep else way.InJax(self)

    def put(self, frame: np.ndarray) -> jax.Array:
        """A native frame (s, h, w) on the device, float32. By name, so that nothing else crosses unseen."""
        return jax.device_put(np.asarray(frame, np.float32))

    def views(self, placement: Placement, frame: jax.Array) -> Views:
        """What the network sees of a native frame (s, h, w) on the device: a normalized image and its mask for each view."""
        grid = self.grid(placement)
        return grid.windows(frame, grid.offset(placement))

    def encode(self, placement: Placement, frame: jax.Array) -> Features:
        """The features of one native frame (s, h, w) on the device: all that it is needed for, as neighbour too."""
        encode, _ = self._network
        return [encode(self.variables, *view) for view in self.views(placement, frame)]

    def decode(self, *frames: Features) -> list[Windows]:
        """The logits (1, d, H, W, 4) of each window, on the device, of each frame that `decoded` frames answer.

        With most networks [that of t] of the features of t-1, t and t+1.
        """
        _, decode = self._network
        answers = [decode(self.variables, *views) for views in zip(*frames, strict=True)]
        return list(zip(*answers, strict=True))

    def to_labels(self, placement: Placement, windows: Windows) -> jax.Array:
        """The class of the largest of these logits on the native grid, (s, h, w) uint8, on the device."""
        grid = self.grid(placement)
        return grid.labels(windows, grid.offset(placement))

    def to_logits(self, placement: Placement, windows: Windows) -> jax.Array:
        """These logits on the native grid, (s, h, w, 4), on the device."""
        grid = self.grid(placement)
        return grid.logits(windows, grid.offset(placement))

    def unsure(self, placement: Placement, windows: Windows) -> float:
        """The mean entropy, in nats, of the native voxels that are heart with a probability of at least `LIKELY`, by these logits; 0 where there are none."""
        return float(_entropy(self.to_logits(placement, windows)))

    def noting(self, unsure: list[float]) -> Watch:
        """A `watch` that appends how unsure the network is of each frame."""
        return lambda placement, windows: unsure.append(self.unsure(placement, windows))

    def look(self, placement: Placement, frame: jax.Array) -> Sight:
        """What is seen of a frame on the device, its own neighbour, through the window of a placement."""
        return self.sight(placement, self.decode(*[self.encode(placement, frame)] * self.decoded)[0])

    def sight(self, placement: Placement, windows: Windows) -> Sight:
        """What these logits show."""
        labels, unsure = jax.device_get((self.to_labels(placement, windows), _entropy(self.to_logits(placement, windows))))
        return Sight(labels, float(unsure))

    def logits(self, frames: Frames, placement: Placement, times: Iterable[Times]) -> Iterator[np.ndarray]:
        """Native logits (s, h, w, 4), one after the other, for the middle one of each of `times`, keys of `frames`.

        A long stack is seen through several depth windows and averaged; with `mirror` each window four times.
        """
        for _, windows in self._read(frames, Window(placement), times):
            yield np.asarray(self.to_logits(placement, windows))

    def labels(self, frames: Frames, window: Window, times: Iterable[Times], watch: Watch | None = None) -> Iterator[tuple[np.ndarray, Placement]]:
        """The classes (s, h, w) uint8 of the largest of these logits, and through which placement they were seen."""
        for placement, windows in self._read(frames, window, times):
            if watch:
                watch(placement, windows)
            labels = np.asarray(self.to_labels(placement, windows))
            window.saw(labels)
            yield labels, placement

    def _read(self, frames: Frames, window: Window, times: Iterable[Times]) -> Iterator[tuple[Placement, Windows]]:
        """The answer at `position` for each of `times`."""
        for placement, answers in self._decoded(frames, window, map(self.group, times)):
            yield placement, answers[self.position]

    def group(self, times: Times) -> Times:
        """The frames to be decoded together; one that the model does not look at is replaced by t: it is not encoded."""
        reach, used = self.config.model.reach, self.config.model.frames
        return tuple(times[reach + (offset if offset in used else 0)] for offset in range(-reach, reach + 1))

    def _decoded(self, frames: Frames, window: Window, groups: Iterable[Times]) -> Iterator[tuple[Placement, list[Windows]]]:
        """All that each group of frames answers, seen through the window as it lies when the group's turn comes."""
        known, seen_at = {}, None
        for group in groups:
            if window.lost:
                frame = self.put(frames[group[self.first]])
                window.search(lambda placement, frame=frame: self.look(placement, frame))
            if window.placement != seen_at:  # features of another window have nothing to say here
                known, seen_at = {}, window.placement
            known = {t: known.get(t) or self.encode(seen_at, self.put(frames[t])) for t in set(group)}
            yield seen_at, self.decode(*(known[t] for t in group))

    def segment(self, cine: np.ndarray, spacing) -> np.ndarray:
        """Labels uint8 of a native cine (t, s, h, w), or of one frame (s, h, w), as the network was trained to see them.

        `spacing` is (dz, dy, dx) in mm; 1 is the RV cavity, 2 the myocardium, 3 the LV cavity.
        """
        if np.ndim(cine) == 3:
            return self.segment(cine[None], spacing)[0]
        return self.segment_cine(cine, spacing, window=self.config.data.window, cyclic=self.config.data.cyclic)

    def segment_frame(self, frame: np.ndarray, spacing, previous: np.ndarray | None = None, following: np.ndarray | None = None) -> np.ndarray:
        """Labels (s, h, w) uint8 of one native frame; a missing neighbour is the frame itself."""
        frames = np.stack([frame if previous is None else previous, frame, frame if following is None else following])
        reach, window = self.config.model.reach, Window(self.place(frame.shape, spacing))
        labels, _ = next(self.labels(frames, window, [(0,) * reach + (1,) + (2,) * reach]))
        return labels

    def segment_cine(
        self, frames: np.ndarray, spacing, *, window: str = "centre", cyclic: bool = False,
        done: Callable[[int], None] = lambda t: None, watch: Watch | None = None,
    ) -> np.ndarray:  # fmt: skip
        """Labels (t, s, h, w) uint8 of a native cine; `window` is one of `options.WINDOWS`; `done(t)` is called after each frame."""
        count, answered = len(frames), self.config.model.answered
        through = roi.open_window(window, self.place(frames.shape[1:], spacing))
        firsts = range(0, count, answered)
        groups = [self._around(first) for first in firsts]
        groups = [tuple(t % count if cyclic else min(max(t, 0), count - 1) for t in group) for group in groups]
        labels = np.empty(frames.shape, np.uint8)
        for first, (placement, answers) in zip(firsts, self._decoded(frames, through, groups), strict=True):
            for t, windows in zip(range(first, count), answers, strict=False):  # of the last snippet what the cine has
                if watch:
                    watch(placement, windows)
                labels[t] = np.asarray(self.to_labels(placement, windows))
                through.saw(labels[t])
                done(t)
        return labels

    def _around(self, first: int) -> Times:
        """The frames, beyond the cine's ends perhaps, whose run answers frame `first` and, in snippets, those after it."""
        reach = self.config.model.reach
        return self.group(tuple(range(first - reach, first + reach + 1)))


class SnippetSegmenter(Segmenter):
    """For a network that answers a snippet of frames at once (MSU-Net).

    Whole cines are cut into snippets; the last is filled up with its last frame. Where single frames are asked for, each
    is seen at `position` of a snippet of its own, 0 to span - 1; by default in the middle.
    """

    def __init__(self, config: Config, variables=None, *, mirror: bool = False, step: int = 0, runtime: str = JAX):
        super().__init__(config, variables, mirror=mirror, step=step, runtime=runtime)
        self.position = config.model.span // 2

    @property
    def decoded(self) -> int:
        return self.config.model.span

    @property
    def first(self) -> int:
        return 0

    def _functions(self, model: nn.Module) -> tuple[Callable, Callable]:
        encode, _ = super()._functions(model)

        def decode(variables, *snippet):
            self.traces += 1
            return tuple(model.apply(variables, list(snippet), method=model.decode_snippet))

        return encode, decode

    def group(self, times: Times) -> Times:
        start = self.decoded - 1 - self.position
        return tuple(times[start : start + self.decoded])

    def _around(self, first: int) -> Times:
        return tuple(range(first, first + self.decoded))


@jax.jit
def _entropy(logits: jax.Array) -> jax.Array:
    log_chances = jax.nn.log_softmax(logits)
    chances = jnp.exp(log_chances)
    entropy = -(chances * log_chances).sum(-1)
    heart = (1 - chances[..., 0] >= LIKELY).astype(jnp.float32)
    return (entropy * heart).sum() / jnp.maximum(heart.sum(), 1)


def segmenter_of(config: Config, variables=None, **options: Any) -> Segmenter:
    """The segmenter for the network of a configuration; keywords as `Segmenter` has them."""
    kind = SnippetSegmenter if config.model.answered > 1 else Segmenter
    return kind(config, variables, **options)


def load(network: str | Path | Trained, **options: Any) -> Segmenter:
    """A trained model, as `trained.find` finds it; see `segmenter_of`. Keywords: `options.LOAD`, as in `load("RUN", runtime="openvino")`.

    Raises:
      UserError: there is no such network, it holds no checkpoint, or never saw a mirrored heart that `mirror` shows it; the
        runtime cannot be taken here.
    """
    return load_as(network, choose(LOAD, options))


def load_as(network: str | Path | Trained, chosen: Options) -> Segmenter:
    """`load`, of what was chosen for another function."""
    trained = find(network)
    config = trained.config
    if chosen.mirror and not config.data.flip:
        raise UserError(f"--mirror needs a network that was trained with --flip, as {trained.name} was not: leave it out.")
    config = config.replace(compute_dtype=chosen.compute_dtype or config.model.compute_dtype)
    runtime = runtimes.choose(chosen.runtime, config.model.compute_dtype)
    if chosen.runtime == AUTO and not config.model.portable:
        runtime = JAX
    variables, step = trained.variables(chosen.checkpoint)
    return segmenter_of(config, jax.device_put(variables), mirror=chosen.mirror, step=step, runtime=runtime)
