"""The smallest network that answers snippets, and a cine for it."""

import numpy as np

SMALL = dict(model="msu_net", crop=(2, 32, 32), width_multiplier=0.125, span=3)
CINE = np.random.default_rng(0).gamma(2, 100, (5, 3, 40, 50))
SPACING = (10.0, 1.7, 1.4)
