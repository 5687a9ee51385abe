"""Writes a trained network as one file that needs nothing but JAX to run.

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
_PLATFORMS = flags.DEFINE_list("platforms", ["cpu"], "Where it will run: cpu, cuda, tpu, or several.")
options.define(options.EXPORT)


def main() -> None:
    from ica_unet_jax.inference import exporting

    files.check_place(_OUTPUT.value)
    given = options.given(options.EXPORT)
    exporting.export(_WORKDIR.value, _LIKE.value, _OUTPUT.value, platforms=_PLATFORMS.value, **given)
    print(_OUTPUT.value)


if __name__ == "__main__":
    launcher.run(main)
