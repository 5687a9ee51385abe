"""What is timed has all the work of a trained network."""

import jax
import numpy as np
from tiny import SMALL

from ica_unet_jax.benchmarking import values
from ica_unet_jax.config import Config


def test_norms_do_something():
    found, again = (jax.device_get(values.untrained(Config.make(**SMALL))) for _ in range(2))
    norms = [x for path, x in jax.tree_util.tree_leaves_with_path(found) if path[-1].key in values.NORMS]
    assert len(norms) > 20 and all(((x != 0) & (x != 1)).all() for x in norms)
    jax.tree.map(np.testing.assert_array_equal, found, again)
