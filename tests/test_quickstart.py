"""docs/quickstart.ipynb runs from its first cell to its last, and the network in the package finds a simulated heart."""

import json

import matplotlib
import nibabel as nib
import numpy as np
from places import ROOT

from ica_unet_jax.metrics.overlap import structure_dice


def test_the_notebook_runs_and_its_masks_lie_on_the_heart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    notebook, space = json.loads((ROOT / "docs" / "quickstart.ipynb").read_text(encoding="utf-8")), {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert not cell["outputs"], "clear the outputs before a commit"
            exec("".join(cell["source"]), space)
    assert (tmp_path / "masks.png").is_file()
    [truth, *_] = sorted((tmp_path / "simulated" / "patient001").glob("*_gt.nii.gz"))
    frame = int(truth.name.split("frame")[1][:2]) - 1
    assert min(structure_dice(space["labels"][frame], np.asarray(nib.load(truth).dataobj).T).values()) > 0.6
