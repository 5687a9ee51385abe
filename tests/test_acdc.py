import gzip
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ica_unet_jax.data import acdc
from ica_unet_jax.errors import UserError

REAL = Path(__file__).parents[2] / "shared" / "data"
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
    [case] = acdc.find_cases(folder.parents[1])
    return case


def test_sound_case(case_dir):
    case = only_case(case_dir)
    assert (case.name, case.group, case.ed, case.es, case.nominal_spacing) == ("patient007", "DCM", 0, 2, False)
    assert acdc.check(case) == acdc.remarks(case) == []
    cine = acdc.read(case)
    stored = array_of(case_dir / "patient007_4d.nii.gz")
    assert cine.frames.dtype == np.float32 and cine.frames.shape == (6, 3, 4, 5)
    assert cine.frames[4, 2, 1, 3] == stored[3, 1, 2, 4]
    assert cine.times == tuple(range(6)) and cine.spacing == (8.0, 1.25, 1.5)
    assert list(cine.labels) == [0, 2] and cine.labels[2].dtype == np.uint8
    np.testing.assert_array_equal(cine.labels[2].T, array_of(case_dir / "patient007_frame03_gt.nii.gz"))
    np.testing.assert_array_equal(cine.affine, AFFINE)


def test_neighbours(case_dir):
    cine = acdc.read(only_case(case_dir))
    assert [cine.window(t) for t in (0, 2, 5)] == [(0, 0, 1), (1, 2, 3), (4, 5, 5)]
    assert [cine.window(t, cyclic=True) for t in (0, 2, 5)] == [(5, 0, 1), (1, 2, 3), (4, 5, 0)]
    assert cine.window(1, 3) == (0, 0, 0, 1, 2, 3, 4) and cine.window(1, 3, cyclic=True) == (4, 5, 0, 1, 2, 3, 4)
    (case_dir / "patient007_4d.nii.gz").unlink()
    cine = acdc.read(only_case(case_dir))
    assert cine.times == (0, 2) and len(cine.frames) == 2
    assert [cine.window(t, 2, cyclic) for t in (0, 2) for cyclic in (False, True)] == [(0,) * 5] * 2 + [(2,) * 5] * 2
    np.testing.assert_array_equal(cine.frame(2), cine.frames[1])


@pytest.mark.parametrize("inside", ["", "training", "database", "database/training"])
def test_layouts(case_dir, tmp_path, inside):
    target = tmp_path / "other" / inside / ("training" if inside == "database" else "")
    shutil.copytree(case_dir.parent, target)
    assert [case.name for case in acdc.find_cases(tmp_path / "other")] == ["patient007"]


def test_flat_folder_of_own_cines(case_dir, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    shutil.copy(case_dir / "patient007_4d.nii.gz", own / "b.nii.gz")
    shutil.copy(case_dir / "patient007_4d.nii.gz", own / "a_4d.nii.gz")
    shutil.copy(case_dir / "patient007_frame03_gt.nii.gz", own / "a_frame3_gt.nii.gz")
    save(own / "c_frame01.nii", array_of(case_dir / "patient007_frame01.nii.gz"))
    shutil.copy(case_dir / "patient007_frame01_gt.nii.gz", own / "c_frame01_gt.nii.gz")
    (own / "._a_4d.nii.gz").write_bytes(b"left by a file manager")
    a, b, c = acdc.find_cases(own)
    assert (a.name, b.name, c.name) == ("a", "b", "c")
    assert list(a.labels) == [2] and a.ed is None and a.group == "" and not b.labels and c.cine is None
    assert [acdc.check(case) for case in (a, b, c)] == [[], [], []]
    assert len(acdc.read(b).frames) == 6 and acdc.read(c).times == (0,)


DAMAGES = {}


def damage(sentence):
    """Registers a function that damages the sound case in one way, under the sentence that must follow."""
    def register(function):
        DAMAGES[sentence] = function
    return register


@damage("patient007_frame01.nii.gz has no ground truth, nor has another frame of patient007; "
        "add patient007_frame01_gt.nii.gz.")
def _(folder):
    for path in folder.glob("*_gt.nii.gz"):
        path.unlink()


@damage("patient007_4d.nii.gz is 3D (5, 4, 3) where a cine (x, y, z, t) is expected; replace it, "
        "or name a single frame NAME_frameNN.nii.gz.")
def _(folder):
    shutil.copy(folder / "patient007_frame01.nii.gz", folder / "patient007_4d.nii.gz")


@damage("patient007_frame03.nii.gz has 6 frames where one is expected; name a cine NAME_4d.nii.gz.")
def _(folder):
    shutil.copy(folder / "patient007_4d.nii.gz", folder / "patient007_frame03.nii.gz")


@damage("Info.cfg: NbFrame is 7, but patient007_4d.nii.gz has 6 frames; correct the one that is wrong.")
def _(folder):
    (folder / "Info.cfg").write_text("ED: 1\nES: 3\nNbFrame: 7\n")


@damage("Info.cfg: ES is 7, but patient007_4d.nii.gz has 6 frames; correct it.")
def _(folder):
    (folder / "Info.cfg").write_text("ED: 1\nES: 7\n")


@damage("Info.cfg: ED is '0'; write a frame number counted from 1.")
def _(folder):
    (folder / "Info.cfg").write_text("ED: 0\nES: 3\n")


@damage("Info.cfg: ED is 'first'; write a frame number counted from 1.")
def _(folder):
    (folder / "Info.cfg").write_text("ED: first\n")


@damage("patient007_frame03.nii.gz is not frame 3 of patient007_4d.nii.gz (it is frame 4); "
        "correct its number or its content.")
def _(folder):
    save(folder / "patient007_frame03.nii.gz", array_of(folder / "patient007_4d.nii.gz")[..., 3])


@damage("patient007_frame03.nii.gz is not frame 3 of patient007_4d.nii.gz; correct its number or its content.")
def _(folder):
    save(folder / "patient007_frame03.nii.gz", array_of(folder / "patient007_frame03.nii.gz")[::-1])


@damage("patient007_frame09.nii.gz is frame 9, but patient007_4d.nii.gz has 6 frames; rename or remove it.")
def _(folder):
    shutil.copy(folder / "patient007_frame03.nii.gz", folder / "patient007_frame09.nii.gz")


@damage("patient007_frame09_gt.nii.gz labels frame 9, but patient007_4d.nii.gz has 6 frames; "
        "add the image or remove the file.")
def _(folder):
    shutil.copy(folder / "patient007_frame03_gt.nii.gz", folder / "patient007_frame09_gt.nii.gz")


@damage("patient007_frame03_gt.nii.gz labels frame 3, but that frame is not there; add the image or remove the file.")
def _(folder):
    (folder / "patient007_4d.nii.gz").unlink()
    (folder / "patient007_frame03.nii.gz").unlink()


@damage("patient007_frame01_gt.nii.gz has no image; add patient007_4d.nii.gz.")
def _(folder):
    for name in ("4d", "frame01", "frame03"):
        (folder / f"patient007_{name}.nii.gz").unlink()


@damage("patient007_frame03_gt.nii.gz holds the labels 4, 7, known are 0 to 3; correct it or use --label_map.")
def _(folder):
    labels = array_of(folder / "patient007_frame03_gt.nii.gz")
    labels[0, 0, :2] = 4, 7
    save(folder / "patient007_frame03_gt.nii.gz", labels)


@damage("patient007_frame03_gt.nii.gz holds the labels 0.5, known are 0 to 3; correct it or use --label_map.")
def _(folder):
    labels = array_of(folder / "patient007_frame03_gt.nii.gz").astype(np.float32)
    labels[0, 0, 0] = 0.5
    save(folder / "patient007_frame03_gt.nii.gz", labels)


@damage("patient007_frame03_gt.nii.gz has 6 frames; save each labelled frame as its own 3D file.")
def _(folder):
    save(folder / "patient007_frame03_gt.nii.gz", np.zeros(SHAPE, np.uint8))


@damage("patient007_frame03_gt.nii.gz has the shape (5, 4, 2), its image (5, 4, 3); export both on one grid.")
def _(folder):
    save(folder / "patient007_frame03_gt.nii.gz", np.ones((5, 4, 2), np.uint8))


@damage("patient007_frame03.nii.gz has the shape (5, 4, 2), the frames of patient007_4d.nii.gz (5, 4, 3); "
        "export both on one grid.")
def _(folder):
    save(folder / "patient007_frame03.nii.gz", array_of(folder / "patient007_frame03.nii.gz")[..., :2])


@damage("patient007: the frames of patient007 differ in shape ((5, 4, 2) and (5, 4, 3)); export them on one grid.")
def _(folder):
    (folder / "patient007_4d.nii.gz").unlink()
    save(folder / "patient007_frame03.nii.gz", array_of(folder / "patient007_frame03.nii.gz")[..., :2])


@damage("patient007_4d.nii.gz, frame 5, holds NaN or infinite values; export it again.")
def _(folder):
    cine = array_of(folder / "patient007_4d.nii.gz").astype(np.float32)
    cine[0, 0, 0, 4] = np.nan
    save(folder / "patient007_4d.nii.gz", cine)


@damage("patient007_4d.nii.gz, frame 3, holds NaN or infinite values; export it again.")
def _(folder):
    cine = array_of(folder / "patient007_4d.nii.gz").astype(np.float64)
    cine[0, 0, 0, 2] = 1e300  # too large for float32
    save(folder / "patient007_4d.nii.gz", cine)


@damage("patient007_4d.nii.gz, frame 5, is constant (12), so it shows nothing; export it again.")
def _(folder):
    cine = array_of(folder / "patient007_4d.nii.gz")
    cine[..., 4] = 12
    save(folder / "patient007_4d.nii.gz", cine)


@damage("patient007_frame03.nii.gz cannot be read as NIfTI (")
def _(folder):
    (folder / "patient007_frame03.nii.gz").write_bytes(gzip.compress(b"not an image" * 100))


@damage("patient007_4d.nii.gz cannot be read as NIfTI (")
def _(folder):
    path = folder / "patient007_4d.nii.gz"
    path.write_bytes(path.read_bytes()[:-200])


@damage("patient007_4d.nii.gz has voxels of 0 x 0 x 0 mm; write the true voxel size into its header.")
def _(folder):
    save(folder / "patient007_4d.nii.gz", array_of(folder / "patient007_4d.nii.gz"), zooms=(0.0, 0.0, 0.0))


@damage("patient007_4d.nii.gz has the shape (5, 4, 3, 1, 6); save it as (x, y, z) or (x, y, z, t).")
def _(folder):
    nib.save(nib.Nifti1Image(array_of(folder / "patient007_4d.nii.gz")[..., None, :], AFFINE),
             folder / "patient007_4d.nii.gz")


@damage("patient007_4d.nii.gz holds complex64 values; save it with one real number a voxel.")
def _(folder):
    save(folder / "patient007_4d.nii.gz", array_of(folder / "patient007_4d.nii.gz").astype(np.complex64))


@pytest.mark.parametrize("sentence", DAMAGES)
def test_damage_gives_one_sentence(case_dir, sentence):
    DAMAGES[sentence](case_dir)
    case = only_case(case_dir)
    [problem] = acdc.check(case)
    where = case_dir.parent if sentence.startswith("patient007:") else case_dir
    assert problem.startswith(f"{where}/{sentence}") and problem.endswith(".") and "\n" not in problem
    if case.labels:
        with pytest.raises(UserError) as error:
            acdc.read(case)
        assert str(error.value) == problem
    else:  # fit for prediction all the same
        assert not acdc.read(case).labels


def test_check_finds_all_problems_at_once(case_dir):
    (case_dir / "patient007_4d.nii.gz").write_bytes(b"")
    save(case_dir / "patient007_frame03_gt.nii.gz", np.full(SHAPE[:3], 9, np.uint8))
    (case_dir / "Info.cfg").write_text("ED: -1\n")
    assert len(acdc.check(only_case(case_dir))) == 3


def test_remarks(case_dir):
    labels = array_of(case_dir / "patient007_frame03_gt.nii.gz")
    save(case_dir / "patient007_frame03_gt.nii.gz", labels, affine=AFFINE + 1e-3)
    assert acdc.remarks(only_case(case_dir)) == []
    save(case_dir / "patient007_frame03_gt.nii.gz", labels, affine=AFFINE + 1)
    (case_dir / "patient007_frame01_gt.nii.gz").unlink()
    affine, unlabelled = acdc.remarks(only_case(case_dir))
    assert "frame03_gt.nii.gz has another affine than patient007_4d.nii.gz" in affine
    assert "frame01.nii.gz has no ground truth and is not trained on" in unlabelled
    assert acdc.check(only_case(case_dir)) == []


def test_label_map(case_dir):
    case = only_case(case_dir)
    plain, mapped = acdc.read(case).labels[0], acdc.read(case, "1:3, 2:2,3:1").labels[0]
    np.testing.assert_array_equal(mapped, np.array([0, 3, 2, 1])[plain])
    assert acdc.parse_label_map("") == {} and acdc.parse_label_map("85:1") == {85: 1}


@pytest.mark.parametrize("text, part", [("1:4", "'1:4' is not from:to"), ("1-3", "'1-3' is not"), ("1:2,1:3", "twice")])
def test_bad_label_map(case_dir, text, part):
    with pytest.raises(UserError, match=part):
        acdc.find_cases(case_dir.parent, text)


def test_scaling_flips_and_odd_sizes_are_legitimate(tmp_path):
    stored = np.arange(5 * 4 * 1 * 6, dtype=np.int16).reshape(5, 4, 1, 6)
    image = nib.Nifti1Image(stored, np.array([[0, 2, 0, 5], [-2, 0, 0, 7], [0, 0, -9, 1], [0, 0, 0, 1.0]]))
    image.header.set_slope_inter(0.5, -3)
    nib.save(image, tmp_path / "one_slice.nii.gz")
    case = acdc.find_cases(tmp_path)[0]
    assert acdc.check(case) == []
    np.testing.assert_array_equal(acdc.read(case).frames, stored.T * 0.5 - 3)
    frames, image = acdc.read_volume(tmp_path / "one_slice.nii.gz")
    assert frames.shape == (6, 1, 4, 5) and acdc.spacing_of(image) == (9, 2, 2)


def test_read_volume(case_dir):
    frames, _ = acdc.read_volume(case_dir / "patient007_frame01.nii.gz")
    assert frames.shape == (1, 3, 4, 5) and frames.dtype == np.float32
    with pytest.raises(UserError, match="nothing.nii.gz does not exist"):
        acdc.read_volume(case_dir / "nothing.nii.gz")


def test_what_find_cases_refuses(case_dir, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    for folder, reason in ((empty, "holds no cases: expected patientXXX/"), (tmp_path / "none", "is not a folder")):
        with pytest.raises(UserError, match=reason):
            acdc.find_cases(folder)
    shutil.copy(case_dir / "patient007_4d.nii.gz", empty / "a_gt.nii.gz")
    with pytest.raises(UserError, match="a_gt.nii.gz: a ground truth needs its frame number"):
        acdc.find_cases(empty)
    (empty / "a_gt.nii.gz").rename(empty / "a_frame00.nii.gz")
    with pytest.raises(UserError, match="a_frame00.nii.gz: frames are counted from 1"):
        acdc.find_cases(empty)
    (empty / "a_frame00.nii.gz").rename(empty / "a.nii.gz")
    shutil.copy(empty / "a.nii.gz", empty / "a_4d.nii.gz")
    with pytest.raises(UserError, match="a_4d.nii.gz stands for the same data|a.nii.gz stands for the same data"):
        acdc.find_cases(empty)
    shutil.copytree(case_dir, case_dir.parents[1] / "testing" / "patient007")
    with pytest.raises(UserError, match="second case named patient007"):
        acdc.find_cases(case_dir.parents[1])


def test_links_stay_inside(case_dir, tmp_path):
    outside = tmp_path / "outside"
    shutil.move(case_dir, outside)
    case_dir.symlink_to(outside)
    with pytest.raises(UserError, match="is a link that leads outside"):
        acdc.find_cases(case_dir.parents[1])
    (tmp_path / "link").symlink_to(outside)
    assert len(acdc.find_cases(tmp_path / "link")) == 1


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the ACDC samples")
@pytest.mark.parametrize("cohort, count", [("acdc_mini", 21), ("acdc_full", 10)])
def test_real_cases_are_sound(cohort, count):
    cases = acdc.find_cases(REAL / cohort)
    assert len(cases) == count and all(len(case.labels) == 2 and case.ed == 0 for case in cases)
    for case in cases[:3]:
        assert acdc.check(case) == []
