"""ICA-UNet (Wang et al., MICCAI 2020) in JAX: real-time segmentation of 3D cardiac cine MRI."""

__version__ = "0.3.0"
