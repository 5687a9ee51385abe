"""The cohort that a configuration names: a folder of cases, or the phantom, written on first use."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from ica_unet_jax.config import DataConfig
from ica_unet_jax.data import reading, splits, tables
from ica_unet_jax.data.case import Case
from ica_unet_jax.data.learning_frame import LearningFrame
from ica_unet_jax.data.phantom import beating_heart
from ica_unet_jax.errors import BadData, UserError

T = TypeVar("T")
Problems = dict[str, list[str]]  # sentences by the name of a case
_TOLD = ("group", "vendor", "centre")  # columns of a table of patients

ACDC_URL = "https://www.creatis.insa-lyon.fr/Challenge/acdc/"


def folder(config: DataConfig, *, write: bool = True, began_in: Path | None = None) -> Path:
    """`config.data_dir`, or the phantom cohort that `config.phantom_patients` asks for, written if need be.

    Without `write` it must be there: the configuration may be a stranger's, who does not choose where files appear. `began_in` is
    the folder that its relative paths are of, where that is known; it is told, not looked into.

    Raises:
      UserError: no data are named, or those named are not there.
    """
    if config.data_dir:
        if not Path(config.data_dir).is_dir():
            raise UserError(_missing(f"--data_dir={config.data_dir}{_meant(config.data_dir, began_in)} is not a folder"))
        return Path(config.data_dir)
    if not config.phantom_patients:
        raise UserError(_missing("--data_dir is not given"))
    shape = config.phantom_shape
    phantom = Path(config.phantom_dir) / f"{config.phantom_patients}_patients_{'x'.join(map(str, shape))}"
    if not phantom.is_dir() and not write:
        raise UserError(f"{phantom}{_meant(phantom, began_in)}, the phantom cohort of this run, is not there: name a cohort by --data_dir.")
    if not phantom.is_dir():
        try:
            beating_heart.write_cohort(phantom, config.phantom_patients, shape=shape)
        except (OSError, UserError):
            if not phantom.is_dir():  # otherwise another process was faster
                raise
    return phantom


def parts(config: DataConfig) -> list[DataConfig]:
    """The configuration of each cohort that --data_dir names, by commas; itself where it is one."""
    places = [config.data_dir] if Path(config.data_dir).is_dir() else config.data_dir.split(",")
    return [dataclasses.replace(config, data_dir=str(Path(place).expanduser()) if place else place) for place in places]


def open_cohort(config: DataConfig, *, write: bool = True, began_in: Path | None = None) -> list[Case]:
    """The cases in `folder(config, write, began_in)`, as the table `config.cohort_csv` describes them, where there is one.

    Of several cohorts each case knows its own, by the name of the folder.

    Raises UserError as `folder`, `reading.find_cases` and `described` do, where two cohorts have the same name or a patient of the same name,
    and for a setting that is one cohort's.
    """
    cohorts, found = parts(config), {}
    names = [os.path.basename(os.path.abspath(part.data_dir)) for part in cohorts]  # `.` has one only so
    if twins := [name for name, count in Counter(map(str.casefold, names)).items() if count > 1]:
        raise UserError(f"--data_dir={config.data_dir}: two cohorts are called {twins[0]}, by their folders, so that nothing could tell them apart; "
                        "rename one of the folders.")
    for flag in ("label_map", "labelled_frames"):
        if cohorts[1:] and (value := getattr(config, flag)):
            raise UserError(f"--{flag}={value} with several cohorts: it would be taken for all of them; leave it out, or rewrite the cohort "
                            "that needs it, as docs/data.md has it under \"None of these\".")
    for part, name in zip(cohorts, names, strict=True):
        place = folder(part, write=write, began_in=began_in)
        for case in reading.find_cases(place, part.label_map, part.reader, part.labelled_frames):
            if case.name in found:
                raise UserError(f"--data_dir={config.data_dir}: {place} has a patient {case.name}, as {found[case.name].cohort}; rename one of them.")
            found[case.name] = dataclasses.replace(case, cohort=name) if cohorts[1:] else case
    cases = [found[name] for name in sorted(found)]
    return described(cases, config.cohort_csv) if config.cohort_csv else cases


def balanced(samples: Sequence[LearningFrame], domains: Mapping[str, str]) -> list[LearningFrame]:
    """The frames to learn from, those with a ground truth so often that each domain has as many; `domains` has that of each patient."""
    labelled: dict[str, list[LearningFrame]] = {}
    for sample in samples:
        if sample.labelled:
            labelled.setdefault(domains[sample.case_name], []).append(sample)
    most = max(map(len, labelled.values()), default=0)
    # The last, shorter round takes frames from all over the domain.
    rounds = (frames * (most // len(frames)) + [frames[i * len(frames) // (most % len(frames))] for i in range(most % len(frames))] for frames in labelled.values())
    return [sample for frames in rounds for sample in frames] + [sample for sample in samples if not sample.labelled]


def described(cases: Iterable[Case], path: str | Path) -> list[Case]:
    """The cases with group, vendor and centre of a table that has the column name and some of these; an empty cell changes nothing.

    Names may lack leading zeros there. Raises UserError where the table has no such columns, knows none of the patients, or two by one name.
    """
    rows, cases = tables.by_name(Path(path), "name", "--cohort_csv="), list(cases)
    keys = [tables.key(case.name) for case in cases]
    if twins := sorted(case.name for case, key in zip(cases, keys, strict=True) if key in rows and keys.count(key) > 1):
        raise UserError(f"--cohort_csv={path} cannot tell {' and '.join(twins[:2])} apart, as leading zeros do not count in it; rename one of them.")
    found = [{field: row[field] for field in _TOLD if (row := rows.get(key, {})).get(field)} for key in keys]
    if not any(found):
        raise UserError(f"--cohort_csv={path} tells nothing of these patients; its columns must be name and some of {', '.join(_TOLD)}.")
    return [dataclasses.replace(case, **told) for case, told in zip(cases, found, strict=True)]


def _meant(path: str | Path, began_in: Path | None) -> str:
    """Which folder a relative path leads to, and which one was meant when it was written down."""
    if Path(path).is_absolute():
        return ""
    meant = f", by which {began_in / path} was meant in the training," if began_in and began_in != Path.cwd() else ""
    return f" ({Path.cwd() / path}){meant}"


def _missing(problem: str) -> str:
    return (
        f"{problem}: download ACDC from {ACDC_URL} and name the folder that holds patient001, patient002, ... (or its "
        "training/ and testing/), or run without data with --flagfile=launch/phantom.flags."
    )


def choose_split(config: DataConfig, cases: list[Case]) -> splits.Split:
    """The split file's, or the one of --split_by. Raises UserError as these do, and where nobody who validates has a ground truth."""
    if config.split_file:
        split = splits.read_split(config.split_file, cases)
    else:
        split = splits.split_by(cases, config.split_by, config.folds, config.fold, config.split_seed)
    if split["val"] and not any(case.perhaps_labelled for case in splits.select(split, cases, "val")):
        flag = f"--split_file={config.split_file}" if config.split_file else f"--split_by={config.split_by}"
        raise UserError(f"{flag}: none of those who validate has a ground truth (as {split['val'][0]}); choose another split.")
    return split


def screen(cases: Iterable[Case], read: Callable[[Case], T], skip_bad: bool, count: int = 0) -> tuple[dict[str, T], Problems]:
    """What `read` makes of each sound case, by name, and what is wrong with the others, which are listed on stderr.

    `count` is the number of patients that these cases are some of, 0 where they are all.

    Raises:
      BadData: some are bad and `skip_bad` is false: all that is wrong with all of them; or none is sound.
    """
    cases, found, bad = list(cases), {}, {}
    for case in cases:
        try:
            found[case.name] = read(case)
        except BadData as error:
            bad[case.name] = error.problems
    problems = [problem for several in bad.values() for problem in several]
    if bad and not (skip_bad and found):
        advice = "correct them" if skip_bad else "correct them, or leave them out by --skip_bad_cases"
        raise BadData([*problems, f"{len(bad)} of {count or len(cases)} cases are bad: {advice}."])
    if bad:
        print("\n".join([*problems, f"left out: {', '.join(bad)}"]), file=sys.stderr)
    return found, bad


def without(split: splits.Split, left_out: Iterable[str]) -> splits.Split:
    """The split without these patients. Raises UserError where nobody is left to learn from, or to validate."""
    gone = set(left_out)
    rest = {part: [name for name in names if name not in gone] for part, names in split.items()}
    for part in ("train", "val"):
        if split[part] and not rest[part]:
            raise UserError(f"--skip_bad_cases leaves nobody in '{part}' of the split: correct some of them.")
    return rest
