"""The data of a training: its cohort, read and prepared by several processes, with all that is wrong with it told at once."""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Sequence

from ica_unet_jax.config import Config, DataConfig
from ica_unet_jax.data import cohort, entries, orientation, reading, splits
from ica_unet_jax.data.cache import Preparation
from ica_unet_jax.data.case import Case, Cine
from ica_unet_jax.data.learning_frame import LearningFrame
from ica_unet_jax.errors import BadData, UserError
from ica_unet_jax.runs import run_folder
from ica_unet_jax.runtime import environment, processes, workers
from ica_unet_jax.runtime.progress import Progress
from ica_unet_jax.training import distillation

_LOOKS = 20  # how often room is made in the cache while cases are prepared
_MANY = 50  # cases that may take long enough for a progress bar


def load(config: Config) -> tuple[list[LearningFrame], list[Cine], splits.Split, cohort.Problems]:
    """Frames to learn from, patients with a ground truth to validate (none where the split has none), the split, and what is wrong with the left out.

    Raises:
      UserError: bad data, all of them at once, unless --skip_bad_cases; or no labelled frame to learn from, or no other
        where --unlabelled wants some.
    """
    data = config.data
    cases = cohort.open_cohort(data)
    split = cohort.choose_split(data, cases)
    if data.split_file and not split["val"]:
        raise UserError(f"--split_file={data.split_file} has nobody in 'val': name at least one patient; if all are to train, give --split_by=none instead of it.")
    chosen, learning = [case for part in ("train", "val") if split[part] for case in splits.select(split, cases, part)], set(split["train"])
    for remark in splits.remarks(split, cases) if processes.is_first() else ():
        print(f"note: {remark}", file=sys.stderr)
    environment.require_handles(len(learning))  # of frames that are mapped
    found, left_out = _read(chosen, learning, _preparation(config), data)
    split = cohort.without(split, left_out)
    samples = [frame for name, frames in found.items() if name in learning for frame in frames]
    if data.balance != "none":
        samples = cohort.balanced(samples, {case.name: getattr(case, data.balance) for case in chosen})
    if not samples:
        raise UserError("No frame of the training patients has a ground truth: add NAME_frameNN_gt.nii.gz files.")
    if config.train.unlabelled and all(sample.labelled for sample in samples):
        raise UserError(f"--unlabelled={config.train.unlabelled}: all frames of the training patients have a ground truth; leave it out.")
    cines = [cine for name, cine in found.items() if name not in learning and cine.labels]
    if split["val"] and not cines:
        raise UserError(f"No frame of the patients who validate has a ground truth (as {split['val'][0]}): choose another split.")
    return samples, cines, split, left_out


def _preparation(config: Config) -> Preparation:
    data = config.data
    options = {name: getattr(data, name) for name in ("spacing", "label_map", "cyclic", "cache_dir", "train_window")}
    codes = orientation_of(config).usual if data.reorient else ""
    return Preparation(crop=config.model.crop, reach=distillation.reach(config), unlabelled=bool(config.train.unlabelled), codes=codes, **options)


def _read(
    chosen: Sequence[Case], learning: Collection[str], preparation: Preparation, config: DataConfig
) -> tuple[dict[str, list[LearningFrame] | Cine], cohort.Problems]:
    """What is learned from each of the chosen cases, or the case itself for the others, and what is wrong with the left out."""
    todo = [(case, case.name in learning) for case in chosen]
    ahead = enumerate(workers.ordered(preparation.entry_or_cine, todo, config.workers), start=1)
    looks = math.ceil(len(chosen) / _LOOKS)

    def read(case: Case) -> list[LearningFrame] | Cine:
        number, result = next(ahead)
        progress.update(number)
        if isinstance(result, BadData):
            raise result
        if case.name not in learning:
            return result
        frames = preparation.load(case, result)
        if config.cache_gb and number % looks == 0:
            entries.make_room(preparation.root, config.cache_gb)
        return frames

    with Progress(len(chosen), unit="case", quiet=not processes.is_first() or len(chosen) < _MANY) as progress:
        found = cohort.screen(chosen, read, config.skip_bad_cases)
    taken = entries.make_room(preparation.root, config.cache_gb) if config.cache_gb else 0
    if taken > config.cache_gb and processes.is_first():
        print(f"note: the cases in use take {taken:.1f} GB, more than --cache_gb={config.cache_gb:g}; none of them is removed.", file=sys.stderr)
    return found


def orientation_of(config: Config) -> orientation.Cohort:
    """How the training patients lie, as the run folder has it or else by their headers."""
    kept = run_folder.read_orientation(config.train.workdir)
    if kept.codes:
        return kept
    cases = cohort.open_cohort(config.data)
    return reading.lie(splits.select(cohort.choose_split(config.data, cases), cases, "train"))
