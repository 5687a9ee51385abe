"""Writes a trained network as one file: for ONNX Runtime, OpenVINO and others, or for JAX.

  python -m ica_unet_jax.export --workdir=RUN --like=cine_4d.nii.gz --format=onnx --output=model.onnx
  python -m ica_unet_jax.export --workdir=RUN --like=cine_4d.nii.gz --output=model.zip --platforms=cpu,cuda
"""

from __future__ import annotations

from absl import flags

from ica_unet_jax import launcher
from ica_unet_jax.inference import options
from ica_unet_jax.runtime import files

_WORKDIR = flags.DEFINE_string("workdir", None, "Run folder of a training.", required=True)
_LIKE = flags.DEFINE_string(
    "like", None, "NIfTI image with the slices, rows, columns and voxel sizes of the frames to come.", required=True
)
_OUTPUT = flags.DEFINE_string("output", None, "File to write.", required=True)
_FORMAT = flags.DEFINE_enum(
    "format", "jax", ("jax", "onnx"), "onnx: the one to keep, needs the extra [onnx]; jax: newer versions of JAX may refuse the file after six months."
)
_PLATFORMS = flags.DEFINE_list("platforms", ["cpu"], "Where a file for JAX will run: cpu, cuda, tpu, or several.")
options.define(options.EXPORT)


def main() -> None:
    from ica_unet_jax.inference import exporting

    files.check_place(_OUTPUT.value)
    given = options.given(options.EXPORT)
    same = exporting.export(_WORKDIR.value, _LIKE.value, _OUTPUT.value, format=_FORMAT.value, platforms=_PLATFORMS.value, **given)
    print(_OUTPUT.value if same is None else f"{_OUTPUT.value}: its labels are those of JAX on {100 * same:.3f} % of the voxels of the first frames")


if __name__ == "__main__":
    launcher.run(main)
