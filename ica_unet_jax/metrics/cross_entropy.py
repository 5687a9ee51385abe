"""Cross-entropy of logits against labels."""

import numpy as np
from scipy.special import logsumexp


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean over voxels, in nats, of logits (n, classes) and labels (n,)."""
    chosen = np.take_along_axis(logits, labels[:, None].astype(np.intp), axis=1)[:, 0]
    return float(np.mean(logsumexp(logits, axis=1) - chosen))
