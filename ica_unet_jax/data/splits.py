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
DOMAINS = ("cohort", "vendor", "centre", "group")  # fields of a case
FOLDS, PUBLISHED, NONE = "folds", "published", "none"


def is_test(case: Case) -> bool:
    """Whether a patient belongs to a published test set: by the reader, or by a name of ACDC's, patient101 to patient150."""
    match = re.fullmatch(r"patient(\d{3})", case.name)
    return case.part == "test" or bool(match) and 101 <= int(match[1]) <= 150


def split_by(cases: list[Case], by: str, folds: int, fold: int, seed: int) -> Split:
    """The split that `by` asks for: "folds", those of the cohort's publishers or else of `fold_split`; "published", its parts; or, as in
    "vendor=Philips", who validates, by a field of the case; the other patients train, but for those of published test sets. With "none"
    all of these train, and nobody validates.

    Raises UserError where nobody would train, or validate who should.
    """
    field, sign, value = by.partition("=")
    brought = {len(case.folds) for case in cases if case.folds}
    if by == FOLDS and not brought:
        return fold_split(cases, folds, fold, seed)
    if by == FOLDS and fold >= min(brought):
        raise UserError(f"--fold={fold}: the splits_final.json of the data has {min(brought)} folds; choose one of 0 to {min(brought) - 1}.")
    if by == FOLDS:
        parts = {case.name: case.folds[fold] for case in cases if case.folds and not is_test(case)}
    elif by == PUBLISHED:
        parts = {case.name: case.part for case in cases}
    elif by == NONE:
        parts = {case.name: "train" for case in cases if not is_test(case)}
    elif sign and field in DOMAINS:
        parts = {case.name: "val" if getattr(case, field).lower() == value.lower() else "train" for case in cases if not is_test(case)}
    else:
        raise UserError(f"--split_by={by} is not known: give {FOLDS}, {PUBLISHED}, {NONE}, or who validates, as vendor=Philips ({', '.join(DOMAINS)}).")
    split = {part: sorted(name for name, own in parts.items() if own == part) for part in ("train", "val")}
    if lacking := " and ".join(part for part, names in split.items() if not names and (part, by) != ("val", NONE)):
        there = f": there are {', '.join(sorted({getattr(case, field) for case in cases} - {''})) or 'none'}" if sign else ""
        raise UserError(f"--split_by={by} leaves nobody in {lacking}{there}; choose another split.")
    if whole := {case.cohort for case in cases if not is_test(case)} - {case.cohort for case in cases if parts.get(case.name)}:
        raise UserError(f"--split_by={by} leaves out all of {min(whole)}, which does not say who trains; give a --split_file, or another --split_by.")
    return split


def remarks(split: Split, cases: list[Case]) -> list[str]:
    """What may surprise who asked for a split: patients who are in no part of it, and frames of nnU-Net's that may be of one patient."""
    chosen = {name for names in split.values() for name in names}
    test = {case.name for case in cases if is_test(case) and not any(case.folds)}
    found = []
    if rest := sorted({case.name for case in cases} - chosen - test):
        found.append(f"{len(rest)} of {len(cases)} patients are in no part of the split ({', '.join(rest[:3])}{', ...' if rest[3:] else ''}).")
    names = {part: {case.name for case in cases if case.reader == "nnunet" and case.name in split[part]} for part in ("train", "val")}
    begins = {part: {name.rpartition("_")[0]: name for name in sorted(own)} for part, own in names.items()}
    both = sorted(set(begins["train"]) & set(begins["val"]) - {""})
    if both and len({*begins["train"], *begins["val"]}) > 1:
        one, other = (begins[part][both[0]] for part in ("train", "val"))
        found.append(f"{one} trains and {other} validates; if these are frames of one patient, call them {both[0]}_frame01, {both[0]}_frame02, ... in "
                     "all folders, or give a --split_file.")
    return found


def fold_split(cases: list[Case], folds: int, fold: int, seed: int) -> Split:
    """{"train": names, "val": names} of fold number `fold`, sorted; patients of published test sets are in neither.

    Folds are stratified by cohort, vendor, centre and group and depend on the names, these and the seed, not on the order of the cases. Who has no
    ground truth and was published for the training trains in all folds.

    Raises UserError where there are fewer patients than folds.
    """
    groups, always = defaultdict(list), []
    for case in cases:
        if case.part == "train" and not case.labelled:
            always.append(case.name)
        elif not is_test(case):
            groups[case.cohort, case.vendor, case.centre, case.group].append(case.name)
    count = sum(map(len, groups.values()))
    if count < folds:
        raise UserError(f"--folds={folds} needs at least {folds} patients outside the test set, the data have {count}; "
                        "add cases, take fewer folds or give a --split_file.")
    rng = np.random.default_rng(seed)
    # Dealing goes on from group to group, so that the folds' sizes differ by one at most, as their groups do.
    deck = [name for group in sorted(groups) for name in rng.permutation(sorted(groups[group])).tolist()]
    val = deck[fold::folds]
    return {"train": sorted({*deck, *always} - set(val)), "val": sorted(val)}


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

    test is the split's own "test" where it has one, otherwise the published test set.

    Raises UserError where none are left.
    """
    if which == "all":
        chosen = list(cases)
    elif which == "test" and "test" not in split:
        chosen = [case for case in cases if is_test(case)]
    else:
        chosen = [case for case in cases if case.name in set(split[which])]
    if not chosen:
        raise UserError(f"--split={which}: the data hold no such patients; choose another split or --data_dir.")
    return chosen
