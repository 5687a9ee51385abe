"""The systems of the paper's two tables, as data: what each changes in a reference configuration, and its figures there."""

from __future__ import annotations

from typing import Any, NamedTuple

from ica_unet_jax import flops
from ica_unet_jax.config import Config

PAPER_RATE = 30  # frames a second at which the paper's frames arrive

# Network and training of each rival as published; the files in launch/baselines say the same (a test).
PUBLISHED: dict[str, dict[str, Any]] = {
    "unet3d": dict(
        model="unet3d", optimizer="sgd", momentum=0.99, learning_rate=1e-2, schedule="polynomial", warmup_steps=0, clip_norm=12.0, ema_decay=0.0
    ),
    "ensemble_unet": dict(
        model="ensemble_unet", optimizer="adam", learning_rate=5e-4, schedule="exponential", warmup_steps=0, clip_norm=0.0, ema_decay=0.0, flip=True
    ),
    "msu_net": dict(model="msu_net", optimizer="adam", learning_rate=1e-3, schedule="exponential", clip_norm=1.0),
    "grid_net": dict(model="grid_net", optimizer="adam", learning_rate=1e-3, schedule="exponential", clip_norm=1.0),
    "omega_net": dict(model="omega_net", optimizer="adam", learning_rate=1e-3, schedule="exponential", clip_norm=1.0),
}  # fmt: skip


class Clocks(NamedTuple):
    """Speed as we count it for all systems alike; None where unknown or where the system cannot keep up."""

    fps: float | None = None
    compute_ms: float | None = None
    arrival_ms: float | None = None  # to mask, frames arriving at `PAPER_RATE`


class Paper(NamedTuple):
    """A row of the paper's Table 1: mean Dice, frames a second, a latency in ms by the paper's clock; and the same counted as ours."""

    dice: float | None = None
    fps: float | None = None
    latency_ms: float | None = None
    clocks: Clocks = Clocks()


class System(NamedTuple):
    name: str  # of its run folder
    title: str
    tables: tuple[int, ...]
    changes: dict[str, Any]
    paper: Paper = Paper()
    cleaned: bool = False  # evaluated with mirroring and largest components

    def config(self, reference: Config) -> Config:
        """The reference with this system's changes; dense streams with the width that makes as much work as independent ones.

        Raises UserError where it does not fit the reference's grid.
        """
        config = reference.replace(**self.changes)
        return config.replace(**flops.equal_work(config.model))


def widths(model: str, trained: float) -> tuple[float, ...]:
    """The width multipliers of the networks that a system's rows are of: its full width, and the one it is trained at."""
    return (1.0,) if trained == 1 or model not in PUBLISHED else (1.0, trained)


def network_name(name: str, width: float) -> str:
    """Of a system at a width, in timing.json."""
    return name if width == 1 else f"{name}/{width:g}"


def _msu_net(span: int, dice: float, fps: float, latency: float) -> System:
    paper = Paper(dice, fps, latency, Clocks(fps, 1e3 * span / fps, latency))  # which includes the wait for the snippet
    return System(f"msu_net_span{span}", f"MSU-Net, span {span}", (1,), PUBLISHED["msu_net"] | dict(span=span), paper)


def _ica_unet(n: int, streams: str, tables: tuple[int, ...], latency: float | None = None, **changes: Any) -> System:
    kind = ", ".join([f"n = {n}", streams, *(f"{value} frame alone" for value in changes.values())])
    name = "_".join(["ica_unet", f"n{n}", streams, *changes.values()])
    paper = Paper()
    if latency:  # of the paper, which leaves out the wait for frame t+1; taken as one frame after the other
        paper = Paper(latency_ms=latency, clocks=Clocks(1e3 / latency, latency, latency + 1e3 / PAPER_RATE))
    return System(name, f"ICA-UNet, {kind}", tables, dict(model="ica_unet", contracting_blocks=n, streams=streams) | changes, paper)


SYSTEMS = (
    _msu_net(2, 0.867, 21.7, 125),
    _msu_net(3, 0.864, 29.4, 169),
    _msu_net(5, 0.862, 43.2, 249),
    _msu_net(10, 0.834, 70.2, 442),
    _ica_unet(3, "independent", (1, 2), 35),
    _ica_unet(3, "dense", (1,)),
    _ica_unet(3, "independent", (1,), neighbours="past"),
    _ica_unet(4, "independent", (1, 2), 39),
    _ica_unet(4, "dense", (1,)),
    _ica_unet(4, "independent", (1,), neighbours="past"),
    System("grid_net", "GridNet", (2,), PUBLISHED["grid_net"]),
    System("ensemble_unet", "Ensemble U-Net", (2,), PUBLISHED["ensemble_unet"], cleaned=True),
    System("omega_net", "Ω-Net", (2,), PUBLISHED["omega_net"]),
    System("unet3d", "U-Net 3D", (2,), PUBLISHED["unet3d"]),
    System("unet2d", "U-Net 2D", (2,), dict(model="unet2d")),
)
