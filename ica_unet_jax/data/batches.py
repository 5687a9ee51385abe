"""Training batches, read from the cached cases; batch number `step` depends on the seed and the step alone."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ica_unet_jax.data.augmentation import Batch
from ica_unet_jax.data.geometry import fit_depth
from ica_unet_jax.data.learning_frame import LearningFrame


class Batches:
    """Every labelled frame once an epoch, in an order of its own each; random depth windows of long stacks.

    The last `unlabelled` rows of a batch are frames without ground truth, which have epochs of their own. With `rows` only
    these rows of each batch are read: the part of one of several processes.
    """

    def __init__(
        self, samples: list[LearningFrame], depth: int, batch_size: int, seed: int, rows: Sequence[int] | None = None,
        unlabelled: int = 0,
    ):  # fmt: skip
        self.depth, self.batch_size, self.seed = depth, batch_size, seed
        self.rows = range(batch_size) if rows is None else rows
        # Frames, how many of them a batch has, and the last part of their epochs' seeds.
        labelled, others = ([sample for sample in samples if sample.labelled is known] for known in (True, False))
        self.kinds = [(labelled, batch_size - unlabelled, 0), (others, unlabelled, 2)]
        self._order = functools.lru_cache(2)(self._shuffled)  # a million numbers, for each row of each batch

    def __getitem__(self, step: int) -> Batch:
        """Arrays on the canvas: frames (B, n, d, Hc, Wc) float32, labels uint8, valid float32."""
        chosen = [self._sample(samples, step * count + i, kind) for samples, count, kind in self.kinds for i in range(count)]
        rng = np.random.default_rng([self.seed, step, 1])
        starts = [int(rng.integers(max(0, sample.labels.shape[0] - self.depth) + 1)) for sample in chosen]
        parts = [self._window(chosen[row], starts[row]) for row in self.rows]
        return Batch(*(np.stack(arrays) for arrays in zip(*parts, strict=True)))

    def iterate(self, first: int, last: int) -> Iterator[Batch]:
        """Batches `first` to `last - 1`, the next one being read while the last is used."""
        with ThreadPoolExecutor(1) as reader:
            pending = reader.submit(self.__getitem__, first) if first < last else None
            for step in range(first, last):
                batch = pending.result()
                pending = reader.submit(self.__getitem__, step + 1) if step + 1 < last else None
                yield batch

    def _sample(self, samples: list[LearningFrame], position: int, kind: int) -> LearningFrame:
        epoch, place = divmod(position, len(samples))
        return samples[self._order(epoch, kind, len(samples))[place]]

    def _shuffled(self, epoch: int, kind: int, count: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch, kind]).permutation(count)

    def _window(self, sample: LearningFrame, start: int) -> Batch:
        fit = [fit_depth(np.asarray(x), self.depth, start) for x in (sample.frames, sample.labels, sample.valid)]
        return Batch(fit[0].astype(np.float32), fit[1], fit[2].astype(np.float32))
