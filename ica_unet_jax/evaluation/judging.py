"""Judges a trained model on a cohort: labelled frames against their ground truth, whole cines over time, pictures."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ica_unet_jax.config import DataConfig
from ica_unet_jax.data import cohort, reading, splits
from ica_unet_jax.data.case import Case
from ica_unet_jax.errors import UserError
from ica_unet_jax.evaluation import decomposition, frames, pages, where_lost
from ica_unet_jax.evaluation import pictures as figures
from ica_unet_jax.inference import segmenters, turning
from ica_unet_jax.inference.options import JUDGE, ORACLE, USUAL, Options, choose
from ica_unet_jax.metrics import cases
from ica_unet_jax.metrics.over_time import behaviour, mean_behaviour
from ica_unet_jax.metrics.surface import NSD_MM
from ica_unet_jax.runs import provenance
from ica_unet_jax.runs.trained import Trained, find
from ica_unet_jax.runtime.files import write_json, write_text
from ica_unet_jax.runtime.progress import Progress


def evaluate(
    network: str | Path | Trained,
    out: str | Path = "",
    *,
    split: str = "val",
    cines: int = 3,
    nsd_mm: float = NSD_MM,
    pictures: bool = True,
    skip_bad_cases: bool = False,
    by: str = "",
    **given: Any,
) -> Path:
    """Judges every labelled frame of the chosen patients; returns the folder with the results.

    It holds cases.csv (a line for each frame), table.md, summary.json, faults.csv (where the Dice is lost), of a network with bases ica.csv, and, unless told
    otherwise, pictures/ (overlays of each patient, volume curves of each whole cine).

    Args:
      network: as `trained.find` finds it.
      out: folder to write into; empty: evaluation_SPLIT in the run folder, with _best, _WINDOW, _largest_component, _mirror, _reorient, _itself,
        a runtime, an arithmetic and, as in _nsd_1mm, another tolerance where these are asked for.
      split: "val", "test" or "train" of the run's split, or "all" patients of the cohort.
      cines: so many patients that have a cine are segmented whole, for the figures over time.
      nsd_mm: tolerance of the normalized surface Dice, in mm.
      pictures: draw overlays and volume curves.
      skip_bad_cases: leave bad cases out, which the summary and the table then name.
      by: one of `splits.DOMAINS`: the figures of each vendor, centre or group too; by default of each cohort and vendor, where there are several.
      given: options of `options.JUDGE`.

    Raises:
      UserError: no such network, patients that the cohort lacks, or none with a ground truth, an unknown option.
      BadData: all that is wrong with the chosen patients that have one.
    """
    chosen = choose(JUDGE, given)
    trained, made_by = find(network), provenance.this_process()
    if not (out or trained.folder):
        raise UserError(f"--out is not given: {trained.name} has no folder; name one for the results.")
    segmenter = segmenters.load_as(trained, chosen)
    data = chosen.cohort(segmenter.config.data)
    patients = choose_cases(trained.split, data, split, None if chosen.data_dir else trained.began_in)
    codes = turning.codes_for(trained, segmenter.config.data, chosen)
    judged = [case for case in patients if case.perhaps_labelled]
    found, left_out = cohort.screen(judged, lambda case: bool(reading.read(case, data.label_map, codes=codes)), skip_bad_cases, len(patients))
    labelled = [case for case in judged if case.name in found]
    told = turning.remark(trained, labelled, codes)
    if told:
        print(f"note: {told}", file=sys.stderr)
    window, snippets = chosen.seen_through(data), segmenter.config.model.answered > 1
    decomposer = decomposition.Decomposer(segmenter) if segmenter.config.model.has_bases else None
    folder = Path(out or trained.folder / _name(split, chosen, segmenter.config.data, nsd_mm))
    rows, faults, limits, bases, over_time = [], [], [], [], {}
    with Progress(len(labelled), unit="patient") as progress:
        for done, case in enumerate(labelled, start=1):
            cine = reading.read(case, data.label_map, codes=codes)
            whole = bool(case.cine) and len(cine.times) > 2 and len(over_time) < cines
            times = cine.times if whole else sorted(cine.labels)
            if pictures or whole or not snippets:
                labels, placements = frames.segment(segmenter, cine, times, chosen)
            if snippets:
                rows += frames.judge_positions(segmenter, cine, nsd_mm, chosen)
            else:
                rows += frames.judge(cine, labels, placements, nsd_mm)
                faults += where_lost.judge(cine, labels)
                limits += where_lost.limits(cine, placements)
            if decomposer:
                bases += decomposition.judge(decomposer, cine)
            if pictures:
                figures.draw_overlay(folder / "pictures" / f"{case.name}.png", cine, labels)
            if whole:
                if pictures:
                    figures.draw_volumes(folder / "pictures" / f"{case.name}_volumes.png", cine, labels)
                over_time[case.name] = behaviour(*frames.stacks(cine, labels), cine.spacing)
            progress.update(done)

    bases = decomposition.rows_of(bases)
    summary = {
        "split": split,
        "metrics_version": cases.METRICS_VERSION,
        "notes": [*notes(trained.split, labelled, split, chosen, left_out), *filter(None, [told.removesuffix(".")])],
        "patients": [case.name for case in labelled],
        "patients_without_ground_truth": [case.name for case in patients if not case.perhaps_labelled],
        "left_out": left_out,
        "checkpoint": chosen.checkpoint,
        "checkpoint_step": segmenter.step,
        "runtime": segmenter.runtime,
        "compute_dtype": segmenter.config.model.compute_dtype,
        "window": window,
        "largest_component": chosen.largest_component,
        "mirror": chosen.mirror,
        "turned_to": codes,
        "neighbour_frames": chosen.neighbour_frames,
        "nsd_mm": nsd_mm,
        **cases.summarize(rows),
        "grid_dice": where_lost.mean_limit(limits),
        "domains": {field: by_domain(field, labelled, rows) for field in ([by] if by else several(labelled))},
        "ica": decomposition.summarize(bases),
        "over_time": over_time,
        "over_time_mean": mean_behaviour(over_time.values()),
        "provenance": {
            "training": trained.provenance,
            "evaluation": made_by,
        },
    }
    cases.write_cases_csv(folder / "cases.csv", rows)
    if faults:
        where_lost.write_csv(folder / "faults.csv", faults)
    if bases:
        decomposition.write_csv(folder / "ica.csv", bases)
    write_text(folder / "table.md", pages.page(trained.path.resolve().stem if trained.folder is None else trained.path.resolve().name, summary, rows, faults))
    write_json(folder / "summary.json", summary)
    return folder


def _name(split: str, chosen: Options, trained_on: DataConfig, nsd_mm: float) -> str:
    """The folder of an evaluation inside its run's: what was asked for beside the usual."""
    asked = {
        chosen.checkpoint: chosen.checkpoint == "best",
        chosen.window: chosen.seen_through(trained_on) != trained_on.window,
        "largest_component": chosen.largest_component,
        "mirror": chosen.mirror,
        "reorient" if chosen.reorient else "noreorient": chosen.turns(trained_on) != trained_on.reorient,
        chosen.neighbour_frames: chosen.neighbour_frames == "itself",
        f"nsd_{nsd_mm:g}mm": nsd_mm != NSD_MM,
        chosen.runtime: chosen.runtime != USUAL.runtime,
        str(chosen.compute_dtype): chosen.compute_dtype is not None,
    }
    return "_".join(["evaluation", split, *(name for name, told in asked.items() if told)])


def choose_cases(trained: splits.Split, data: DataConfig, split: str, began_in: Path | None = None) -> list[Case]:
    """The cases of `split` in the cohort that `data` names; `trained` is the run's split, `began_in` as in `cohort.folder`.

    Raises:
      UserError: the cohort lacks some of them, or none of the chosen has a ground truth.
    """
    if split == "val" and trained["train"] and not trained["val"]:
        raise UserError("--split=val: in this training nobody validated; give --split=test or train, or --split=all of another cohort.")
    if split in ("train", "val") and not trained[split]:
        raise UserError(f"--split={split}: this network does not tell who its patients were; give --split=all, and see to it that it knows none of them.")
    found = cohort.open_cohort(data, write=False, began_in=began_in)
    wanted = [] if split == "all" else trained.get(split, [])
    missing = sorted(set(wanted) - {case.name for case in found})
    if missing:
        few = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise UserError(
            f"--split={split} of this run names {len(missing)} of {len(wanted)} patients that "
            f"--data_dir={data.data_dir} lacks ({few}): "
            "give the data of the training, or --split=all for a cohort of its own."
        )
    chosen = splits.select(trained, found, split)
    if not any(case.labelled for case in chosen):
        raise UserError(
            f"--data_dir={data.data_dir} holds no ground truth of the chosen patients: "
            "add NAME_frameNN_gt.nii.gz files, or segment without judging by ica_unet_jax.predict."
        )
    return chosen


def several(judged: Sequence[Case]) -> list[str]:
    """Whether there are cohorts, and vendors: the fields of a case that differ."""
    return [field for field in ("cohort", "vendor") if len({getattr(case, field) for case in judged}) > 1]


def by_domain(by: str, judged: Iterable[Case], rows: Sequence[cases.Row]) -> dict[str, dict[str, Any]]:
    """{vendor (or what `by` names): its `patients` and what `cases.summarize` makes of their rows}; "unknown" where a case does not say."""
    patients: dict[str, list[str]] = {}
    for case in sorted(judged, key=lambda case: getattr(case, by)):
        patients.setdefault(getattr(case, by) or "unknown", []).append(case.name)
    return {domain: {"patients": names, **cases.summarize([row for row in rows if row["patient"] in names])} for domain, names in patients.items()}


def notes(
    trained: splits.Split, judged: Iterable[Case], split: str, chosen: Options = USUAL, left_out: Iterable[str] = ()
) -> list[str]:
    """What a reader of the figures has to know."""
    training = sorted(set(trained["train"]) & {case.name for case in judged})
    found = []
    if training:
        found.append(f"contains training patients ({len(training)} by name)")
    if chosen.checkpoint == "best" and split != "test":
        found.append("the checkpoint was chosen on the validation patients")
    if left_out:
        found.append(f"bad cases were left out: {', '.join(left_out)}")
    if chosen.window == ORACLE:
        found.append("the window was centred on the ground truth, which nobody has")
    if chosen.neighbour_frames == "itself":
        found.append("each frame was shown as its own neighbour")
    return found
