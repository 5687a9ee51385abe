"""Writes a cohort of beating-heart phantoms in the ACDC layout, for machines that hold no patient data.

  python -m ica_unet_jax.phantom --out=/tmp/phantom --patients=20
"""

from pathlib import Path

from absl import flags

from ica_unet_jax import launcher
from ica_unet_jax.errors import UserError

_OUT = flags.DEFINE_string("out", None, "New folder to write the cohort into.", required=True)
_PATIENTS = flags.DEFINE_integer("patients", 20, "How many patients; the five groups take turns.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of the cohort: the same seed writes the same patients.", lower_bound=0)
_SHAPE = flags.DEFINE_list("shape", ["8", "96", "96"], "Slices, height and width in voxels of 10 x 1.5 x 1.5 mm.")
_FRAMES = flags.DEFINE_integer("frames", 12, "Frames of the cine, one beat.", lower_bound=2)
_LABEL_EVERY = flags.DEFINE_bool("label_every", False, "Write the labels of every frame, not of ED and ES alone.")


def main() -> None:
    from ica_unet_jax.data.phantom.beating_heart import write_cohort

    shape = launcher.integers("shape", _SHAPE.value)
    if len(shape) != 3:
        raise UserError(f"--shape={','.join(_SHAPE.value)} is no stack: give slices,height,width, as 8,96,96.")
    write_cohort(Path(_OUT.value), _PATIENTS.value, _SEED.value, shape, _FRAMES.value, _LABEL_EVERY.value)
    print(f"{_PATIENTS.value} patients in {_OUT.value}")


if __name__ == "__main__":
    launcher.run(main)
