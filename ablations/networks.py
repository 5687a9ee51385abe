"""Studies that compare whole networks, each by its launch file, and some that change a given network."""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ica_unet_jax.benchmarking import work
from ica_unet_jax.config import Config, ModelConfig, fields
from ica_unet_jax.models import registry
from ica_unet_jax.runtime import launch_files
from ica_unet_jax.sweeps.study import Cell, Changes, Study

LAUNCH = Path(__file__).resolve().parent.parent / "launch"

# What belongs to a network, and is taken from its file. Everything else is the sweep's, the same for all: grid, steps, patients.
OWN = {field.name for part, field in fields() if part in ("model", "loss")} - {"crop", "compute_dtype"} | {
    "learning_rate", "optimizer", "momentum", "weight_decay", "decay_everything", "schedule", "warmup_steps", "clip_norm", "ema_decay",
    "recalibration", "flip", "drop_neighbour", "depth_shift",
}  # fmt: skip

# {title: launch files, one after the other}; the rivals' files are changes of acdc.flags, whose recipe they share.
ACDC = {"ICA-UNet": ("acdc",)}
RECOMMENDED = {"recommended network": ("recommended",)}
PAPER = {"paper, n = 4": ("paper_n4",)}
PAPER_N3 = {"paper, n = 3": ("paper_n3",)}
NO_ICA = {"no ICA": ("acdc", "no_ica")}
RIVALS = {
    "U-Net 2D": ("acdc", "baselines/unet2d"),
    "U-Net 3D": ("acdc", "baselines/unet3d"),
    "MSU-Net, span 2": ("acdc", "baselines/msu_net"),
    "GridNet": ("acdc", "baselines/grid_net"),
    "Ensemble U-Net": ("acdc", "baselines/ensemble_unet"),
    "Omega-Net": ("acdc", "baselines/omega_net"),
}
DESIGN = dict(encoder_width=12, decoder_frame=True, decoder_convs=2, decoder_width=24, reconstruction_weight=0.0, recalibration=100)  # of "recommended"
N = 4  # contracting blocks of launch/acdc.flags
RATES = (1.3e-3, 4e-3, 1.2e-2)
TEN = ACDC | PAPER | PAPER_N3 | NO_ICA | RIVALS


def settings(files: Iterable[str]) -> dict[str, Any]:
    """A network's own settings, by its launch files, of which a later one wins."""
    read = [launch_files.read(LAUNCH / f"{name}.flags") for name in files]
    return {name: value for values in read for name, value in values.items() if name in OWN}


def rows(networks: dict[str, tuple[str, ...]], **changes: Any) -> list[Cell]:
    return [(title, settings(files) | changes) for title, files in networks.items()]


def main_table(reference: Config) -> list[Cell]:
    """Ten networks; where the grid does not take n = 4, ICA-UNet has the reference's n in all its forms."""
    if (model := reference.model).contracting_blocks == N:
        return rows(ACDC | RECOMMENDED | PAPER | NO_ICA | RIVALS)
    n = dict(contracting_blocks=model.contracting_blocks)
    literal = {f"paper, n = {model.contracting_blocks}": PAPER_N3["paper, n = 3"]}
    [(title, no_ica)] = rows(NO_ICA)
    return [*rows(ACDC | RECOMMENDED | literal, **n), (title, no_ica | n | without_ica(model)), *rows(RIVALS)]


def acdc(base: Config) -> Changes:
    """ICA-UNet as launched, with n = 4, or with the sweep's own n on a grid that does not take it."""
    multiple = registry.NETWORKS["ica_unet"].grid(N)
    fits = all(size % multiple == 0 for size in base.model.crop[1:])
    return settings(("acdc",)) | dict(contracting_blocks=N if fits else base.model.contracting_blocks)


def once(reference: Config) -> list[Cell]:
    """The networks that are trained once."""
    spans = [cell for span in (3, 5, 10) for cell in rows({f"MSU-Net, span {span}": RIVALS["MSU-Net, span 2"]}, span=span)]
    return [*rows(ACDC | PAPER_N3), *spans]


def full_size(reference: Config) -> list[Cell]:
    """What was decided on the small window, once more by a training each: a plain U-Net, reconstruction with Eq. 2 alone, learned bases."""
    alone = dict(dice_weight=0.0)
    [recommended] = rows(RECOMMENDED)
    return [
        ("ICA-UNet", {}),
        *rows({"U-Net 2D": RIVALS["U-Net 2D"]}),
        ("Eq. 2 alone", alone),
        ("Eq. 2 alone, without R", alone | dict(reconstruction_weight=0.0)),
        recommended,
        ("bases from the frame alone", recommended[1] | dict(bases_from="frame")),
    ]


def learning_rates(reference: Config) -> list[Cell]:
    """Every network at the same three learning rates; the best of them is the one in its launch file."""
    return [(f"{title}, learning rate {_short(rate)}", own | dict(learning_rate=rate)) for title, own in rows(TEN) for rate in RATES]


def published(reference: Config) -> list[Cell]:
    """Rivals with the training that their papers print, beside the one that all share."""
    there = {title: files for title, files in RIVALS.items() if (LAUNCH / "baselines" / "published" / f"{_name(files)}.flags").is_file()}
    printed = {f"{title}, published training": (*files, f"baselines/published/{_name(files)}") for title, files in there.items()}
    return rows(ACDC | there | printed)


def one_change_each(reference: Config) -> list[Cell]:
    """The parts of a network of bases taken out or the other way round, one at a time."""
    model, loss = reference.model, reference.loss
    over, weight = ("all", "stream")[model.concatenation_over == "all"], float(not loss.reconstruction_weight)
    cells: list[Cell] = [("the whole network", {})]
    if model.contracting_blocks != 3:
        cells += [("n = 3", dict(contracting_blocks=3))]
    if model.streams != "dense":  # which concatenates over all streams in any case
        cells += [(f"concatenation over {'all streams' if over == 'all' else 'each stream'}", dict(concatenation_over=over))]
    cells += [
        ("no ICA", without_ica(model)),
        (f"{'without' if model.decoder_frame else 'with'} the frame in the decoders", dict(decoder_frame=not model.decoder_frame)),
        ("independent streams, equal work", independent_twin(model)) if model.streams == "dense" else ("dense, equal work", work.dense_twin(model)),
        ("shared streams", dict(streams="shared", stream_width=independent_twin(model)["stream_width"])),
        ("bases from the frame alone", dict(bases_from="frame")),
        ("dictionary alone", dict(bases_from="dictionary")),
        (f"{'with' if weight else 'without'} reconstruction", dict(reconstruction_weight=weight)),
    ]  # fmt: skip
    return cells


def without_ica(model: ModelConfig) -> Changes:
    """The control without bases, with decoders so wide that it has as many parameters."""
    changes = dict(mixing="upsampled", decoder_frame=True)
    width = nearest(model, changes, "decoder_width", range(1, 513), work.parameters)
    return changes | dict(decoder_width=width, ica_weight=0.0)


def independent_twin(model: ModelConfig) -> Changes:
    """A dense network's independent streams, of the width that works nearest as much."""
    if model.streams != "dense":
        return dict(streams=model.streams, stream_width=model.stream_width)
    return dict(streams="independent", stream_width=nearest(model, dict(streams="independent"), "stream_width", range(1, 65), work.of_a_frame))


def nearest(model: ModelConfig, changes: Changes, name: str, values: range, figure: Callable[[ModelConfig], int]) -> int:
    """The value of a setting, with which the figure grows, where the changed network's is nearest to this one's."""

    def excess(value: int) -> int:
        return figure(dataclasses.replace(model, **changes, **{name: value})) - figure(model)

    first = bisect.bisect_left(values, 0, key=excess)
    around = values[max(0, first - 1) : first + 1] or values[-1:]
    return min(around, key=lambda value: abs(excess(value)))


def doses(reference: Config) -> list[Cell]:
    """The independence term in other strengths and readings, the terms summed as printed, and an ICA that is not trained with the rest."""
    weight = reference.loss.independence_weight or 1.0
    return [
        ("independence x 10", dict(independence_weight=10 * weight)),
        ("independence x 100", dict(independence_weight=100 * weight)),
        ("independence by negentropy", dict(independence="negentropy")),
        ("independence of standardized bases", dict(standardize_independence=True)),
        ("terms summed as printed", dict(ica_reduction="sum")),
        ("dictionary alone", dict(bases_from="dictionary")),
        ("bases by FastICA, all else trained", dict(bases_from="fastica")),
        ("encoder trained by Eq. 1 alone", dict(separate_ica_steps=reference.train.steps // 2, steps=reference.train.steps * 3 // 2)),
    ]


def lengths(reference: Config) -> list[Cell]:
    """A network and three changes of it, trained half as long, as long, and twice as long; with Eq. 2 alone, as in loss_terms."""
    steps = reference.train.steps
    changes = {
        "ICA-UNet": {},
        "without R": dict(reconstruction_weight=0.0),
        "shared streams": dict(streams="shared"),
        "m = 8": dict(bases=8),
    }
    return [(f"{title}, {count} steps", change | dict(steps=count)) for count in (steps // 2, steps, 2 * steps) for title, change in changes.items()]


def _name(files: tuple[str, ...]) -> str:
    return files[-1].rpartition("/")[2]


def _short(rate: float) -> str:
    """As in 1.3e-3."""
    digits, _, power = f"{rate:.1e}".partition("e")
    return f"{digits.removesuffix('.0')}e{int(power)}"


def levers(reference: Config) -> list[Cell]:
    """What may make the causal network more accurate in about the same time: groups of changes, each beside those before it."""
    network = DESIGN | dict(streams="dense", stream_width=64, train_window="heart")
    images = dict(scaling=0.25, elastic=3.0, gamma=0.5, slice_shift=1.5, bias_field=0.3, blur=0.5)
    anywhere = images | dict(
        rotation=180.0, flip=True, flip_slices=True, noise=0.4, ghosting=0.4, spike=0.8, bias_field=0.4, missing_slice=0.2, thin_stack=0.2,
    )  # fmt: skip
    some = images | dict(damage=0.2, noise=0.4, ghosting=0.4, spike=0.5, bias_field=0.4, missing_slice=0.1, thin_stack=0.15)
    launched = some | dict(steps=4000, evaluate_every=1000)
    any_orientation = dict(rotation=180.0, flip=True, flip_slices=True, spike=1.2, thin_stack=0.25, steps=10_000, evaluate_every=5000)
    return [
        ("acdc_causal", {}),
        ("A: window on the heart, one wide U-Net for all bases, the frame and two convolutions in the decoders, no reconstruction", network),
        ("B: A with more augmentation", network | images),
        ("C: B with all images turned, mirrored and damaged, 6,000 steps", network | anywhere | dict(steps=6000, evaluate_every=1000)),
        ("D: B with some images damaged, 4,000 steps", network | launched),
        ("E: D with all images turned and mirrored, 10,000 steps", network | launched | any_orientation),
    ]


def recommended_design(reference: Config) -> list[Cell]:
    """The design of the recommended network on another grid: one wide U-Net that works as much, the frame in the decoders, no reconstruction."""
    return [("the paper's design", {}), ("the recommended network's design", DESIGN | work.dense_twin(reference.model))]


NETWORKS = (
    Study("main", "How good is the method beside its rivals, all trained alike?", "4, Tables 1 and 2", main_table, acdc),
    Study("main_single", "What do the paper's n = 3 and longer snippets give, by one training?", "4, Table 1", once, acdc),
    Study("full_size", "Does what short trainings on a small window decided look the same at full size?", "4", full_size, acdc),
    Study("rehearsal", "How do the networks compare on the patients that things are chosen on?", "4, Tables 1 and 2", lambda _: rows(TEN), acdc),
    Study("learning_rate", "Which learning rate does each network need?", "4", learning_rates, acdc),
    Study("levers", "What makes the causal network more accurate in the same time?", "4", levers),
    Study("small", "Do smaller grids gain from the recommended network's design?", "4", recommended_design),
    Study("published", "Are the rivals better off with the training that their papers print?", "4, Table 2", published, acdc),
    Study("design", "What is each part of the network worth?", "3", one_change_each),
    Study("doses", "Does the independence term do more in another strength or reading, and does an ICA do as well that is not trained with the rest?", "3, Eq. 1", doses),
    Study("lengths", "At which length of training do the order of networks and the signs of effects stay?", "4", lengths, dict(dice_weight=0.0)),
)
