import numpy as np

from ica_unet_jax.inference.postprocessing import largest_components


def test_largest_component():
    labels = np.zeros((2, 6, 6), np.uint8)
    labels[:, :3, :3] = 1
    labels[0, 1, 1] = 3
    labels[1, 5, 5] = 1
    labels[0, 4, 4:] = 3
    kept = labels.copy()
    kept[1, 5, 5] = kept[0, 1, 1] = 0
    np.testing.assert_array_equal(largest_components(labels), kept)
