"""Whole cines as files, for those who upload them: the masks as NIfTI, the volumes as CSV, what follows from them as JSON."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ica_unet_jax.data import nifti, reading, saving
from ica_unet_jax.data.case import Cine
from ica_unet_jax.errors import BadData, UserError
from ica_unet_jax.inference import options, segmenters, turning, volumes
from ica_unet_jax.metrics import doubts
from ica_unet_jax.runs.trained import Trained, find

FLOAT = 4  # bytes of a voxel, as it is worked on
MASKS, VOLUMES, SUMMARY = "masks.nii.gz", "volumes.csv", "summary.json"
KEPT = 8  # geometries, as `Engine` has it


class TooLong(Exception):
    """The time for a cine is over, or nobody waits for it any more."""


class TooLarge(UserError):
    """A file whose header promises more than the limit."""


def check_size(path: Path, limit: int) -> None:
    """Raises UserError where a file's header promises more than `limit` bytes, before any is unpacked."""
    promised = nifti.promised(path, FLOAT)
    if promised is None:
        raise UserError("The upload is no NIfTI file, or its header cannot be true: send a .nii or .nii.gz, as it is, as the body of the request.")
    if promised > limit:
        raise TooLarge(f"The file's header promises {promised} bytes, at {FLOAT} a voxel, more than the {limit} of --limit_mb.")


class Cines:
    """Segments files with a trained network, one at a time.

    Args:
      network: as `trained.find` finds it.
      limit: bytes of a file, unpacked.
      like: a file as those that will come, for whose size all is made ready at once.
      given: options of `options.STREAM`; `runtime` is auto unless given.
    """

    def __init__(self, network: str | Path | Trained, limit: int, like: str | Path = "", **given: Any):
        chosen = options.choose(options.STREAM, options.REAL_TIME | given)
        self._trained = trained = find(network)
        self._doubt_limits = trained.doubt_limits
        self._segmenter, self._limit = segmenters.load_as(trained, chosen), limit
        self._codes = turning.codes_for(trained, self._segmenter.config.data, chosen)
        self._seen = dict(window=chosen.seen_through(self._segmenter.config.data), cyclic=self._segmenter.config.data.cyclic)
        self._grids: set[tuple] = set()
        if like:
            cine = turning.read(Path(like), self._codes)
            self._segment(dataclasses.replace(cine, frames=cine.frames[:1]), lambda time: None)

    def __call__(self, path: Path, patience: float, given_up: Callable[[], bool]) -> None:
        """Writes `MASKS`, `VOLUMES` and `SUMMARY` beside a NIfTI file.

        Raises:
          UserError: the file is none, or too large.
          TooLong: it took longer than `patience` seconds, or was given up.
        """
        end = time.monotonic() + patience

        def go_on(_: int) -> None:
            if given_up() or time.monotonic() > end:
                raise TooLong

        check_size(path, self._limit)
        seen = reading.examine_file(path, self._codes)
        if seen.problems:
            raise BadData(seen.problems)
        cine = seen.cine
        go_on(0)
        labels, unsure = self._segment(cine, go_on)
        curves, seconds = volumes.curves(labels, cine), volumes.frame_seconds(cine.header)
        saving.save_labels(path.with_name(MASKS), cine.turn.back(labels), cine.header)
        volumes.save_csv(path.with_name(VOLUMES), curves, seconds)
        odd = filter(None, (*seen.remarks, turning.remark(self._trained, [cine.case], self._codes)))
        summary = volumes.summarize(curves, seconds, nominal_spacing=False) | {
            "doubts": doubts.of_cine(labels, cine.spacing, unsure, self._doubt_limits),
            "volumes_ml": volumes.rounded(curves),
            "remarks": [remark.replace(str(path), "The file") for remark in odd],
        }
        path.with_name(SUMMARY).write_text(json.dumps(summary), encoding="utf-8")

    def _segment(self, cine: Cine, done: Callable[[int], None]) -> tuple[np.ndarray, list[float]]:
        """Labels (t, s, h, w) uint8, none of a frame that shows nothing, and how unsure the network is of each frame."""
        grid = cine.frames.shape[1:], cine.spacing
        if grid not in self._grids and len(self._grids) == KEPT:
            self._grids.clear()
            self._segmenter.forget_grids()
        self._grids.add(grid)
        unsure: list[float] = []
        labels = self._segmenter.segment_cine(cine.frames, cine.spacing, done=done, watch=self._segmenter.noting(unsure), **self._seen)
        labels[cine.empty] = 0
        return labels, np.where(cine.empty, 0, unsure).tolist()
