"""How a trained network segments, and on which cohort: what the commands and functions that use one have in common.

A command has a flag for each option that its function takes as a keyword; both come from here, with one text and one check.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from ica_unet_jax.config import DataConfig, TrainConfig
from ica_unet_jax.errors import UserError
from ica_unet_jax.knobs import Part, knob
from ica_unet_jax.portable.runtimes import AUTO, JAX, RUNTIMES

if TYPE_CHECKING:
    from ica_unet_jax.runs.trained import Trained

WINDOWS = ("centre", "follow")
ORACLE = "oracle"  # needs a ground truth


@dataclasses.dataclass(frozen=True)
class Options(Part):
    """Raises UserError for a value that is not known."""

    checkpoint: str = knob("latest", "Latest (for reporting) or best on validation.", choices=("latest", "best"))
    window: str | None = knob(
        None,
        "Where the model looks in a larger frame: at its centre, or where it finds the heart and follows it; oracle, for comparison "
        "alone: where the ground truth has the heart. By default as it was trained.",
        choices=(*WINDOWS, ORACLE),
    )
    mirror: bool = knob(False, "Average with the three mirror images (four times the work); for runs with --flip.")
    reorient: bool | None = knob(
        None, "Turn cases to the axis letters of the training's, by their affines, and masks back. By default as it was trained."
    )
    largest_component: bool = knob(False, "Keep the largest connected component of each structure alone.")
    neighbour_frames: str = knob(
        "cine", "A frame's neighbours: those of the cine, or the frame itself, to tell what they are worth.", choices=("cine", "itself")
    )
    runtime: str = knob(
        JAX,
        "What computes the network: jax, or on CPUs openvino or onnxruntime, which are faster and differ by round-off; auto: openvino where it is "
        "installed, otherwise jax.",
        choices=RUNTIMES,
    )
    compute_dtype: str | None = knob(
        None, "Arithmetic of the network, for processors that have bfloat16. By default as it was trained.", choices=("float32", "bfloat16")
    )
    data_dir: str | Path = knob("", "Cohort; empty: the one of the training.")
    reader: str | None = knob(None, "Layout of the cohort, as mms, one of those in docs/data.md; by default it is found by the names of files, or as in the training.")
    cohort_csv: str | None = knob(None, "Table of that cohort's patients (CSV with name, group, vendor, centre); by default the training's for its own cohort.")
    label_map: str | None = knob(None, "Label order of that cohort, as from:to pairs; by default the training's for its own cohort, or the one that the layout has.")

    def seen_through(self, data: DataConfig) -> str:
        """The window of a network that was trained on `data`."""
        return self.window or data.window

    def turns(self, data: DataConfig) -> bool:
        """Whether cases are turned, for a network that was trained on `data`."""
        return data.reorient if self.reorient is None else self.reorient

    def cohort(self, data: DataConfig) -> DataConfig:
        """Which cases, for a network that was trained on `data`.

        Raises UserError where the training had a label map, and nothing says whether it is that of another cohort too.
        """
        if self.data_dir and self.label_map is None and data.label_map:
            raise UserError(f"--label_map={data.label_map} was given in the training; for --data_dir={self.data_dir} give it again, another one, "
                            "or --label_map= for the one that its layout has.")
        label_map = data.label_map if self.label_map is None else self.label_map
        own = DataConfig() if self.data_dir else data
        reader, table = (getattr(own, name) if (given := getattr(self, name)) is None else given for name in ("reader", "cohort_csv"))
        return dataclasses.replace(
            data, data_dir=str(self.data_dir) or data.data_dir, label_map=label_map, reader=reader, cohort_csv=table,
            labelled_frames=own.labelled_frames,
        )  # fmt: skip


DEFAULT = "acdc_causal"  # of the weights in the package
USUAL = Options()
REAL_TIME = dict(runtime=AUTO)  # where each millisecond counts; elsewhere the same bytes on every machine do
FIELDS = {field.name: field for field in dataclasses.fields(Options)}
# What each function takes.
COMPUTE = ("runtime", "compute_dtype")
LOAD = ("checkpoint", "mirror", *COMPUTE)
EXPORT = ("checkpoint",)
STREAM = ("checkpoint", "window", "reorient", *COMPUTE)
PREDICT = ("checkpoint", "reader", "window", "largest_component", "mirror", "reorient", *COMPUTE)
DECOMPOSE = ("checkpoint", "data_dir", "reader", "label_map")
ROBUST = ("checkpoint", "mirror", "reorient", "data_dir", "reader", "label_map", *COMPUTE)
JUDGE = tuple(FIELDS)


def choose(names: tuple[str, ...], given: dict[str, Any]) -> Options:
    """The options of a function that takes those `names`, from its keywords.

    Raises:
      UserError: a value that is not known, or that this function cannot do.
      TypeError: another keyword.
    """
    if others := set(given) - set(names):
        raise TypeError(f"{min(others)} is no option here: there are {', '.join(names)}.")
    options = Options(**given)
    if options.window == ORACLE and names != JUDGE:
        raise UserError(f"--window={ORACLE} needs a ground truth, as evaluate has it: choose one of {', '.join(WINDOWS)}.")
    return options


def define_network() -> None:
    """The flags that name a trained network; `network` reads them."""
    flags.DEFINE_string("workdir", None, "Run folder of a training.")
    flags.DEFINE_string("weights", None, f"Instead of it: a file of weights, hf:OWNER/NAME, or the name of weights in the package, of which {DEFAULT} is taken by default.")


def network() -> Trained:
    """The network that these flags name; which it is, where they name nothing, goes to stderr.

    Raises:
      UserError: both are given.
    """
    from ica_unet_jax.runs import trained  # jax, which no help text waits for

    workdir, weights = flags.FLAGS.workdir, flags.FLAGS.weights
    if workdir and weights:
        raise UserError(f"--workdir={workdir} with --weights={weights}: two networks; leave one of them out.")
    if workdir:
        return trained.Run(Path(workdir))
    if weights:
        return trained.weights(weights)
    trained_here = Path(TrainConfig().workdir)
    beside = f" The one in {trained_here} is taken by --workdir={trained_here}." if (trained_here / "config.json").is_file() else ""
    print(f"note: the network is {DEFAULT}, which comes with the package.{beside}", file=sys.stderr)
    return trained.weights(DEFAULT)


def define(names: tuple[str, ...], **defaults: Any) -> None:
    """A flag for each of the options of those `names`, with other `defaults` than elsewhere for some."""
    for name in names:
        field = FIELDS[name]
        text, choices, default = field.metadata["help"], field.metadata["choices"], defaults.get(name, field.default)
        if choices:
            flags.DEFINE_enum(name, default, choices, text)
        else:
            (flags.DEFINE_bool if "bool" in field.type else flags.DEFINE_string)(name, default, text)


def given(names: tuple[str, ...]) -> dict[str, Any]:
    """The keywords that the parsed flags stand for."""
    return {name: flags.FLAGS[name].value for name in names}
