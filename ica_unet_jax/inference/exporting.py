"""A trained model as one file, from native frame to native labels: StableHLO, which needs JAX, or ONNX, which does not.

`--format=jax` is a ZIP archive:

  metadata.json  grid, spacing, neighbours, classes, checkpoint, provenance
  encode         frame (s, h, w) float32 -> features, a tuple of arrays
  decode         (features of t-1, of t, of t+1) -> labels (s, h, w) uint8; with two_past of t-2 ... t+2

`encode` and `decode` are what `jax.export` serializes, with the weights in them. A frame whose neighbour is missing is its own
neighbour; features that `neighbours` leaves out are not looked at.

`--format=onnx` is an ONNX model, for ONNX Runtime, OpenVINO and others:

  frame (s, h, w) float32, state... -> labels (s, h, w) uint8, next_state...

The state is what is needed of the frames before; `model_file` says how a cine begins and ends. The same metadata are in the file.

`--format=weights` is the network for this package, on frames of any size; see `runs/trained.py`.
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
from ica_unet_jax.portable import model_file, runtimes
from ica_unet_jax.portable.runtimes import JAX
from ica_unet_jax.runs import provenance
from ica_unet_jax.runs.trained import SUFFIX, Trained, digest, save
from ica_unet_jax.runtime import compilation
from ica_unet_jax.runtime.files import replacing

PLATFORMS = ("cpu", "cuda", "tpu")
FORMATS = (JAX, "onnx")
CHECKED = 4  # frames


def export(
    network: str | Path | Trained, like: str | Path, target: str | Path, *, format: str = JAX, platforms: Sequence[str] = ("cpu",), **given: Any
) -> float | None:
    """Writes a trained model for frames of one geometry.

    Of an ONNX file it gives the share of the voxels of `like`'s first frames on which its labels are those of JAX; None where no
    runtime is installed that could tell, and of other files.

    Args:
      network: as `trained.find` finds it.
      like: NIfTI image with the slices, rows, columns and voxel sizes of the frames to come.
      target: file to write.
      format: one of `FORMATS`.
      platforms: where a file for JAX will run, of `PLATFORMS`.
      given: options of `options.EXPORT`.

    Raises:
      UserError: no such network or image, an unknown format or platform, a network that the format cannot hold, or a file that
        cannot be written.
    """
    if format not in FORMATS:
        raise UserError(f"--format={format} is not known: choose one of {', '.join(FORMATS)}.")
    if unknown := set(platforms) - set(PLATFORMS):
        raise UserError(f"--platforms={','.join(platforms)}: {min(unknown)} is not known; choose of {', '.join(PLATFORMS)}.")
    if format != JAX:
        model_file.check_onnx()
    chosen = options.choose(options.EXPORT, given)
    frames, image = read_volume(like)
    segmenter = segmenters.load_as(network, chosen)
    if segmenter.config.model.answered > 1:
        raise UserError(f"--model={segmenter.config.model.model} answers whole snippets, for which there is no export: export another network.")
    shape, spacing = frames.shape[1:], spacing_of(image)
    metadata = {
        "shape": list(shape),
        "spacing_mm": list(spacing),
        "classes": {0: "background"} | {label: name for name, label in STRUCTURES.items()},
        "neighbours": segmenter.config.model.neighbours,
        "checkpoint": chosen.checkpoint,
        "checkpoint_step": segmenter.step,
        "weights_sha256": digest(segmenter.variables),
        "config": segmenter.config.flat(),
        "provenance": provenance.this_process(),
    }
    if format == JAX:
        _write_jax(segmenter, shape, spacing, target, metadata | {"platforms": list(platforms)})
        return None
    _write_onnx(segmenter, shape, spacing, target, metadata)
    return agreement(segmenter, target, frames[:CHECKED], spacing)


def export_weights(network: str | Path | Trained, target: str | Path, *, half: bool = False, licence: str = "", names: bool = False, **given: Any) -> None:
    """Writes the weights of a run folder as a file for `trained.find`; see `trained.save`.

    Raises:
      UserError: no such network, another ending than .safetensors, or a file that cannot be written.
    """
    if Path(target).suffix != SUFFIX:
        raise UserError(f"--output={target} is no name for weights: name a file that ends in {SUFFIX}.")
    save(network, target, checkpoint=options.choose(options.EXPORT, given).checkpoint, half=half, licence=licence, names=names)


def agreement(segmenter: Segmenter, path: str | Path, frames: np.ndarray, spacing: tuple[float, float, float]) -> float | None:
    """The share of the voxels of a cine (t, s, h, w) on which an ONNX file gives the label that the segmenter gives; None without a runtime."""
    if not set(runtimes.at_hand()) & set(runtimes.PORTABLE):
        return None
    model = model_file.Model(path)
    found = [labels for labels in (*map(model.push, frames), model.flush()) if labels is not None]
    return float(np.mean(np.stack(found) == segmenter.segment_cine(frames, spacing)))


def _write_jax(segmenter: Segmenter, shape: tuple[int, int, int], spacing: tuple[float, float, float], target: str | Path, metadata: dict[str, Any]) -> None:
    platforms, frame = metadata["platforms"], jax.ShapeDtypeStruct(shape, jnp.float32)
    tracing = contextlib.nullcontext() if set(platforms) == {"cpu"} else compilation.plain()
    with tracing, replacing(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        encode, decode, features = step_functions(segmenter, shape, spacing)
        to_export = {"encode": (encode, (frame,)), "decode": (decode, (features,) * segmenter.decoded)}
        archive.writestr("metadata.json", json.dumps(metadata, indent=2) + "\n")
        for name, (function, arguments) in to_export.items():
            exported = jax.export.export(jax.jit(function, keep_unused=True), platforms=platforms)(*arguments)
            archive.writestr(name, bytes(exported.serialize()))


def _write_onnx(segmenter: Segmenter, shape: tuple[int, int, int], spacing: tuple[float, float, float], target: str | Path, metadata: dict[str, Any]) -> None:
    from ica_unet_jax.portable import network  # needs onnx

    encode, decode, _ = step_functions(segmenter, shape, spacing, exact=True)
    made = network.step(encode, lambda *frames: (decode(*frames),), shape, segmenter.config.model.frames)
    model_file.write(target, made, metadata)


def step_functions(
    segmenter: Segmenter, shape: tuple[int, int, int], spacing: tuple[float, float, float], *, exact: bool = False
) -> tuple[Callable, Callable, Any]:
    """(encode, decode, shapes of the features): traceable, from native frame to features to native labels; `exact` in float32."""
    grid, encode_image, decode_images = segmenter.stack_functions(segmenter.place(shape, spacing), exact=exact)
    centre = np.zeros(2, np.int32)

    def features(frame):
        return [encode_image(segmenter.variables, *view) for view in grid.to_windows(frame, jnp.asarray(centre))]

    frame = jax.ShapeDtypeStruct(tuple(shape), jnp.float32)
    tree = jax.tree.structure(jax.eval_shape(features, frame))

    def encode(frame):
        # Flat, so that whoever loads it needs no class of this package.
        return tuple(jax.tree.leaves(features(frame)))

    def decode(*frames):
        [windows] = decode_images(segmenter.variables, *(jax.tree.unflatten(tree, leaves) for leaves in frames))
        return grid.to_labels(windows, jnp.asarray(centre))

    return encode, decode, jax.eval_shape(encode, frame)
