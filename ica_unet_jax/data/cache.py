"""Labelled frames with the frames round them on the model's in-plane grid, computed once and kept as .npy files."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from ica_unet_jax.config import NUM_CLASSES
from ica_unet_jax.data import acdc
from ica_unet_jax.data.acdc import Case
from ica_unet_jax.data.geometry import Placement, normalize, place, resample_labels
from ica_unet_jax.errors import BadData, UserError

FORMAT = 1  # part of the key: raise it when the stored values change
MARGIN = 1.25
_PARTS = ("frames", "labels", "valid", "times")


@dataclasses.dataclass
class LabelledFrame:
    """One labelled frame of a case on the canvas: all slices, in-plane voxels of `spacing`, round the image centre.

    `frames` is float16 (2 * reach + 1, s, Hc, Wc): the frames t - reach ... t + reach, each z-scored alone, 0 outside the
    image, memory-mapped.
    `labels` is uint8 (s, Hc, Wc), `valid` bool (s, Hc, Wc): true inside the image. `time` is the 0-based frame number.
    """

    case_name: str
    time: int
    frames: np.ndarray
    labels: np.ndarray
    valid: np.ndarray


def default_cache_dir() -> Path:
    """ica_unet_jax inside the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ica_unet_jax"


def compiled_dir(threads: int) -> Path:
    """Where programs are kept that XLA has compiled for so many threads.

    It divides work among the threads that it finds when it compiles, and JAX's cache does not tell such programs apart: what
    was compiled on one core would be loaded, and run on one, where there are more.
    """
    return default_cache_dir() / "compiled" / str(threads)


def canvas(crop: tuple[int, int, int], margin: float = MARGIN) -> tuple[int, int]:
    """Height and width of the canvas of a model's grid: `margin` times its own, made even."""
    return tuple(2 * round(margin * size / 2) for size in crop[1:])


def preprocessed(case: Case, *, crop: tuple[int, int, int], spacing: float, label_map: str = "", cyclic: bool = False,
                 cache_dir: str | Path = "", margin: float = MARGIN, reach: int = 1) -> list[LabelledFrame]:
    """The labelled frames of one case, from the cache or computed and stored there; [] without ground truth.

    The canvas is `margin` times the height and width of `crop` (d, H, W), made even, so that augmentation may move the
    window; `spacing` is its voxel size in mm. An empty `cache_dir` is the user's cache folder. A case is computed again
    when a file's name, size or time of change, an option or the format differs.

    Raises BadData for a case that is not sound and UserError for a cache folder that cannot be written.
    """
    if problems := acdc.check(case, label_map) if case.problems else acdc.missing_truth(case):
        raise BadData(problems)
    if not case.labels:
        return []
    options = dict(canvas=canvas(crop, margin), spacing=spacing, label_map=label_map, cyclic=cyclic, reach=reach)
    root = Path(cache_dir) if cache_dir else default_cache_dir()
    folder = root / f"{case.name}-{_key(case, options)}"
    if not folder.is_dir():
        _store(folder, _compute(case, **options))
    try:
        return _load(case, folder)
    except (OSError, ValueError, EOFError):  # damaged by a full disk or a killed copy
        shutil.rmtree(folder, ignore_errors=True)
        _store(folder, _compute(case, **options))
        return _load(case, folder)


def _key(case: Case, options: dict) -> str:
    try:
        files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in case.files]
    except OSError as error:
        raise BadData([f"{error.filename} cannot be read ({error.strerror}); check the file."]) from error
    text = json.dumps([FORMAT, options, files], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _compute(case: Case, *, canvas: tuple[int, int], spacing: float, label_map: str,
             cyclic: bool, reach: int) -> dict[str, np.ndarray]:
    """The stored arrays: frames (k, 2 * reach + 1, s, Hc, Wc), labels (k, s, Hc, Wc), valid (Hc, Wc), times (k,)."""
    cine = acdc.read(case, label_map)
    slices = cine.frames.shape[1]
    placement = place(cine.frames.shape[1:], cine.spacing, (slices, *canvas), spacing)
    times = sorted(cine.labels)
    windows = {time: cine.window(time, reach, cyclic) for time in times}
    ready = {time: _prepare(cine.frame(time), placement) for time in set().union(*windows.values())}
    return {
        "frames": np.stack([np.stack([ready[other] for other in windows[time]]) for time in times]),
        "labels": np.stack([resample_labels(cine.labels[time], placement, NUM_CLASSES)[0] for time in times]),
        "valid": placement.valid[0, 0],
        "times": np.array(times),
    }


def _prepare(frame: np.ndarray, placement: Placement) -> np.ndarray:
    return placement.forward(normalize(frame))[0].astype(np.float16)


def _store(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes under a temporary name and renames, so that a folder with the final name is complete."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".writing-"))
        try:
            for part, array in arrays.items():
                np.save(temporary / f"{part}.npy", array, allow_pickle=False)
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        if not folder.is_dir():  # otherwise another process was faster
            raise UserError(f"--cache_dir={folder.parent} cannot be written ({error.strerror or error}); "
                            "choose another folder or make room.") from error


def _load(case: Case, folder: Path) -> list[LabelledFrame]:
    # Only the frames are mapped: each map holds a file handle, and cohorts have hundreds of cases.
    frames, labels, valid, times = (
        np.load(folder / f"{part}.npy", mmap_mode="r" if part == "frames" else None, allow_pickle=False)
        for part in _PARTS)
    if not len(frames) == len(labels) == len(times) == len(case.labels):
        raise ValueError(f"{folder} is incomplete.")
    return [LabelledFrame(case.name, int(time), frames[i], labels[i], np.broadcast_to(valid, labels[i].shape))
            for i, time in enumerate(times)]
