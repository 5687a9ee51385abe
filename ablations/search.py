"""How well the search for the heart tells it from what a network takes for one: for docs/results/levers.md.

  python ablations/search.py --networks=A.safetensors,B.safetensors --data_dir=ACDC --csv=FILE

Looks through all windows of the first frame of each patient on whom a network was validated, as the search does, and keeps what it saw.
"""

from __future__ import annotations

import csv
import dataclasses
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # not this folder, whose modules would hide the standard library's

from absl import flags  # noqa: E402

from ica_unet_jax import launcher  # noqa: E402
from ica_unet_jax.inference import roi  # noqa: E402
from ica_unet_jax.labels import STRUCTURES  # noqa: E402
from ica_unet_jax.reporting.markup import number, plain_table  # noqa: E402

COLUMNS = ("network", "patient", "apart", *STRUCTURES, "unsure")
ENOUGH, SURENESS = (1e9, 3000, 1000), (0.0, 10.0, 20.0)  # that are compared
NEAR, FAR = 0.4, 0.6  # of the window's size: so near to the heart's centre it is found, so far away the window shows another thing

Row = dict[str, Any]


def main() -> None:
    from ica_unet_jax.runtime import files

    given = flags.FLAGS
    files.check_place(given.csv)
    rows = [row for number, network in enumerate(given.networks, start=1) for row in looked(number, network, given.data_dir)]
    with files.replacing(given.csv) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: f"{value:.4g}" if isinstance(value, float) else value for name, value in row.items()} for row in rows)
    print(table(read(given.csv)))


def looked(number: int, network: str, data_dir: str) -> Iterator[Row]:
    """A row for each window: voxels of each structure, entropy in nats, and how far its centre is from the heart's, in parts of its size."""
    from ica_unet_jax.data import reading
    from ica_unet_jax.data.heart import middle
    from ica_unet_jax.evaluation import judging
    from ica_unet_jax.inference import segmenters
    from ica_unet_jax.runs.trained import find

    trained = find(network)
    segmenter = segmenters.load(trained)
    for case in judging.choose_cases(trained.split, dataclasses.replace(segmenter.config.data, data_dir=data_dir), "val"):
        cine = reading.read(case)
        placement, frame = segmenter.place(cine.frames.shape[1:], cine.spacing), segmenter.put(cine.frame(0))
        centre = middle(cine.labels[min(cine.labels)], placement)
        for place in roi.tiles(placement):
            sight = segmenter.look(place, frame)
            apart = max(abs(a - b) / size for a, b, size in zip(place.offset, centre, place.crop[1:], strict=True))
            counts = {name: np.count_nonzero(sight.labels == label) for name, label in STRUCTURES.items()}
            yield dict(network=number, patient=case.name, apart=float(apart)) | counts | dict(unsure=float(sight.unsure))


def read(path: str | Path) -> list[Row]:
    """The rows that `main` wrote."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        return [row | {name: float(row[name]) for name in COLUMNS[2:]} for row in csv.DictReader(file)]


def table(rows: Sequence[Row]) -> str:
    """For each way to weigh the patients whose best window is not on the heart, and the smallest lead of the heart over what is far from it."""
    seen: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        seen[row["network"], row["patient"]].append(row)
    lines = []
    for sureness in SURENESS:
        for enough in ENOUGH:
            lost, leads = 0, []
            for windows in seen.values():
                found = [(roi.weighed([row[name] for name in STRUCTURES], row["unsure"], sureness, enough), row["apart"]) for row in windows]
                lost += max(found)[1] > NEAR
                far = [worth for worth, apart in found if apart > FAR]
                leads.append(max(worth for worth, apart in found if apart <= NEAR) - max(far, default=-np.inf))
            lines.append((f"{sureness:g}", "all" if enough > 1e6 else f"{enough:g}", f"{lost} of {len(seen)}", number(min(leads), 1, signed=True)))
    heads = ("Weight of a nat", "Voxels that count", "Hearts missed at first", "Smallest lead of a heart")
    return plain_table(heads, lines, [True] * 4)


if __name__ == "__main__":
    flags.DEFINE_list("networks", None, "Run folders or files of weights.", required=True)
    flags.DEFINE_string("data_dir", None, "The cohort that they were trained on.", required=True)
    flags.DEFINE_string("csv", None, "File for what was seen.", required=True)
    launcher.run(main)
