"""Which patients train, which validate and which test."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path

import numpy as np

from ica_unet_jax.data.case import Case
from ica_unet_jax.errors import UserError

Split = dict[str, list[str]]


def is_test(name: str) -> bool:
    """Whether a name is one of ACDC's test set, patient101 to patient150."""
    match = re.fullmatch(r"patient(\d{3})", name)
    return bool(match) and 101 <= int(match[1]) <= 150


def fold_split(cases: list[Case], folds: int, fold: int, seed: int) -> Split:
    """{"train": names, "val": names} of fold number `fold`, sorted; ACDC's test patients are in neither.

    Folds are stratified by group and depend on the names, the groups and the seed, not on the order of the cases.

    Raises UserError where there are fewer patients than folds.
    """
    groups = defaultdict(list)
    for case in cases:
        if not is_test(case.name):
            groups[case.group].append(case.name)
    count = sum(map(len, groups.values()))
    if count < folds:
        raise UserError(f"--folds={folds} needs at least {folds} patients outside the test set, the data have {count}; "
                        "add cases, take fewer folds or give a --split_file.")
    rng = np.random.default_rng(seed)
    # Dealing goes on from group to group, so that the folds' sizes differ by one at most, as their groups do.
    deck = [name for group in sorted(groups) for name in rng.permutation(sorted(groups[group])).tolist()]
    val = deck[fold::folds]
    return {"train": sorted(set(deck) - set(val)), "val": sorted(val)}


def read_split(path: str | Path, cases: list[Case]) -> Split:
    """A split from JSON: {"train": [...], "val": [...]} and optionally "test", lists of patients' names.

    Raises UserError if the file is missing or malformed, names an unknown patient, or one twice.
    """
    try:
        split = json.loads(Path(path).read_bytes())  # of any UTF, with a byte order mark or without
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"--split_file={path} cannot be read as JSON ({error}); correct it.") from error
    well_formed = isinstance(split, dict) and {"train", "val"} <= set(split) <= {"train", "val", "test"} and all(
        isinstance(names, list) and all(isinstance(name, str) for name in names) for names in split.values())
    if not well_formed:
        raise UserError(f'--split_file={path} must be {{"train": [names], "val": [names]}}, "test" may be added.')
    known, seen = {case.name for case in cases}, {}
    for part, names in split.items():
        for name in names:
            if name not in known:
                raise UserError(f"--split_file={path}: {name} of '{part}' is not in the data; correct or remove it.")
            if name in seen:
                places = f"twice in '{part}'" if seen[name] == part else f"in '{seen[name]}' and '{part}'"
                raise UserError(f"--split_file={path}: {name} stands {places}; name each patient once.")
            seen[name] = part
    if not split["train"]:
        raise UserError(f"--split_file={path} has nobody in 'train'; name at least one patient.")
    return split


def select(split: Split, cases: list[Case], which: str) -> list[Case]:
    """The cases of `which` = train, val, test or all, in the order of `cases`.

    test is the split's own "test" where it has one, otherwise patient101 to patient150.

    Raises UserError where none are left.
    """
    if which == "all":
        chosen = list(cases)
    elif which == "test" and "test" not in split:
        chosen = [case for case in cases if is_test(case.name)]
    else:
        chosen = [case for case in cases if case.name in set(split[which])]
    if not chosen:
        raise UserError(f"--split={which}: the data hold no such patients; choose another split or --data_dir.")
    return chosen
