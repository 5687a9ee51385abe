"""Draws what a trained ICA-UNet makes of a frame: `python -m ica_unet_jax.decompose --workdir=RUN --out=DIR`.

Writes three PNG files: the bases; coefficients before and after the backbone; the frame, its reconstruction, the mask.
"""

from __future__ import annotations

from absl import flags

from ica_unet_jax import launcher
from ica_unet_jax.inference import options

options.define_network()
_OUT = flags.DEFINE_string("out", "", "Folder to write into; empty: RUN/decomposition.")
_PATIENT = flags.DEFINE_string("patient", "", "Name of the patient; empty: the first validation patient.")
_FRAME = flags.DEFINE_integer("frame", 0, "Frame, counted from 1; 0: the first labelled one.", lower_bound=0)
options.define(options.DECOMPOSE)


def main() -> None:
    from ica_unet_jax.evaluation import decomposition_figures

    paths = decomposition_figures.draw(
        options.network(),
        _OUT.value,
        patient=_PATIENT.value,
        frame=_FRAME.value,
        **options.given(options.DECOMPOSE),
    )
    print("\n".join(map(str, paths)))


if __name__ == "__main__":
    launcher.run(main)
