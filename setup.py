"""Packaging; tool settings are in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = next(
    line.split('"')[1] for line in (ROOT / "ica_unet_jax" / "__init__.py").read_text().splitlines() if line.startswith("__version__")
)

SCANNER = ["ismrmrd>=1.15", "pyigtl>=0.3.1", "starlette>=0.45", "uvicorn>=0.35", "websockets>=15"]
DICOM = ["pydicom>=3.0.1", "highdicom>=0.28", "python-gdcm>=3.0.24"]  # the last unpacks all that hospitals' archives pack

setup(
    name="ica-unet-jax",
    version=VERSION,
    description="ICA-UNet in JAX: real-time segmentation of 3D cardiac cine MRI, with an ablation toolkit",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["ica_unet_jax", "ica_unet_jax.*"]),
    package_data={"ica_unet_jax": ["weights/*", "viewing/page/*"]},
    entry_points={"console_scripts": ["ica-unet-jax = ica_unet_jax.__main__:main"]},
    install_requires=[
        "jax>=0.10.2",
        "flax>=0.12.8",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.11.20",
        "numpy>=2.0.2",
        "scipy>=1.14",
        "nibabel>=5.3",
        "absl-py>=2.1",
        "rich>=13.7",
        "filelock>=3.12",
        "platformdirs>=4.0",
        "matplotlib>=3.9",
        "jaxtyping>=0.3",
        "safetensors>=0.5",
        "flatbuffers>=23.5.26",  # with which jax.export writes
    ],
    extras_require={
        "cuda": ["jax[cuda]>=0.10.2"],
        "ablations": ["scikit-learn>=1.5"],  # FastICA, beside our bases and as bases
        "onnx": ["onnx>=1.17", "onnxruntime>=1.20"],
        "realtime": ["onnx>=1.17", "openvino>=2025.0"],
        "scanner": SCANNER,
        "hub": ["huggingface-hub>=0.30"],  # weights from Hugging Face
        "dicom": DICOM,
        "slurm": ["submitit>=1.5.2"],
        "tensorboard": ["tensorboardX>=2.6.2"],
        "test": [
            "pytest>=8", "pytest-xdist>=3.6", "beartype>=0.20", "hypothesis>=6.100", "ruff>=0.9", "scikit-learn>=1.5", "submitit>=1.5.2",
            "huggingface-hub>=0.30", "tensorboardX>=2.6.2", "statsmodels>=0.14", "import-linter>=2.4", "onnx>=1.17", "onnxruntime>=1.20", "openvino>=2025.0",
            *SCANNER, *DICOM, "dcm2niix>=1.0.20250506",
        ],
        "browser": ["playwright>=1.49"],  # with which some slow tests look at the page of --view
        "oracle": ["torch", "monai>=1.6", "medpy>=0.5.2", "scikit-learn>=1.5"],
    },
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Intended Audience :: Science/Research",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
    ],
)
