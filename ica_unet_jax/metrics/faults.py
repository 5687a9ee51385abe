"""Where the Dice is lost: the correct voxels of each slice, and the wrong ones by kind of error.

Each wrong voxel of a structure has one kind, the first that fits:

| kind       | missing voxels (of the truth alone)                | added voxels (of the prediction alone)               |
| ---------- | -------------------------------------------------- | ---------------------------------------------------- |
| slice      | in a slice where none of the structure is predicted | in a slice where the truth has none of the structure |
| island     | -                                                  | outside the largest component of what is predicted    |
| edge       | no further than `EDGE_MM` from the truth's contour  | the same                                              |
| far        | further                                             | further                                               |

Distances are in the plane of a slice, from voxel centre to voxel centre.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from ica_unet_jax.errors import UserError
from ica_unet_jax.labels import STRUCTURES
from ica_unet_jax.metrics.components import largest_component

EDGE_MM = 3.0  # two voxels of the model's grid
KINDS = ("slice", "island", "edge", "far")
COUNTS = ("right", *(f"{side}_{kind}" for side in ("missing", "added") for kind in KINDS if (side, kind) != ("missing", "island")))
POSITIONS = ("base", "middle", "apex", "beyond")

Row = dict[str, Any]


def slice_faults(prediction: np.ndarray, truth: np.ndarray, spacing: Sequence[float]) -> list[Row]:
    """A row for each slice and structure that the prediction or the truth has there.

    Args:
      prediction, truth: labels (slices, rows, columns).
      spacing: (dz, dy, dx) in mm.

    Returns:
      rows of structure, slice (from 0), position (see `positions`) and `COUNTS`, in voxels.

    Raises:
      UserError: shapes that differ.
    """
    if prediction.shape != truth.shape or truth.ndim != 3:
        raise UserError(f"Prediction {prediction.shape} and truth {truth.shape} cannot be compared: give both as (slices, rows, columns).")
    where, rows = positions(truth), []
    for name, label in STRUCTURES.items():
        found, real = prediction == label, truth == label
        box = _box(found | real)
        found, real = found[:, *box], real[:, *box]
        island = found & ~largest_component(found)
        for z in range(len(truth)):
            if not (found[z].any() or real[z].any()):
                continue
            counts = dict.fromkeys(COUNTS, 0) | {"right": int(np.count_nonzero(found[z] & real[z]))}
            for side, wrong, whole in (("missing", real[z] & ~found[z], found[z]), ("added", found[z] & ~real[z], real[z])):
                if not whole.any():
                    counts[f"{side}_slice"] = int(np.count_nonzero(wrong))
                    continue
                if side == "added":
                    counts["added_island"] = int(np.count_nonzero(wrong & island[z]))
                    wrong = wrong & ~island[z]
                near = ndimage.distance_transform_edt(real[z] if side == "missing" else ~real[z], sampling=spacing[1:]) <= EDGE_MM
                counts[f"{side}_edge"] = int(np.count_nonzero(wrong & near))
                counts[f"{side}_far"] = int(np.count_nonzero(wrong & ~near))
            rows.append({"structure": name, "slice": z, "position": where[z]} | counts)
    return rows


def _box(mask: np.ndarray) -> tuple[slice, slice]:
    """The rows and columns that hold a mask (slices, rows, columns), and one more on each side: as far as a contour goes."""
    spans = [np.flatnonzero(mask.any((0, other))) for other in (2, 1)]
    return tuple(slice(max(0, span[0] - 1), span[-1] + 2) if len(span) else slice(0) for span in spans)


def positions(truth: np.ndarray) -> list[str]:
    """Where each slice of a labelled stack lies: thirds of the slices that show a heart, "beyond" for the others.

    The base is the end whose outer third has the larger area, as affines do not tell it reliably.
    """
    area = np.count_nonzero(truth, axis=(1, 2))
    [shown] = np.nonzero(area)
    if not len(shown):
        return ["beyond"] * len(truth)
    first, last = int(shown[0]), int(shown[-1])
    third = max(1, (last - first + 1) // 3)
    from_base = area[first : first + third].sum() >= area[last + 1 - third : last + 1].sum()
    found = []
    for z in range(len(truth)):
        depth = (z - first if from_base else last - z) / (last - first + 1)
        found.append(POSITIONS[int(3 * depth)] if first <= z <= last else "beyond")
    return found


def dice_of(rows: Sequence[Row], mended: str = "") -> float:
    """Dice of some rows of one structure together; with the faults of one kind mended, if one of `KINDS` is named.

    NaN where nothing is labelled or predicted.
    """
    total = {name: sum(row[name] for row in rows) for name in COUNTS}
    missing, added = (sum(total[name] for name in COUNTS if name.startswith(side)) for side in ("missing", "added"))
    right, back, gone = total["right"], total.get(f"missing_{mended}", 0), total.get(f"added_{mended}", 0)
    both = 2 * right + missing + added + back - gone
    return 2 * (right + back) / both if both else float("nan")
