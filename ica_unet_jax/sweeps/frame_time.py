"""How long a trained network takes for one frame of a stream."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np

from ica_unet_jax.benchmarking.measuring import SLICE_MM, time_answers
from ica_unet_jax.inference import segmenters
from ica_unet_jax.streaming.segmenter import StreamingSegmenter

STREAMED = 2.0  # seconds of frames


def frame_ms(folder: Path) -> float:
    """Milliseconds of a frame of the model's grid that a run's network sees in a stream, the median."""
    segmenter = segmenters.load(folder)
    config, answered = segmenter.config, segmenter.config.model.answered
    frames = np.random.default_rng(0).gamma(2, 100, (3, *config.model.crop)).astype(np.float32)
    spacing = (SLICE_MM, config.data.spacing, config.data.spacing)
    stream = StreamingSegmenter(segmenter, config.model.crop, spacing)
    frame, _ = time_answers(stream, itertools.cycle(frames), answered, STREAMED)
    return float(np.median(frame))
