"""Metrics, defined once: overlap and surface distance of masks, clinical figures, quality of the ICA.

Masks and label volumes live on the native grid, axes (slices, rows, columns), spacing (dz, dy, dx) in mm.
NumPy and SciPy only: no metric knows the network.
"""

STRUCTURES = {"RV": 1, "MYO": 2, "LV": 3}  # right ventricular cavity, myocardium, left ventricular cavity
