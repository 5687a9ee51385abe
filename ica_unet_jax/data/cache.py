"""Frames to learn from, with the frames round them, on the model's in-plane grid, computed once and kept in files."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import secrets
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from ica_unet_jax.data import checks, entries, reading
from ica_unet_jax.data.case import Case, Cine
from ica_unet_jax.data.geometry import Placement, normalize, place, resample_labels
from ica_unet_jax.data.heart import on_heart
from ica_unet_jax.data.learning_frame import LearningFrame
from ica_unet_jax.data.nifti import files_of
from ica_unet_jax.errors import BadData, UserError
from ica_unet_jax.labels import NUM_CLASSES, UNLABELLED
from ica_unet_jax.runtime.paths import default_cache_dir

FORMAT = 3  # part of the key: raise it when the stored values change
MARGIN = 1.25
_NAME = 48  # letters of a case that its entry is called by; a file name has 255 bytes at most
_PARTS = ("times", "starts", "frames", "labels", "valid")  # in this order in the file, so that each lies at a multiple of its numbers' size


def canvas(crop: tuple[int, int, int], margin: float = MARGIN) -> tuple[int, int]:
    """Height and width of the canvas of a model's grid: `margin` times its own, made even."""
    return tuple(2 * round(margin * size / 2) for size in crop[1:])


def preprocessed(case: Case, **options: Any) -> list[LearningFrame]:
    """The labelled frames of one case, from the cache or computed and stored there; [] without ground truth. See `Preparation`."""
    prepared = Preparation(**options)
    return prepared.load(case, prepared.entry(case))


@dataclasses.dataclass(frozen=True)
class Preparation:
    """How cases are prepared, and where they are kept.

    The canvas is `margin` times the height and width of `crop` (d, H, W), made even, so that augmentation may move the
    window; `spacing` is its voxel size in mm. It lies round the image centre, or with `train_window="heart"` round the place
    where the window of an evaluation would be that has found the heart. With `unlabelled` all frames of a case are wanted, those
    without ground truth too. An empty `cache_dir` is the user's cache folder. `codes` are the letters that a case's axes are turned
    to, "" for those of its files. A case is computed again when a file's name or content, an option or the format differs.
    """

    crop: tuple[int, int, int]
    spacing: float
    label_map: str = ""
    cyclic: bool = False
    cache_dir: str | Path = ""
    margin: float = MARGIN
    reach: int = 1
    unlabelled: bool = False
    train_window: str = "centre"
    codes: str = ""

    @property
    def root(self) -> Path:
        """The folder of the cache."""
        return Path(self.cache_dir) if self.cache_dir else default_cache_dir()

    def entry(self, case: Case) -> Path | None:
        """Where a case lies in the cache, computed and stored if it was not there; None without ground truth.

        Raises BadData for a case that is not sound and UserError for a cache folder that cannot be written.
        """
        if problems := reading.check(case, self.label_map) if case.problems or case.truth_problems else checks.of_truth(case):
            raise BadData(problems)
        if not case.labelled:
            return None
        folder = self.root / f"{case.name[:_NAME]}-{_key(case, self._options(case))}"
        if not folder.is_dir():
            _store(folder, _compute(case, **self._options(case)))
        return folder

    def load(self, case: Case, folder: Path | None) -> list[LearningFrame]:
        """The frames of a case that lies there. Raises as `entry` does."""
        if folder is None:
            return []
        try:
            return _load(case, folder, self.reach)
        except PermissionError:  # another user's, who keeps it to themselves
            return _learning(case, self.reach, **_compute(case, **self._options(case)))
        except (OSError, ValueError, EOFError):  # damaged by a full disk or a killed copy, or removed to make room
            shutil.rmtree(folder, ignore_errors=True)
            _store(folder, _compute(case, **self._options(case)))
            return _load(case, folder, self.reach)

    def entry_or_cine(self, task: tuple[Case, bool]) -> Path | Cine | BadData | None:
        """For a process that works ahead: `entry` of a case to learn from, any other as it is, or what is wrong with it."""
        case, learning = task
        try:
            return self.entry(case) if learning else reading.read(case, self.label_map, codes=self.codes)
        except BadData as error:
            return error

    def _options(self, case: Case) -> dict[str, Any]:
        """What the stored values depend on beside the case's files."""
        return dict(
            canvas=canvas(self.crop, self.margin), spacing=self.spacing, label_map=self.label_map or case.label_map, cyclic=self.cyclic,
            reach=self.reach, unlabelled=self.unlabelled, heart=self.crop if self.train_window == "heart" else None, codes=self.codes,
        )  # fmt: skip


def _key(case: Case, options: dict) -> str:
    try:
        files = [(path.name, _digest(path)) for named in case.files for path in files_of(named)]
    except OSError as error:
        raise BadData([f"{error.filename} cannot be read ({error.strerror}); check the file."]) from error
    text = json.dumps([FORMAT, options, files, *case.labelled_frames], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _compute(case: Case, *, canvas: tuple[int, int], spacing: float, label_map: str, cyclic: bool, reach: int,
             unlabelled: bool, heart: tuple[int, int, int] | None, codes: str) -> dict[str, np.ndarray]:
    """The stored arrays: labels (k, s, Hc, Wc), valid (Hc, Wc), times (k,), and frames (n, s, Hc, Wc).

    Of these the 2 * reach + 1 from starts[i] on are those round times[i]; windows that follow each other share theirs.
    """
    cine = reading.read(case, label_map, codes=codes)
    slices = cine.frames.shape[1]
    placement = place(cine.frames.shape[1:], cine.spacing, (slices, *canvas), spacing)
    if heart:  # of that grid: its window, unlike the wider canvas, stays inside the image
        window = on_heart(place(cine.frames.shape[1:], cine.spacing, heart, spacing), cine.labels.values())
        placement = dataclasses.replace(placement, offset=window.offset)
    times = sorted(cine.times if unlabelled else cine.labels)
    order, starts = [], []
    for time in times:
        window = cine.window(time, reach, cyclic)
        shared = 2 * reach if tuple(order[-2 * reach :]) == window[:-1] else 0
        starts.append(len(order) - shared)
        order += window[shared:]
    ready = {time: _prepare(cine.frame(time), placement) for time in set(order)}
    unknown = np.full((slices, *canvas), UNLABELLED, np.uint8)
    truth = {time: resample_labels(labels, placement, NUM_CLASSES)[0] for time, labels in cine.labels.items()}
    return {
        "frames": np.stack([ready[time] for time in order]),
        "starts": np.array(starts),
        "labels": np.stack([truth.get(time, unknown) for time in times]),
        "valid": placement.valid[0, 0],
        "times": np.array(times),
    }


def _prepare(frame: np.ndarray, placement: Placement) -> np.ndarray:
    return placement.forward(normalize(frame))[0].astype(np.float16)


def _store(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes under a temporary name and renames, so that a folder with the final name is complete."""
    try:
        temporary = folder.with_name(f".writing-{secrets.token_hex(8)}")
        temporary.mkdir(parents=True)  # for all whom the umask lets: others may share the cache
        try:
            with (temporary / entries.FILE).open("wb") as file:
                for part in _PARTS:
                    np.save(file, arrays[part], allow_pickle=False)
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        if not folder.is_dir():  # otherwise another process was faster
            raise UserError(f"--cache_dir={folder.parent} cannot be written ({error.strerror or error}); "
                            "choose another folder or make room.") from error


def _load(case: Case, folder: Path, reach: int) -> list[LearningFrame]:
    """What `_store` wrote, mapped and not read: however many cases there are, they take no memory that the system could not take back."""
    arrays = {}
    with entries.held(folder) as file:
        whole = np.memmap(file, np.uint8, "r")  # once, as each map holds a file handle
        file.seek(0)
        for part in _PARTS:
            np.lib.format.read_magic(file)
            shape, columns_first, dtype = np.lib.format.read_array_header_1_0(file)
            if dtype.hasobject or columns_first:
                raise ValueError(f"{file.name} is not what `_store` writes.")
            begin = file.tell()
            file.seek(math.prod(shape) * dtype.itemsize, os.SEEK_CUR)
            arrays[part] = whole[begin : file.tell()].view(dtype).reshape(shape)
    return _learning(case, reach, **arrays)


def _learning(case: Case, reach: int, frames: np.ndarray, starts: np.ndarray, labels: np.ndarray, valid: np.ndarray,
              times: np.ndarray) -> list[LearningFrame]:
    """What is learned from, of the arrays of `_compute`; ValueError where they do not go together."""
    windows = [frames[start : start + 2 * reach + 1] for start in starts]
    if not len(windows) == len(labels) == len(times) >= len(case.labels) or any(len(w) != 2 * reach + 1 for w in windows):
        raise ValueError(f"the cached arrays of {case.name} are incomplete.")
    return [LearningFrame(case.name, int(time), windows[i], labels[i], np.broadcast_to(valid, labels[i].shape), bool((labels[i] != UNLABELLED).any()))
            for i, time in enumerate(times)]
