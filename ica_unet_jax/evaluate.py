"""Judges a trained network: `python -m ica_unet_jax.evaluate --workdir=RUN --split=val`.

Writes summary.json, cases.csv, table.md and pictures/ into --out.
"""

from __future__ import annotations

from absl import flags

from ica_unet_jax import launcher

_WORKDIR = flags.DEFINE_string("workdir", None, "Run folder of a training.", required=True)
_DATA_DIR = flags.DEFINE_string("data_dir", "", "Cohort to judge on; empty: the one of the training.")
_LABEL_MAP = flags.DEFINE_string(
    "label_map", None, "Label order of that cohort, as from:to pairs; by default the training's."
)
_SPLIT = flags.DEFINE_enum(
    "split", "val", ("val", "test", "all"), "Patients: of the run's split, or all of --data_dir."
)
_CHECKPOINT = flags.DEFINE_enum(
    "checkpoint", "latest", ("latest", "best"), "Latest (for reporting) or best on validation."
)
_WINDOW = flags.DEFINE_enum(
    "window",
    None,
    ("centre", "follow", "oracle"),
    "Where the model looks in a larger frame: at its centre, where it finds the heart, or, for comparison alone, where "
    "the ground truth has it; by default as it was trained.",
)
_OUT = flags.DEFINE_string("out", "", "Folder to write into; empty: RUN/evaluation_SPLIT, with what is asked for beside it, as in evaluation_val_follow.")
_CINES = flags.DEFINE_integer(
    "cines", 3, "So many patients are segmented over their whole cine, for the figures over time.", lower_bound=0
)
_LARGEST = flags.DEFINE_bool(
    "largest_component", False, "Keep the largest connected component of each structure alone."
)
_MIRROR = flags.DEFINE_bool(
    "mirror", False, "Average with the three mirror images (four times the work); for runs with --flip."
)
_NEIGHBOUR_FRAMES = flags.DEFINE_enum(
    "neighbour_frames", "cine", ("cine", "itself"), "A frame's neighbours: those of the cine, or the frame itself, to tell what they are worth."
)
_NSD_MM = flags.DEFINE_float("nsd_mm", 2.0, "Tolerance of the normalized surface Dice, in mm.", lower_bound=0.0)
_SKIP = flags.DEFINE_bool("skip_bad_cases", False, "Leave out the cases that check_data complains of, list them, and go on.")


def main() -> None:
    from ica_unet_jax.evaluation import judging

    out = judging.evaluate(
        _WORKDIR.value,
        _OUT.value,
        data_dir=_DATA_DIR.value,
        label_map=_LABEL_MAP.value,
        split=_SPLIT.value,
        which=_CHECKPOINT.value,
        window=_WINDOW.value,
        cines=_CINES.value,
        largest_component=_LARGEST.value,
        mirror=_MIRROR.value,
        neighbour_frames=_NEIGHBOUR_FRAMES.value,
        nsd_mm=_NSD_MM.value,
        skip_bad_cases=_SKIP.value,
    )
    print((out / "table.md").read_text())
    print(f"pictures in {out / 'pictures'}")


if __name__ == "__main__":
    launcher.run(main)
