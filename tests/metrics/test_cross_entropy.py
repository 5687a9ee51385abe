import numpy as np

from ica_unet_jax.metrics.cross_entropy import cross_entropy


def test_cross_entropy_against_fractions():
    logits = np.log(np.array([[1, 1, 1, 1], [1, 5, 1, 1]], np.float32))  # 1/4 each; 5/8 and three times 1/8
    labels = np.array([2, 1], np.uint8)
    np.testing.assert_allclose(cross_entropy(logits, labels), (np.log(4) + np.log(8 / 5)) / 2, rtol=1e-6)
