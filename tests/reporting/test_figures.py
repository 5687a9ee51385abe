import subprocess
import sys

import numpy as np
import pytest

from ica_unet_jax.data.phantom.beating_heart import simulate
from ica_unet_jax.errors import UserError
from ica_unet_jax.reporting import figures


@pytest.fixture(scope="module")
def phantom():
    return simulate(0, 0, shape=(4, 64, 64), frames=4)


def test_pictures_are_the_same_bytes_every_time(phantom, tmp_path):
    frames = dict(enumerate(phantom.frames))
    labels = dict(enumerate(phantom.labels))
    for name in ("a.png", "b.png"):
        figures.overlay_grid(tmp_path / name, frames, labels, {0: phantom.labels[0]}, phantom.spacing, phases={0: "ED"})
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert b"matplotlib" not in (tmp_path / "a.png").read_bytes() and len(list(tmp_path.iterdir())) == 2


def test_an_empty_prediction_is_drawn(phantom, tmp_path):
    nothing = {0: np.zeros_like(phantom.labels[0])}
    figures.overlay_grid(tmp_path / "a.png", {0: phantom.frames[0]}, nothing, {}, phantom.spacing)
    assert (tmp_path / "a.png").is_file()


def test_columns_are_spread_and_hold_the_phases():
    assert figures.choose_columns(range(30), [0, 11]) == [0, 6, 11, 17, 23, 29]
    assert figures.choose_columns([0, 7], [0, 7]) == [0, 7]
    assert figures.choose_columns(range(9), [40]) == [0, 2, 3, 5, 6, 8]


def test_slices_run_from_the_large_base_to_the_apex():
    assert figures.heart_slices(np.array([0, 9, 8, 7, 6, 5, 0])) == {"base": 1, "middle": 3, "apex": 5}
    assert figures.heart_slices(np.array([1, 2, 3, 4, 5, 0])) == {"base": 4, "middle": 2, "apex": 0}
    assert figures.heart_slices(np.array([0, 3])) == {"middle": 1}
    assert figures.heart_slices(np.zeros(2)) == {"base": 0, "apex": 1}


def test_box_is_square_in_mm_and_inside():
    mask = np.zeros((100, 80), bool)
    mask[2:22, 30:40] = True
    rows, columns = figures.heart_box(mask, (8.0, 1.0, 2.0))
    assert (rows.start, rows.stop, columns.start, columns.stop) == (0, 28, 28, 42)
    assert figures.heart_box(np.zeros((5, 4), bool), (1.0, 1.0, 1.0)) == (slice(0, 5), slice(0, 4))


def test_curves_of_runs(tiny_run, tmp_path):
    figures.compare_runs([str(tiny_run)], tmp_path / "one.png")
    figures.compare_runs([str(tiny_run), f"{tiny_run}/../{tiny_run.name}"], tmp_path / "two.png")
    with pytest.raises(UserError, match="holds no metrics.jsonl"):
        figures.compare_runs([str(tmp_path)], tmp_path / "none.png")
    assert {path.name for path in tmp_path.iterdir()} == {"one.png", "two.png"}


def test_a_training_loads_no_matplotlib():
    script = "import ica_unet_jax.training.loop, sys; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_dollar_in_a_name_is_no_formula(phantom, tmp_path):
    """Names are as people have them: one that TeX cannot read was a traceback, after the work."""
    curve = np.arange(4.0)
    for name in (r"a$b", r"$\x$", r"a$b$_{4d"):
        figures.volume_curves(tmp_path / f"{name}.png".replace("\\", ""), {"LV": curve}, title=name)
        figures.learning_curves(tmp_path / "curves.png", {name: [dict(step=1, loss=1.0, seconds_per_step=0.1, compiled=False)]})
