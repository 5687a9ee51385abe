"""However a cine is stored, its masks are those of the upright one, moved as it was, or a sentence says what is wrong."""

import contextlib
import io
import itertools
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ica_unet_jax.config import Config
from ica_unet_jax.data import reading
from ica_unet_jax.errors import UserError
from ica_unet_jax.inference import prediction, segmenters
from ica_unet_jax.runtime.files import write_json

UPRIGHT = "LPS"
CODES = ["".join(axes) for pairs in itertools.permutations(("LR", "PA", "SI")) for axes in itertools.product(*pairs)]
SIZES = (1.25, 1.5, 8.0)  # of the axes x, y, z, in mm
SCALES = {"u1": (1, 0), "i2": (0.5, -3), "u2": (0.25, 0), "i4": (1, 0), "f4": (2, 0), "f8": (1, 7)}  # stored * slope + intercept


def upright():
    """A cine (x, y, z, t) that changes little from frame to frame, and its labels in frame 1."""
    rng = np.random.default_rng(0)
    stack = rng.integers(0, 60, (7, 6, 3, 1))
    return stack + rng.integers(0, 4, (1, 1, 1, 4)), rng.integers(0, 4, (7, 6, 3))


def look(frames, spacing):
    """Labels (t, s, h, w) that depend on all that a network sees: values, where they lie, and the size of a voxel."""
    place = sum((i + 2) * grid for i, grid in enumerate(np.indices(frames.shape[1:])))
    return ((np.rint(frames) + place + round(sum(size * factor for size, factor in zip(spacing, (1, 4, 8), strict=True)))) % 4).astype(np.uint8)


class Stub(segmenters.Segmenter):
    """Nothing is compiled."""

    def segment_cine(self, frames, spacing, watch, **others):
        for _ in frames:
            watch(None, ())
        return look(frames, spacing)

    def unsure(self, placement, windows):
        return 0.0


@st.composite
def stored(draw):
    """How a cine lies in its file."""
    return SimpleNamespace(
        codes=draw(st.sampled_from([UPRIGHT, "RPS", "LAS", "LPI", "RAS"]) | st.sampled_from(CODES)),
        time=draw(st.sampled_from([3, 3, 3, 0, 1, 2])),  # its axis
        dtype=draw(st.sampled_from(sorted(SCALES))),
        stated=draw(st.sampled_from([(1, 0), (0, 1), (1, 1), (2, 4), (0, 0)])),  # codes of qform and sform
        scaled=draw(st.booleans()),  # whether the affine holds the voxel sizes
        suffix=draw(st.sampled_from([".nii", ".nii.gz", ".img", ".NII.GZ"])),
    )


def move(array, how):
    """An upright array (x, y, z[, t]) as it is stored."""
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt(UPRIGHT), nib.orientations.axcodes2ornt(how.codes))
    turned = nib.apply_orientation(array, turn)
    return np.moveaxis(turned, 3, how.time) if array.ndim == 4 else turned


def write(path, array, how, dtype):
    """A file of an upright array, stored so, with the affine along."""
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt(UPRIGHT), nib.orientations.axcodes2ornt(how.codes))
    moved = dict(zip(turn[:, 0].astype(int), SIZES, strict=True))
    zooms = [moved[axis] for axis in range(3)] + [1.0] * (array.ndim - 3)
    if array.ndim == 4:
        zooms.insert(how.time, zooms.pop())
    slope, intercept = SCALES[dtype]
    kept = ((move(array, how) - intercept) / slope).astype(dtype)  # exact
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ nib.orientations.inv_ornt_aff(turn, array.shape[:3])
    affine[:3, :3] *= zooms[:3] if how.scaled else 1
    kind = nib.Nifti1Pair if path.name.endswith(".img") else nib.Nifti1Image
    image = kind(kept, affine)
    image.header.set_zooms(zooms)
    image.header.set_slope_inter(slope, intercept)
    image.set_qform(affine if how.scaled else None, code=how.stated[0] if how.scaled else 0)
    image.set_sform(affine, code=how.stated[1])
    nib.save(image, path)
    stored = nib.load(path)
    np.testing.assert_array_equal(stored.dataobj, move(array, how))
    np.testing.assert_allclose(stored.header.get_zooms(), zooms)


def as_read(array):
    return array.T.astype(np.float32)


@pytest.fixture(scope="module")
def run(tiny_run, tmp_path_factory):
    folder = shutil.copytree(tiny_run, tmp_path_factory.mktemp("turned") / "run")
    write_json(folder / "orientation.json", {"codes": {UPRIGHT: 2}, "scaled": True})
    return folder


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(stored(), st.booleans())
def test_masks_of_the_upright_case_or_a_sentence(run, how, reorient):
    cine, _ = upright()
    expected = look(as_read(cine), SIZES[::-1]).T
    told = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
        path, target = Path(folder) / f"cine{how.suffix}", Path(folder) / "masks.nii.gz"
        write(path, cine, how, how.dtype)
        with mock.patch.object(segmenters, "load_as", lambda *a, **k: Stub(Config())), mock.patch.object(prediction.figures, "volume_curves"):
            try:
                prediction.predict(run, path, target, reorient=reorient)
            except UserError as error:
                assert str(error).endswith(".") and "\n" not in str(error)
                assert how.time != 3 or not (tells(how) if reorient else how.codes == UPRIGHT)
                return
        masks = nib.load(target)
        found = np.asarray(masks.dataobj)
        np.testing.assert_array_equal(masks.affine, nib.load(path).affine)
    if reorient or how.codes == UPRIGHT:
        assert how.time == 3
        np.testing.assert_array_equal(found, move(expected, how))
    if how.codes != UPRIGHT or not tells(how):
        assert ("turned to LPS" if reorient else "they lie otherwise in the patient") in told.getvalue()


def tells(how):
    """Whether a header says how its image lies."""
    return bool(how.stated[0] * how.scaled or how.stated[1])


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(stored(), st.sampled_from(sorted(SCALES)))
def test_frames_and_labels_of_the_upright_case_or_a_sentence(how, dtype):
    cine, labels = upright()
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / f"p_4d{how.suffix}", cine, how, how.dtype)
        write(Path(folder) / f"p_frame01_gt{how.suffix}", labels, how, dtype)
        [case] = reading.find_cases(folder)
        seen = reading.examine(case, codes=UPRIGHT)
    if seen.problems:
        assert how.time != 3 or not tells(how)
    else:
        np.testing.assert_array_equal(seen.cine.frames, as_read(cine))
        np.testing.assert_array_equal(seen.cine.labels[0], labels.T)
        assert seen.cine.spacing == SIZES[::-1]
