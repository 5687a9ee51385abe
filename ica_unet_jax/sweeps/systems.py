"""The systems of the paper's two tables, as data: what each changes in a reference configuration."""

from __future__ import annotations

from typing import Any, NamedTuple

from ica_unet_jax.benchmarking import flops
from ica_unet_jax.config import Config

PAPER_RATE = 30  # frames a second at which the paper's frames arrive

# Network and training of each rival as published; where launch/baselines/published is there, its files say the same (a test).
PUBLISHED: dict[str, dict[str, Any]] = {
    "unet3d": dict(
        model="unet3d", published_loss=True, optimizer="sgd", momentum=0.99, learning_rate=1e-2, schedule="polynomial", warmup_steps=0,
        clip_norm=12.0, ema_decay=0.0,
    ),
    "ensemble_unet": dict(
        model="ensemble_unet", published_loss=True, optimizer="adam", learning_rate=5e-4, schedule="exponential", warmup_steps=0,
        clip_norm=0.0, ema_decay=0.0, flip=True,
    ),
} | {
    name: dict(model=name, published_loss=True, optimizer="adam", learning_rate=1e-3, schedule="exponential", clip_norm=1.0)
    for name in ("msu_net", "grid_net", "omega_net")
}  # fmt: skip


class System(NamedTuple):
    name: str  # of its run folder
    title: str
    tables: tuple[int, ...]
    changes: dict[str, Any]
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


def _msu_net(span: int) -> System:
    return System(f"msu_net_span{span}", f"MSU-Net, span {span}", (1,), PUBLISHED["msu_net"] | dict(span=span))


def _ica_unet(n: int, streams: str, tables: tuple[int, ...], **changes: Any) -> System:
    kind = ", ".join([f"n = {n}", streams, *(f"{value} frame alone" for value in changes.values())])
    name = "_".join(["ica_unet", f"n{n}", streams, *changes.values()])
    return System(name, f"ICA-UNet, {kind}", tables, dict(model="ica_unet", contracting_blocks=n, streams=streams) | changes)


SYSTEMS = (
    _msu_net(2),
    _msu_net(3),
    _msu_net(5),
    _msu_net(10),
    _ica_unet(3, "independent", (1, 2)),
    _ica_unet(3, "dense", (1,)),
    _ica_unet(3, "independent", (1,), neighbours="past"),
    _ica_unet(4, "independent", (1, 2)),
    _ica_unet(4, "dense", (1,)),
    _ica_unet(4, "independent", (1,), neighbours="past"),
    System("grid_net", "GridNet", (2,), PUBLISHED["grid_net"]),
    System("ensemble_unet", "Ensemble U-Net", (2,), PUBLISHED["ensemble_unet"], cleaned=True),
    System("omega_net", "Ω-Net", (2,), PUBLISHED["omega_net"]),
    System("unet3d", "U-Net 3D", (2,), PUBLISHED["unet3d"]),
    System("unet2d", "U-Net 2D", (2,), dict(model="unet2d")),
)
