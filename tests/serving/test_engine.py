"""The network behind a server: ready before the first frame, kept for the next session, and never without bound."""

import nibabel as nib
import numpy as np
import pytest
from wires import Trivial

from ica_unet_jax.errors import UserError
from ica_unet_jax.serving.engine import KEPT, Engine

SPACING = (10.0, 1.5, 1.25)


def recorded(**options):
    """An engine, and the geometries that it made."""
    made = []
    return Engine(lambda *geometry: made.append(geometry) or Trivial(*geometry), **options), made


def test_a_geometry_is_made_once_and_begins_anew_each_time():
    engine, made = recorded()
    first = engine.ready((3, 8, 6), SPACING)
    first.kept.append("a frame of another session")
    assert engine.ready((3, 8, 6), (10.00001, 1.5, 1.25)) is first and first.kept == [] and len(made) == 1
    assert engine.ready((3, 8, 6), (9.0, 1.5, 1.25)) is not first


def test_geometries_without_end_are_forgotten():
    forgotten = []
    engine, made = recorded(forget=lambda: forgotten.append(len(made)))
    for side in range(1, 3 * KEPT + 1):
        engine.ready((1, side, 8), SPACING)
        assert len(engine._ready) <= KEPT
    assert forgotten == [KEPT, 2 * KEPT]


def test_what_is_made_ready_for_a_cine_is_what_its_frames_need(tmp_path):
    engine, made = recorded(codes="PRS")
    image = nib.Nifti1Image(np.random.default_rng(0).random((6, 8, 3, 2), np.float32), np.diag([-1.25, -1.5, 10.0, 1.0]))
    nib.save(image, tmp_path / "cine.nii.gz")
    engine.ready_for(tmp_path / "cine.nii.gz")
    turn = engine.turn("LPS")
    assert made == [(turn.forth(np.zeros((3, 8, 6))).shape, turn.sizes(SPACING))] and made[0][0] == (3, 6, 8)
    image.set_sform(None, 0), image.set_qform(None, 0)
    nib.save(image, tmp_path / "none.nii.gz")
    with pytest.raises(UserError, match=r"none\.nii\.gz does not tell how it lies"):
        engine.ready_for(tmp_path / "none.nii.gz")


def test_a_remark_where_images_lie_otherwise_and_nothing_turns_them():
    engine = Engine(Trivial, known=frozenset({"LPS"}))
    assert "LAS" in engine.remark("LAS") and "--reorient" in engine.remark("LAS")
    assert not engine.remark("LPS") and not engine.remark("") and not Engine(Trivial).remark("LAS")
    assert not Engine(Trivial, "LPS", frozenset({"LPS"})).remark("LAS")
