"""The systems of the paper's tables: all of them, and as their launch files say."""

import dataclasses

import pytest

from ica_unet_jax.benchmarking import systems
from ica_unet_jax.benchmarking.systems import PUBLISHED, SYSTEMS
from ica_unet_jax.config import Config
from ica_unet_jax.labels import STRUCTURES
from ica_unet_jax.runtime import launch_files
from ica_unet_jax.sweeps import comparing
from ica_unet_jax.sweeps.paper_figures import TABLE_1, TABLE_2, clocks


def test_a_rival_is_trained_as_its_launch_file_says():
    """Every file is of a system, and wins over the reference's settings."""
    files = {path.stem: launch_files.read(path) for path in PUBLISHED.glob("*.flags")}
    printed = {system.name: system.config(Config.make(clip_norm=7.0, flip=False)).flat() for system in SYSTEMS if system.published}
    assert set(printed) == set(files) == {"unet3d", "ensemble_unet", "omega_net"}
    for name, settings in files.items():
        assert settings.items() <= printed[name].items()
    assert (printed["unet3d"]["optimizer"], printed["unet3d"]["momentum"], printed["ensemble_unet"]["flip"]) == ("sgd", 0.99, True)


def test_without_its_launch_file_a_rival_is_left_out_and_says_why(monkeypatch, tmp_path):
    monkeypatch.setattr(systems, "PUBLISHED", tmp_path)
    configs, left_out = comparing.fitting(Config())
    assert set(left_out) == {"Ensemble U-Net", "Ω-Net", "U-Net 3D"} and "grid_net" in configs
    assert "unet3d.flags cannot be read" in left_out["U-Net 3D"]


def test_every_system_of_the_papers_tables_is_there():
    names = {system.name for system in SYSTEMS}
    assert len(names) == len(SYSTEMS)
    assert {*(f"msu_net_span{span}" for span in (2, 3, 5, 10)), "grid_net", "ensemble_unet", "omega_net", "unet3d", "unet2d"} <= names
    causal = next(system for system in SYSTEMS if system.name == "ica_unet_n4_independent_past")
    assert causal.title == "ICA-UNet, n = 4, independent, past frame alone" and causal.config(Config()).model.frames == (-1,)
    for system in SYSTEMS:
        assert system.config(Config()).data == dataclasses.replace(Config().data, flip=system.name == "ensemble_unet")


def test_the_papers_figures_are_of_systems_of_ours():
    for number, printed in ((1, TABLE_1), (2, TABLE_2)):
        assert set(printed) <= {system.name for system in SYSTEMS if number in system.tables}
    assert len(TABLE_1) == 6 and len(TABLE_2) == 4
    for row in TABLE_1.values():  # a slip of the pen would show in the mean, which the paper rounds and prints
        assert row.dice["mean"].mean == pytest.approx(sum(row.dice[s].mean for s in STRUCTURES) / 3, abs=0.0011)
    best = {s: max(TABLE_1[f"msu_net_span{span}"].dice[s].mean for span in (2, 3, 5, 10)) for s in (*STRUCTURES, "mean")}
    gains = {s: TABLE_1["ica_unet_n4_independent"].dice[s].mean - best[s] for s in best}
    assert gains == pytest.approx(dict(RV=0.061, MYO=0.050, LV=0.051, mean=0.053))  # as its text says


def test_latencies_come_from_latencies():
    """A snippet's wait at 30 FPS leaves what its printed throughput says too; that of ICA-UNet is added."""
    for span in (2, 3, 5, 10):
        row = TABLE_1[f"msu_net_span{span}"]
        found = clocks(row)
        assert found.arrival_ms == pytest.approx(row.latency_ms) and found.latency_ms == row.latency_ms
        assert found.compute_ms == pytest.approx(1e3 * span / row.fps, abs=0.7)
    found = clocks(TABLE_1["ica_unet_n4_independent"])
    assert found == pytest.approx((28.3, 39, 39 + 100 / 3, 39))
