"""Writes a trained network as one file: for ONNX Runtime, OpenVINO and others, for JAX, or its weights alone, for this package.

  python -m ica_unet_jax.export --workdir=RUN --like=cine_4d.nii.gz --format=onnx --output=model.onnx
  python -m ica_unet_jax.export --workdir=RUN --like=cine_4d.nii.gz --output=model.zip --platforms=cpu,cuda
  python -m ica_unet_jax.export --workdir=RUN --format=weights --output=mine.safetensors
"""

from __future__ import annotations

from absl import flags

from ica_unet_jax import launcher
from ica_unet_jax.errors import UserError
from ica_unet_jax.inference import options
from ica_unet_jax.runtime import files

options.define_network()
_LIKE = flags.DEFINE_string(
    "like", None, "NIfTI image with the slices, rows, columns and voxel sizes of the frames to come; --format=weights needs none."
)
_OUTPUT = flags.DEFINE_string("output", None, "File to write.", required=True)
_FORMAT = flags.DEFINE_enum(
    "format", "jax", ("jax", "onnx", "weights"),
    "onnx: the one to keep, needs the extra [onnx]; jax: newer versions of JAX may refuse the file after six months; weights: for --weights and "
    "--init_from of this package, on frames of any size.",
)  # fmt: skip
_PLATFORMS = flags.DEFINE_list("platforms", ["cpu"], "Where a file for JAX will run: cpu, cuda, tpu, or several.")
_HALF = flags.DEFINE_bool("half", False, "With --format=weights: in float16, which is half as large.")
_LICENCE = flags.DEFINE_string("licence", "", "With --format=weights: the licence of the weights, kept in the file; it follows from that of the images.")
_NAMES = flags.DEFINE_bool(
    "keep_identifiers", False, "With --format=weights: keep the names of the patients of the training, by which evaluate knows them; for public cohorts."
)
options.define(options.EXPORT)


def main() -> None:
    from ica_unet_jax.inference import exporting

    files.check_place(_OUTPUT.value)
    given = options.given(options.EXPORT)
    if _FORMAT.value == "weights":
        exporting.export_weights(options.network(), _OUTPUT.value, half=_HALF.value, licence=_LICENCE.value, names=_NAMES.value, **given)
        print(_OUTPUT.value)
        return
    if _HALF.value or _LICENCE.value or _NAMES.value:
        raise UserError(f"--half, --licence and --keep_identifiers are of --format=weights: leave them out with --format={_FORMAT.value}.")
    if not _LIKE.value:
        raise UserError(f"--like is not given: --format={_FORMAT.value} needs an image with the geometry of the frames to come.")
    same = exporting.export(options.network(), _LIKE.value, _OUTPUT.value, format=_FORMAT.value, platforms=_PLATFORMS.value, **given)
    print(_OUTPUT.value if same is None else f"{_OUTPUT.value}: its labels are those of JAX on {100 * same:.3f} % of the voxels of the first frames")


if __name__ == "__main__":
    launcher.run(main)
