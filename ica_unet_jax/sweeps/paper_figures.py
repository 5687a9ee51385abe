"""What the paper prints in its Tables 1 and 2, by the names of `systems.SYSTEMS`; nothing here is measured by us."""

from __future__ import annotations

from typing import NamedTuple

from ica_unet_jax.benchmarking.systems import PAPER_RATE
from ica_unet_jax.labels import STRUCTURES


class Score(NamedTuple):
    mean: float
    spread: float  # behind the ±; the paper does not say over what


class RealTime(NamedTuple):
    """A row of Table 1."""

    title: str
    dice: dict[str, Score]  # RV, MYO, LV, mean
    fps: float
    latency_ms: float
    waits: int  # for so many later frames
    wait_printed: bool  # whether latency_ms has that wait in it, or the computing alone


class Accuracy(NamedTuple):
    """A row of Table 2."""

    title: str
    dice: dict[str, float]  # RV, MYO, LV
    hd_mm: dict[str, float]  # the same; empty: not printed


class Clocks(NamedTuple):
    """A row of Table 1 counted as ours are, each latency from the printed latency, never from the printed FPS."""

    fps: float
    compute_ms: float  # without the wait for later frames
    arrival_ms: float  # to mask, with that wait at `PAPER_RATE`
    latency_ms: float  # as printed


def clocks(row: RealTime) -> Clocks:
    wait = row.waits * 1e3 / PAPER_RATE
    compute = row.latency_ms - (wait if row.wait_printed else 0)
    return Clocks(row.fps, compute, compute + wait, row.latency_ms)


def _real_time(title: str, dice: str, fps: float, latency_ms: float, waits: int, wait_printed: bool) -> RealTime:
    numbers = list(map(float, dice.split()))
    scores = map(Score, numbers[::2], numbers[1::2])
    return RealTime(title, dict(zip((*STRUCTURES, "mean"), scores, strict=True)), fps, latency_ms, waits, wait_printed)


def _msu_net(span: int, dice: str, fps: float, latency_ms: float) -> RealTime:
    return _real_time(f"MSU-Net, span {span}", dice, fps, latency_ms, span - 1, True)


def _ica_unet(n: int, dice: str, fps: float, latency_ms: float) -> RealTime:
    return _real_time(f"ICA-UNet, n = {n}", dice, fps, latency_ms, 1, False)


def _accuracy(title: str, dice: tuple[float, ...], hd_mm: tuple[float, ...] = ()) -> Accuracy:
    return Accuracy(title, dict(zip(STRUCTURES, dice, strict=True)), dict(zip(STRUCTURES, hd_mm, strict=True)) if hd_mm else {})


TABLE_1 = {  # mean and ± of RV, MYO, LV and their mean; FPS; ms
    "msu_net_span10": _msu_net(10, "0.837 0.034  0.811 0.049  0.854 0.040  0.834 0.020", 70.2, 442),
    "msu_net_span5": _msu_net(5, "0.855 0.026  0.836 0.022  0.897 0.017  0.862 0.011", 43.2, 249),
    "msu_net_span3": _msu_net(3, "0.858 0.034  0.838 0.039  0.898 0.034  0.864 0.030", 29.4, 169),
    "msu_net_span2": _msu_net(2, "0.860 0.017  0.837 0.031  0.901 0.021  0.867 0.020", 21.7, 125),
    "ica_unet_n3_independent": _ica_unet(3, "0.900 0.023  0.869 0.027  0.934 0.013  0.901 0.017", 31.6, 35),
    "ica_unet_n4_independent": _ica_unet(4, "0.921 0.017  0.888 0.034  0.952 0.015  0.920 0.019", 28.3, 39),
}
TABLE_2 = {
    "ensemble_unet": _accuracy("Ensemble U-Net", (0.923, 0.911, 0.950), (11.13, 8.69, 7.15)),
    "omega_net": _accuracy("Ω-Net", (0.920, 0.891, 0.954)),
    "grid_net": _accuracy("GridNet", (0.910, 0.894, 0.938), (11.80, 9.45, 7.30)),
    "ica_unet_n4_independent": _accuracy("ICA-UNet, n = 4", (0.920, 0.890, 0.940), (11.91, 7.93, 6.85)),
}
