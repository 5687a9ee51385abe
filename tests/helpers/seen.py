"""Answers of a stream that can be told apart, for those who look at it."""

import numpy as np

from ica_unet_jax.data.geometry import place
from ica_unet_jax.streaming.segmenter import Result

SPACING = (10.0, 1.5, 1.25)
SHAPE = (3, 24, 20)


def answer(number, shape=SHAPE, arrived=0.0):
    """A frame and its result; both depend on the number."""
    rng = np.random.default_rng(number)
    labels = rng.integers(0, 4, shape).astype(np.uint8)
    volumes = {"RV": 100.0 + number, "MYO": 90.0, "LV": 150.0 - number}
    return rng.normal(500, 100, shape), Result(number, labels, volumes, arrived, arrived + 0.02, 12.0, place(shape, SPACING, (4, 32, 32), 1.5))


def shown(feed, tally, *answers):
    """Shows them one after the other, as a stream does."""
    for frame, result in answers:
        tally.frames += 1
        tally.add(result)
        feed.show(tally, [(frame, result)], SPACING)
