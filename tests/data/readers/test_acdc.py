import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from places import SHARED_DATA

from ica_unet_jax.data import nifti, reading, truths
from ica_unet_jax.errors import UserError

REAL = SHARED_DATA
SHAPE = (5, 4, 3, 6)  # x, y, z, t
AFFINE = np.diag([-1.5, -1.25, 8.0, 1.0])


def save(path, array, zooms=(1.5, 1.25, 8.0), affine=AFFINE):
    image = nib.Nifti1Image(array, affine)
    image.header.set_zooms(zooms + (1.0,) * (array.ndim - 3))
    nib.save(image, path)


def array_of(path):
    return np.asarray(nib.load(path).dataobj).copy()


@pytest.fixture
def case_dir(tmp_path):
    """A sound case of 6 frames with ED 1 and ES 3."""
    folder = tmp_path / "acdc" / "training" / "patient007"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    cine = rng.integers(0, 1000, SHAPE, dtype=np.int16)
    save(folder / "patient007_4d.nii.gz", cine)
    for number in (1, 3):
        save(folder / f"patient007_frame{number:02d}.nii.gz", cine[..., number - 1])
        save(folder / f"patient007_frame{number:02d}_gt.nii.gz", rng.integers(0, 4, SHAPE[:3], dtype=np.uint8))
    (folder / "Info.cfg").write_text("ED: 1\nES: 3\nGroup: DCM\nHeight: 180.0\nNbFrame: 6\nWeight: 70.0\n")
    return folder


def only_case(folder):
    [case] = reading.find_cases(folder.parents[1])
    return case


def test_sound_case(case_dir):
    case = only_case(case_dir)
    assert (case.name, case.group, case.ed, case.es, case.nominal_spacing) == ("patient007", "DCM", 0, 2, False)
    seen = reading.examine(case)
    assert seen.problems == seen.remarks == reading.check(case) == []
    cine = reading.read(case)
    stored = array_of(case_dir / "patient007_4d.nii.gz")
    assert cine.frames.dtype == np.float32 and cine.frames.shape == (6, 3, 4, 5)
    assert cine.frames[4, 2, 1, 3] == stored[3, 1, 2, 4]
    assert cine.times == tuple(range(6)) and cine.spacing == (8.0, 1.25, 1.5)
    assert list(cine.labels) == [0, 2] and cine.labels[2].dtype == np.uint8
    np.testing.assert_array_equal(cine.labels[2].T, array_of(case_dir / "patient007_frame03_gt.nii.gz"))
    np.testing.assert_array_equal(cine.affine, AFFINE)


def test_neighbours(case_dir):
    cine = reading.read(only_case(case_dir))
    assert [cine.window(t) for t in (0, 2, 5)] == [(0, 0, 1), (1, 2, 3), (4, 5, 5)]
    assert [cine.window(t, cyclic=True) for t in (0, 2, 5)] == [(5, 0, 1), (1, 2, 3), (4, 5, 0)]
    assert cine.window(1, 3) == (0, 0, 0, 1, 2, 3, 4) and cine.window(1, 3, cyclic=True) == (4, 5, 0, 1, 2, 3, 4)
    (case_dir / "patient007_4d.nii.gz").unlink()
    cine = reading.read(only_case(case_dir))
    assert cine.times == (0, 2) and len(cine.frames) == 2
    assert [cine.window(t, 2, cyclic) for t in (0, 2) for cyclic in (False, True)] == [(0,) * 5] * 2 + [(2,) * 5] * 2
    np.testing.assert_array_equal(cine.frame(2), cine.frames[1])


@pytest.mark.parametrize("inside", ["", "training", "database", "database/training"])
def test_layouts(case_dir, tmp_path, inside):
    target = tmp_path / "other" / inside / ("training" if inside == "database" else "")
    shutil.copytree(case_dir.parent, target)
    assert [case.name for case in reading.find_cases(tmp_path / "other")] == ["patient007"]


def test_flat_folder_of_own_cines(case_dir, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    shutil.copy(case_dir / "patient007_4d.nii.gz", own / "b.nii.gz")
    shutil.copy(case_dir / "patient007_4d.nii.gz", own / "a_4d.nii.gz")
    shutil.copy(case_dir / "patient007_frame03_gt.nii.gz", own / "a_frame3_gt.nii.gz")
    save(own / "c_frame01.nii", array_of(case_dir / "patient007_frame01.nii.gz"))
    shutil.copy(case_dir / "patient007_frame01_gt.nii.gz", own / "c_frame01_gt.nii.gz")
    (own / "._a_4d.nii.gz").write_bytes(b"left by a file manager")
    a, b, c = reading.find_cases(own)
    assert (a.name, b.name, c.name) == ("a", "b", "c")
    assert list(a.labels) == [2] and a.ed is None and a.group == "" and not b.labels and c.cine is None
    assert [reading.check(case) for case in (a, b, c)] == [[], [], []]
    assert len(reading.read(b).frames) == 6 and reading.read(c).times == (0,)


def test_check_finds_all_problems_at_once(case_dir):
    (case_dir / "patient007_4d.nii.gz").write_bytes(b"")
    save(case_dir / "patient007_frame03_gt.nii.gz", np.full(SHAPE[:3], 9, np.uint8))
    (case_dir / "Info.cfg").write_text("ED: -1\n")
    assert len(reading.check(only_case(case_dir))) == 3


def test_remarks(case_dir):
    labels = array_of(case_dir / "patient007_frame03_gt.nii.gz")
    save(case_dir / "patient007_frame03_gt.nii.gz", labels, affine=AFFINE + 1e-3)
    assert reading.examine(only_case(case_dir)).remarks == []
    save(case_dir / "patient007_frame03_gt.nii.gz", labels, affine=AFFINE + 1)
    (case_dir / "patient007_frame01_gt.nii.gz").unlink()
    affine, unlabelled = reading.examine(only_case(case_dir)).remarks
    assert "frame03_gt.nii.gz has another affine than patient007_4d.nii.gz" in affine
    assert "frame01.nii.gz has no ground truth and is not trained on" in unlabelled
    assert reading.check(only_case(case_dir)) == []


def test_label_map(case_dir):
    case = only_case(case_dir)
    plain, mapped = reading.read(case).labels[0], reading.read(case, "1:3, 2:2,3:1").labels[0]
    np.testing.assert_array_equal(mapped, np.array([0, 3, 2, 1])[plain])
    assert truths.parse_label_map("") == {} and truths.parse_label_map("85:1") == {85: 1}


@pytest.mark.parametrize("text, part", [("1:4", "'1:4' is not from:to"), ("1-3", "'1-3' is not"), ("1:2,1:3", "twice")])
def test_bad_label_map(case_dir, text, part):
    with pytest.raises(UserError, match=part):
        reading.find_cases(case_dir.parent, text)


def test_scaling_flips_and_odd_sizes_are_legitimate(tmp_path):
    stored = np.arange(5 * 4 * 1 * 6, dtype=np.int16).reshape(5, 4, 1, 6)
    image = nib.Nifti1Image(stored, np.array([[0, 2, 0, 5], [-2, 0, 0, 7], [0, 0, -9, 1], [0, 0, 0, 1.0]]))
    image.header.set_slope_inter(0.5, -3)
    nib.save(image, tmp_path / "one_slice.nii.gz")
    case = reading.find_cases(tmp_path)[0]
    assert reading.check(case) == []
    np.testing.assert_array_equal(reading.read(case).frames, stored.T * 0.5 - 3)
    frames, image = nifti.read_volume(tmp_path / "one_slice.nii.gz")
    assert frames.shape == (6, 1, 4, 5) and nifti.spacing_of(image) == (9, 2, 2)


def test_read_volume(case_dir):
    frames, _ = nifti.read_volume(case_dir / "patient007_frame01.nii.gz")
    assert frames.shape == (1, 3, 4, 5) and frames.dtype == np.float32
    with pytest.raises(UserError, match="nothing.nii.gz does not exist"):
        nifti.read_volume(case_dir / "nothing.nii.gz")


def test_what_find_cases_refuses(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    for folder, reason in ((empty, "holds no cases: expected patientXXX/"), (tmp_path / "none", "is not a folder")):
        with pytest.raises(UserError, match=reason):
            reading.find_cases(folder)


def test_a_name_in_two_folders_is_a_problem_of_both(case_dir):
    shutil.copytree(case_dir, case_dir.parents[1] / "testing" / "patient007")
    case = only_case(case_dir)
    [problem] = reading.check(case)
    assert problem.endswith(f"there is a second case named patient007 in {case_dir.parents[1]}; rename one of them.")


def test_a_folder_that_may_not_be_listed(case_dir, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(UserError, match="acdc cannot be listed .Permission denied.; make it readable."):
        reading.find_cases(case_dir.parents[1])


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the ACDC samples")
@pytest.mark.parametrize("cohort, count", [("acdc_mini", 21), ("acdc_full", 10)])
def test_real_cases_are_sound(cohort, count):
    cases = reading.find_cases(REAL / cohort)
    assert len(cases) == count and all(len(case.labels) == 2 and case.ed == 0 for case in cases)
    for case in cases[:3]:
        assert reading.check(case) == []
