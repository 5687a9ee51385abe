"""Compares the orientation of cases with that of the training patients: turns those that differ, or says so."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from ica_unet_jax.config import DataConfig
from ica_unet_jax.data import orientation, reading
from ica_unet_jax.data.case import Case, Cine, Examination
from ica_unet_jax.errors import BadData, UserError
from ica_unet_jax.inference.options import Options
from ica_unet_jax.runs import run_folder
from ica_unet_jax.runs.trained import Trained


def codes_for(trained: Trained, data: DataConfig, chosen: Options) -> str:
    """The axis letters that cases are turned to; "" where they stay as they are.

    Raises UserError where nothing says how its training patients lay.
    """
    if not chosen.turns(data):
        return ""
    if codes := trained.orientation.usual:
        return codes
    raise UserError(
        f"--reorient: {trained.name} does not say how its training patients lay, as it is of an earlier version or they had no orientation: "
        f"leave it out, or, if you know, write {run_folder.ORIENTATION} or the like into {trained.path / 'orientation.json'}."
    )


def read(path: Path, codes: str = "", *, whole: bool = True) -> Cine:
    """An image by itself, 3D or 4D, turned to the axis letters `codes`; what is odd about it goes to stderr.

    Raises UserError as `reading.examine_file` does, and BadData with all that is wrong with it.
    """
    return sound(reading.examine_file(path, codes, whole=whole))


def sound(seen: Examination) -> Cine:
    """The images that were examined; what is odd about them goes to stderr. Raises BadData with all that is wrong with them."""
    if seen.problems:
        raise BadData(seen.problems)
    for told in seen.remarks:
        print(f"note: {told}", file=sys.stderr)
    return seen.cine


def remark(trained: Trained, cases: Iterable[Case], codes: str) -> str:
    """A sentence about the cases that lie otherwise than all training patients; "" where none does, or nothing says how these lay.

    `codes` as `codes_for` gives them. To a network that was trained for any orientation none is new.
    """
    learnt, cases = trained.orientation, list(cases)
    known = {codes} if codes else set(learnt.codes)
    others = [case for case in cases if reading.codes_of(case) not in known]
    if not learnt.usual or not others or (not codes and trained.config.data.any_orientation):
        return ""
    which, lie = f"{len(others)} of {len(cases)} cases" if len(cases) > 1 else f"{cases[0].image}", reading.lie(others)
    doubt = orientation.doubt(learnt, lie)
    if codes:
        return f"{which}: turned to {codes}, as the training patients lay ({lie.told}).{doubt}"
    return (
        f"{which}: by the affine they lie otherwise in the patient ({lie.told}) than the training's ({learnt.told}). If that is true, "
        f"the network sees mirrored or turned hearts and finds less of them, of the RV above all: --reorient turns them.{doubt}"
    )
