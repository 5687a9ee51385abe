import shutil

import numpy as np
from PIL import Image

from ica_unet_jax.data import reading
from ica_unet_jax.evaluation import frames, pictures
from ica_unet_jax.inference import segmenters


def test_a_training_shows_what_its_network_makes_of_the_first_patients(tiny_run, tmp_path):
    shutil.copy(tiny_run / "metrics.jsonl", tmp_path)
    segmenter = segmenters.load(tiny_run)
    first, other = (reading.read(case) for case in reading.find_cases(segmenter.config.data.data_dir)[:2])
    pictures.training_report(tmp_path, [first, other], segmenter, count=1)
    assert [path.name for path in (tmp_path / "validation").iterdir()] == ["patient001.png"]
    with Image.open(tmp_path / "curves.png") as curves:
        assert np.ptp(np.asarray(curves)) > 0
    labels, _ = frames.segment(segmenter, first, sorted(first.labels))
    for name, shown in (("same", labels), ("none", {time: 0 * volume for time, volume in labels.items()})):
        pictures.draw_overlay(tmp_path / f"{name}.png", first, shown)
    drawn = (tmp_path / "validation" / "patient001.png").read_bytes()
    assert drawn == (tmp_path / "same.png").read_bytes() != (tmp_path / "none.png").read_bytes()
