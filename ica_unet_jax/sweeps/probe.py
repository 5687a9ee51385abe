"""How long the parts of a cell take on this machine, each measured a few times: reading, steps, validation, judging, saving.

Runs in a process of its own, with the share of the machine that a cell has; see `cost.py`.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ica_unet_jax.benchmarking.values import untrained
from ica_unet_jax.config import Config
from ica_unet_jax.data.batches import Batches
from ica_unet_jax.data.case import Cine
from ica_unet_jax.data.learning_frame import LearningFrame
from ica_unet_jax.data.reading import read
from ica_unet_jax.evaluation import decomposition
from ica_unet_jax.evaluation.frames import segment
from ica_unet_jax.inference.segmenters import Segmenter, segmenter_of
from ica_unet_jax.metrics import cases
from ica_unet_jax.models.networks import method
from ica_unet_jax.runs.checkpoints import Checkpoints, State
from ica_unet_jax.runs.run_folder import Split
from ica_unet_jax.runtime import processes
from ica_unet_jax.sweeps.frame_time import STREAMED
from ica_unet_jax.training import distillation, loop, stepping
from ica_unet_jax.training.validation import Validation

STEPS = 6  # timed, after the one that compiles
LOADING = 0.03  # seconds to load what took one to compile
_COMPILED = "/jax/core/compile/backend_compile_duration"
_SAVED = "/jax/compilation_cache/compile_time_saved_sec"


@dataclasses.dataclass(frozen=True)
class Parts:
    """Seconds of the parts of a cell of one network on one grid."""

    reading: float  # of the cohort
    first_step: float  # with all that comes before it, where its programs are in the cache of compiled ones
    compiling: float  # on top, where they are not
    step: float
    saving: float  # of a checkpoint
    grid: float  # what each native grid costs once
    network: float  # loading the compiled network
    validated: float  # a labelled frame, in training
    judged: float  # a labelled frame, at the end
    read: float  # a patient
    bases: float  # a labelled frame's bases; 0 without any
    frames: int  # labelled ones that validate
    patients: int
    grids: int  # native ones among them
    start: float = 0.0  # of the process, told by its parent

    def seconds(self, config: Config, *, compiled: bool) -> float:
        """What a whole cell of this network takes; `compiled`: its training step is in the cache."""
        train = config.train
        judgements = -(-train.steps // train.evaluate_every)
        seconds = self.start + self.reading + self.first_step + train.steps * self.step
        seconds += 0.0 if compiled else self.compiling
        seconds += judgements * (self.frames * self.validated + self.saving)
        # Validation, evaluation and stream have networks of their own; the first two see every native grid.
        seconds += 3 * self.network + 2 * self.grids * self.grid + self.patients * self.read
        return seconds + self.frames * (self.judged + self.bases) + STREAMED


def measure(config: Config) -> Parts:
    """Measures them now; fills the caches of data and of compiled programs on the way."""
    loop.load(config)  # fills the cache of preprocessed frames
    (samples, cines, split, _), reading = timed(lambda: loop.load(config))
    with Compiling() as stepping:
        calls = steps(config, samples, split)
        _, first = timed(lambda: next(calls))
    spans = [timed(lambda: next(calls))[1] for _ in range(STEPS)]
    state = next(calls)
    with tempfile.TemporaryDirectory() as folder, Checkpoints(Path(folder)) as saved:
        _, saving = timed(lambda: saved.save(state, 0.5))
    # The cine that is timed lies on another native grid than the one that compiles the network.
    one = cines[0]
    other = next((cine for cine in cines[1:] if grid(cine) != grid(one)), one)
    validation = Validation([one], segmenter_of(config))
    with Compiling() as judged:
        _, opened = timed(lambda: validation(state))
    _, again = timed(lambda: validation(state))
    validation.cines = [other]
    _, new = timed(lambda: validation(state))
    _, old = timed(lambda: validation(state))
    segment(validation.segmenter, other, sorted(other.labels))  # searches for the heart, where the network's window follows that
    _, segmenting = timed(lambda: segment(validation.segmenter, other, sorted(other.labels)))
    return Parts(
        reading=reading,
        first_step=stepping.warm(first),
        step=float(np.median(spans)),
        compiling=stepping.extra,
        saving=saving,
        grid=max(0.0, new - old),
        network=max(0.0, judged.warm(opened) - again),
        validated=old / len(other.labels),
        judged=config.model.answered * (segmenting / len(other.labels) + scoring(other)),
        read=timed(lambda: read(other.case, config.data.label_map))[1],
        bases=of_bases(validation.segmenter, other) if config.model.has_bases else 0.0,
        frames=sum(len(cine.labels) for cine in cines),
        patients=len(cines),
        grids=len({grid(cine) for cine in cines}),
    )


def steps(config: Config, samples: list[LearningFrame], split: Split) -> Iterator[State]:
    """The states after the first steps of a training, waited for; what comes before is done when the first is asked for."""
    devices, train = processes.Devices(config.train), config.train
    teacher = distillation.given_teacher(config, split)
    if own := distillation.own_teacher(config):
        teacher = untrained(own)
    teacher = devices.replicate(teacher) if teacher else None
    state, step = stepping.init_state(config), stepping.make_step(config)
    labelled, prepare = [sample for sample in samples if sample.labelled], method(config.model.model).prepare
    state = devices.replicate(state.replace(batch_stats=prepare(state.batch_stats, labelled, config.model.crop)))
    batches = Batches(samples, config.model.crop[0], train.batch_size, train.seed, devices.rows, train.unlabelled)
    for batch in batches.iterate(0, 2 + STEPS):
        state, _ = step(state, devices.divide(batch), teacher)
        yield jax.block_until_ready(state)


def scoring(cine: Cine) -> float:
    """Seconds of the figures of a frame, of a prediction that is a little off, as a trained network's is."""
    truth = next(iter(cine.labels.values()))
    return timed(lambda: cases.case_metrics(np.roll(truth, 1, axis=-1), truth, cine.spacing))[1]


def of_bases(segmenter: Segmenter, cine: Cine) -> float:
    """Seconds of the figures of a frame's bases."""
    decompose = decomposition.Decomposer(segmenter)

    def rows() -> None:
        for windows in decompose(cine):
            decomposition.row_of(windows)

    rows()  # compiles
    return timed(rows)[1] / len(cine.labels)


def grid(cine: Cine) -> tuple:
    """What the way to the windows and back is compiled for."""
    return cine.frames.shape[1:], tuple(cine.spacing)


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What it returns, waited for, and its seconds."""
    began = time.perf_counter()
    value = call()
    jax.block_until_ready(value)
    return value, time.perf_counter() - began


class Compiling:
    """`with Compiling() as c: ...`: how long the compilations in the block took, and would have taken.

    JAX keeps with what is in its cache how long it took to compile, so both are known whether or not it was there.
    """

    def __enter__(self) -> Compiling:
        self.observed = self.cached = self.cold = self._saved = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._heard)
        return self

    def __exit__(self, *_) -> None:
        jax.monitoring.unregister_event_duration_listener(self._heard)

    def _heard(self, event: str, seconds: float, **_: Any) -> None:
        if event == _SAVED:  # comes before the other
            self._saved = seconds
        elif event == _COMPILED:
            whole = seconds + self._saved
            kept = whole >= jax.config.jax_persistent_cache_min_compile_time_secs
            self.observed += seconds
            self.cold += whole
            self.cached += (seconds if self._saved else LOADING * seconds) if kept else seconds
            self._saved = 0.0

    def warm(self, seconds: float) -> float:
        """What took `seconds` in the block, where all that is ever cached is in the cache."""
        return max(0.0, seconds - self.observed + self.cached)

    @property
    def extra(self) -> float:
        """Seconds more where it is not."""
        return self.cold - self.cached
