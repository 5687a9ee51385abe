"""The systems of the paper's two tables, as data: what each changes in a reference configuration."""

from __future__ import annotations

from typing import Any, NamedTuple

from ica_unet_jax.benchmarking import work
from ica_unet_jax.config import Config
from ica_unet_jax.runtime import launch_files
from ica_unet_jax.runtime.paths import ROOT

PAPER_RATE = 30  # frames a second at which the paper's frames arrive

PUBLISHED = ROOT / "launch" / "baselines" / "published"  # the training that a rival's paper prints, in a launch file each
# Of rivals whose papers print none.
OURS = dict(published_loss=True, optimizer="adam", learning_rate=1e-3, schedule="exponential", clip_norm=1.0)


class System(NamedTuple):
    name: str  # of its run folder
    title: str
    tables: tuple[int, ...]
    changes: dict[str, Any]
    published: str = ""  # launch file of its training; empty: the reference's, with the changes

    def config(self, reference: Config) -> Config:
        """The reference with this system's changes; dense streams with the width that makes as much work as independent ones.

        Raises UserError where it does not fit the reference's grid, and where its launch file is not there, as beside a wheel.
        """
        printed = launch_files.read(PUBLISHED / f"{self.published}.flags") if self.published else {}
        config = reference.replace(**self.changes | printed)
        return config.replace(**work.equal_work(config.model))


def widths(model: str, trained: float) -> tuple[float, ...]:
    """The width multipliers of the networks that a system's rows are of: its full width, and the one it is trained at."""
    return (1.0,) if trained == 1 or model in ("ica_unet", "unet2d") else (1.0, trained)


def network_name(name: str, width: float) -> str:
    """Of a system at a width, in timing.json."""
    return name if width == 1 else f"{name}/{width:g}"


def _msu_net(span: int) -> System:
    return System(f"msu_net_span{span}", f"MSU-Net, span {span}", (1,), OURS | dict(model="msu_net", span=span))


def _printed(name: str, title: str) -> System:
    return System(name, title, (2,), dict(model=name, published_loss=True), published=name)


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
    System("grid_net", "GridNet", (2,), OURS | dict(model="grid_net")),
    _printed("ensemble_unet", "Ensemble U-Net"),
    _printed("omega_net", "Ω-Net"),
    _printed("unet3d", "U-Net 3D"),
    System("unet2d", "U-Net 2D", (2,), dict(model="unet2d")),
)
