"""A trained model as one file that needs nothing but JAX to run: StableHLO of the streaming step, and what it is.

The file is a ZIP archive:

  metadata.json  grid, spacing, neighbours, classes, checkpoint, provenance
  encode         frame (s, h, w) float32 -> features, a tuple of arrays
  decode         (features of t-1, of t, of t+1) -> labels (s, h, w) uint8; with two_past of t-2 ... t+2

`encode` and `decode` are what `jax.export` serializes, with the weights in them, from native frame to native labels.
A frame whose neighbour is missing is its own neighbour; features that `neighbours` leaves out are not looked at.
"""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ica_unet_jax.data.nifti import read_volume, spacing_of
from ica_unet_jax.errors import UserError
from ica_unet_jax.inference import options, segmenters
from ica_unet_jax.inference.segmenters import Segmenter
from ica_unet_jax.labels import STRUCTURES
from ica_unet_jax.runs import provenance
from ica_unet_jax.runtime import compilation
from ica_unet_jax.runtime.files import replacing

PLATFORMS = ("cpu", "cuda", "tpu")


def export(
    run_dir: str | Path, like: str | Path, target: str | Path, *, platforms: Sequence[str] = ("cpu",), **given: Any
) -> None:
    """Writes the model of a run folder for frames of one geometry.

    Args:
      run_dir: of the training.
      like: NIfTI image with the slices, rows, columns and voxel sizes of the frames to come.
      target: file to write.
      platforms: where it will run, of `PLATFORMS`.
      given: options of `options.EXPORT`.

    Raises:
      UserError: no such run or image, an unknown platform, or a file that cannot be written.
    """
    if unknown := set(platforms) - set(PLATFORMS):
        raise UserError(f"--platforms={','.join(platforms)}: {min(unknown)} is not known; choose of {', '.join(PLATFORMS)}.")
    chosen = options.choose(options.EXPORT, given)
    frames, image = read_volume(like)
    segmenter = segmenters.load(run_dir, checkpoint=chosen.checkpoint)
    if segmenter.config.model.answered > 1:
        raise UserError(f"--model={segmenter.config.model.model} answers whole snippets, for which there is no export: export another network.")
    shape, spacing = frames.shape[1:], spacing_of(image)
    frame = jax.ShapeDtypeStruct(shape, jnp.float32)
    metadata = {
        "shape": list(shape),
        "spacing_mm": list(spacing),
        "classes": {0: "background"} | {label: name for name, label in STRUCTURES.items()},
        "neighbours": segmenter.config.model.neighbours,
        "platforms": list(platforms),
        "checkpoint": chosen.checkpoint,
        "checkpoint_step": segmenter.step,
        "config": segmenter.config.flat(),
        "provenance": provenance.this_process(),
    }
    tracing = contextlib.nullcontext() if set(platforms) == {"cpu"} else compilation.plain()
    with tracing, replacing(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        encode, decode, features = step_functions(segmenter, shape, spacing)
        to_export = {"encode": (encode, (frame,)), "decode": (decode, (features,) * segmenter.decoded)}
        archive.writestr("metadata.json", json.dumps(metadata, indent=2) + "\n")
        for name, (function, arguments) in to_export.items():
            exported = jax.export.export(jax.jit(function, keep_unused=True), platforms=platforms)(*arguments)
            archive.writestr(name, bytes(exported.serialize()))


def step_functions(
    segmenter: Segmenter, shape: tuple[int, int, int], spacing: tuple[float, float, float]
) -> tuple[Callable, Callable, Any]:
    """(encode, decode, shapes of the features): traceable, from native frame to features to native labels."""
    grid, variables = segmenter.grid(segmenter.place(shape, spacing)), segmenter.variables
    encode_window, decode_window = segmenter.functions
    centre = np.zeros(2, np.int32)

    def features(frame):
        return [encode_window(variables, *view) for view in grid.to_windows(frame, jnp.asarray(centre))]

    frame = jax.ShapeDtypeStruct(tuple(shape), jnp.float32)
    tree = jax.tree.structure(jax.eval_shape(features, frame))

    def encode(frame):
        # Flat, so that whoever loads it needs no class of this package.
        return tuple(jax.tree.leaves(features(frame)))

    def decode(*frames):
        views = zip(*(jax.tree.unflatten(tree, leaves) for leaves in frames), strict=True)
        return grid.to_labels(tuple(decode_window(variables, *view)[0] for view in views), jnp.asarray(centre))

    return encode, decode, jax.eval_shape(encode, frame)
