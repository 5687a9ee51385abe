"""Each kind of damage to a phantom case is told in a sentence of its own, by every launcher, all of them at once."""

import gzip
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from tiny import LOOP

from ica_unet_jax import check_data
from ica_unet_jax.config import Config
from ica_unet_jax.data import cohort, reading
from ica_unet_jax.data.case import Case
from ica_unet_jax.errors import BadData, UserError
from ica_unet_jax.evaluation import judging
from ica_unet_jax.inference import jobs
from ica_unet_jax.training import loop

AFFINE = np.diag([1.5, 1.5, 10.0, 1.0])
DAMAGES = {}


def damage(sentence):
    """Registers a function of the patient's folder that damages it in one way, under the sentence that must follow."""
    return lambda function: DAMAGES.setdefault(sentence, function)


def rewrite(folder, name, change, zooms=(1.5, 1.5, 10.0), affine=AFFINE):
    """Replaces the array of a file of patient001 by `change` of it."""
    path = folder / f"patient001_{name}.nii.gz"
    array = change(np.asarray(nib.load(path).dataobj).copy())
    image = nib.Nifti1Image(array, affine)
    image.header.set_zooms(zooms + (1.0,) * (array.ndim - 3))
    nib.save(image, path)


def only_cine(folder):
    for path in (*folder.glob("*_frame*"), folder / "Info.cfg"):
        path.unlink()


def put(array, index, value):
    array[index] = value
    return array


@damage("patient001_frame01.nii.gz has no ground truth, nor has another frame of patient001; add patient001_frame01_gt.nii.gz.")
def _(folder):
    for path in folder.glob("*_gt.nii.gz"):
        path.unlink()


@damage("patient001_4d.nii.gz is 3D (64, 64, 2) where a cine (x, y, z, t) is expected; replace it, or name a single frame NAME_frameNN.nii.gz.")
def _(folder):
    shutil.copy(folder / "patient001_frame01.nii.gz", folder / "patient001_4d.nii.gz")


@damage("patient001_frame02.nii.gz has 4 frames where one is expected; name a cine NAME_4d.nii.gz.")
def _(folder):
    shutil.copy(folder / "patient001_4d.nii.gz", folder / "patient001_frame02.nii.gz")


@damage("Info.cfg: NbFrame is 7, but patient001_4d.nii.gz has 4 frames; correct the one that is wrong.")
def _(folder):
    (folder / "Info.cfg").write_text("ED: 1\nES: 2\nNbFrame: 7\n")


@damage("Info.cfg: ES is 7, but patient001_4d.nii.gz has 4 frames; correct it.")
def _(folder):
    (folder / "Info.cfg").write_text("ED: 1\nES: 7\n")


@damage("Info.cfg: ED is '0'; write a frame number counted from 1.")
def _(folder):
    (folder / "Info.cfg").write_text("ED: 0\nES: 2\n")


@damage("Info.cfg: ED is 'first'; write a frame number counted from 1.")
def _(folder):
    (folder / "Info.cfg").write_text("ED: first\n")


@damage("patient001_frame02.nii.gz is not frame 2 of patient001_4d.nii.gz (it is frame 4); correct its number or its content.")
def _(folder):
    cine = np.asarray(nib.load(folder / "patient001_4d.nii.gz").dataobj)
    rewrite(folder, "frame02", lambda _: cine[..., 3])


@damage("patient001_frame02.nii.gz is not frame 2 of patient001_4d.nii.gz; correct its number or its content.")
def _(folder):
    rewrite(folder, "frame02", lambda frame: frame[::-1])


@damage("patient001_frame09.nii.gz is frame 9, but patient001_4d.nii.gz has 4 frames; rename or remove it.")
def _(folder):
    shutil.copy(folder / "patient001_frame02.nii.gz", folder / "patient001_frame09.nii.gz")


@damage("patient001_frame09_gt.nii.gz labels frame 9, but patient001_4d.nii.gz has 4 frames; add the image or remove the file.")
def _(folder):
    shutil.copy(folder / "patient001_frame02_gt.nii.gz", folder / "patient001_frame09_gt.nii.gz")


@damage("patient001_frame02_gt.nii.gz labels frame 2, but that frame is not there; add the image or remove the file.")
def _(folder):
    (folder / "patient001_4d.nii.gz").unlink()
    (folder / "patient001_frame02.nii.gz").unlink()


@damage("patient001_frame01_gt.nii.gz has no image; add patient001_4d.nii.gz.")
def _(folder):
    for name in ("4d", "frame01", "frame02"):
        (folder / f"patient001_{name}.nii.gz").unlink()


@damage("patient001_frame02_gt.nii.gz holds the labels 4, 7, known are 0 to 3; correct it or use --label_map.")
def _(folder):
    rewrite(folder, "frame02_gt", lambda labels: put(put(labels, (0, 0, 0), 4), (0, 0, 1), 7))


@damage("patient001_frame02_gt.nii.gz holds the labels 0.5, known are 0 to 3; correct it or use --label_map.")
def _(folder):
    rewrite(folder, "frame02_gt", lambda labels: put(labels.astype(np.float32), (0, 0, 0), 0.5))


@damage("patient001_frame02_gt.nii.gz holds the labels nan, known are 0 to 3; correct it or use --label_map.")
def _(folder):
    rewrite(folder, "frame02_gt", lambda labels: put(labels.astype(np.float32), (0, 0, 0), np.nan))


@damage("patient001_frame02_gt.nii.gz has 4 frames; save each labelled frame as its own 3D file.")
def _(folder):
    rewrite(folder, "frame02_gt", lambda labels: np.stack([labels] * 4, axis=-1))


@damage("patient001_frame02_gt.nii.gz has the shape (64, 64, 1), its image (64, 64, 2); export both on one grid.")
def _(folder):
    rewrite(folder, "frame02_gt", lambda labels: labels[..., :1])


@damage("patient001_frame02.nii.gz has the shape (64, 64, 1), the frames of patient001_4d.nii.gz (64, 64, 2); export both on one grid.")
def _(folder):
    rewrite(folder, "frame02", lambda frame: frame[..., :1])


@damage("the frames of patient001 differ in shape ((64, 64, 1) and (64, 64, 2)); export them on one grid.")
def _(folder):
    (folder / "patient001_4d.nii.gz").unlink()
    rewrite(folder, "frame02", lambda frame: frame[..., :1])


@damage("patient001_4d.nii.gz, frame 3, holds NaN or infinite values; export it again.")
def _(folder):
    rewrite(folder, "4d", lambda cine: put(cine.astype(np.float32), (0, 0, 0, 2), np.nan))


@damage("patient001_4d.nii.gz, frame 4, holds NaN or infinite values; export it again.")
def _(folder):
    rewrite(folder, "4d", lambda cine: put(cine.astype(np.float64), (0, 0, 0, 3), 1e300))  # too large for float32


@damage("patient001_4d.nii.gz, frame 4, holds values beyond 1e+30; export it again.")
def _(folder):
    rewrite(folder, "4d", lambda cine: put(cine.astype(np.float32), (0, 0, 0, 3), -1e35))


@damage("patient001_4d.nii.gz, frame 4, is constant (12), so it shows nothing; export it again.")
def _(folder):
    rewrite(folder, "4d", lambda cine: put(cine, (..., 3), 12))


@damage("patient001_frame02.nii.gz cannot be read as NIfTI (")
def _(folder):
    (folder / "patient001_frame02.nii.gz").write_bytes(gzip.compress(b"not an image" * 100))


@damage("patient001_4d.nii.gz cannot be read as NIfTI (Compressed file ended before the end-of-stream marker was reached); copy or download it again.")
def _(folder):
    path = folder / "patient001_4d.nii.gz"
    path.write_bytes(path.read_bytes()[:-200])


@damage("patient001_frame02_gt.nii.gz cannot be read as NIfTI (CRC check failed")
def _(folder):
    path = folder / "patient001_frame02_gt.nii.gz"
    content = bytearray(path.read_bytes())
    content[-8] ^= 1  # a single bit, of the checksum
    path.write_bytes(content)


@damage("patient001_4d.nii.gz cannot be read as NIfTI (it holds 1000 bytes where its header promises 65888); copy or download it again.")
def _(folder):
    path = folder / "patient001_4d.nii.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:1000]))


@damage("patient001_frame02.nii.gz cannot be read as NIfTI (it is a pointer of Git LFS, not the file itself: `git lfs pull` fetches that); copy or download it again.")
def _(folder):
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 12345\n"
    (folder / "patient001_frame02.nii.gz").write_text(text)


@damage("patient001_4d.nii.gz cannot be read as NIfTI (it is a pointer of git-annex, not the file itself: `git annex get` fetches that); copy or download it again.")
def _(folder):
    (folder / "patient001_4d.nii.gz").write_text("/annex/objects/SHA256E-s8--9f86d081884c7d65.nii.gz\n")


@damage("patient001_4d.nii.gz is a link to what git-annex has not fetched; `datalad get` or `git annex get` fetches it.")
def _(folder):
    path = folder / "patient001_4d.nii.gz"
    path.unlink()
    path.symlink_to("../.git/annex/objects/Xx/Yy/SHA256E-s8--9f86d081/SHA256E-s8--9f86d081")


@damage("patient001_4d.nii.gz, frames 1 to 2, 4, hold NaN or infinite values; export it again.")
def _(folder):
    rewrite(folder, "4d", lambda cine: put(cine.astype(np.float32), (0, 0, 0, [0, 1, 3]), np.inf))


@damage("patient001_4d.nii.gz holds labels and no image, as its header says; name ground truths NAME_frameNN_gt.nii.gz and put predictions elsewhere.")
def _(folder):
    image = nib.load(folder / "patient001_4d.nii.gz")
    cine = nib.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header)
    cine.header.set_intent("label")
    nib.save(cine, folder / "patient001_4d.nii.gz")


@damage("patient001_4d.nii.gz has voxels of 10 x 1.5 x 1.5 mm, so that its slices do not lie along the third axis; save it as (x, y, z, t), or let --reorient turn it, if its affine is true.")
def _(folder):
    only_cine(folder)
    rewrite(folder, "4d", lambda cine: cine.transpose(2, 0, 1, 3), zooms=(10.0, 1.5, 1.5))


@damage("patient001_4d.nii.gz has more slices than rows or columns (4 x 64 x 64), so that its axes are in another order; save it as (x, y, z, t), or let --reorient turn it, if its affine is true.")
def _(folder):
    only_cine(folder)
    rewrite(folder, "4d", lambda cine: cine.transpose(3, 0, 1, 2))


@damage("patient001_4d.nii.gz changes less from slice to slice than from frame to frame, so that its slices seem to be frames; save it as (x, y, z, t).")
def _(folder):
    only_cine(folder)
    slices = np.random.default_rng(0).integers(0, 99, (64, 64, 1, 3))
    rewrite(folder, "4d", lambda _: (np.arange(9).reshape(1, 1, 9, 1) + slices).astype(np.int16))


@damage("patient001_4d.nii.gz has voxels of 0 x 0 x 0 mm; write the true voxel size into its header.")
def _(folder):
    rewrite(folder, "4d", np.asarray, zooms=(0.0, 0.0, 0.0))


@damage("patient001_4d.nii.gz has voxels of 1.5 x 1.5 x 1000 mm; write the true voxel size into its header.")
def _(folder):
    rewrite(folder, "4d", np.asarray, zooms=(1.5, 1.5, 1000.0))


@damage("patient001_4d.nii.gz has an affine that is not finite; write the true orientation into its header.")
def _(folder):
    path = folder / "patient001_4d.nii.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[280:284] = np.float32(np.nan).tobytes()  # srow_x
    path.write_bytes(gzip.compress(content))


@damage("patient001_4d.nii.gz has the shape (64, 64, 2, 1, 4); save it as (x, y, z) or (x, y, z, t).")
def _(folder):
    rewrite(folder, "4d", lambda cine: cine[..., None, :])


@damage("patient001_4d.nii.gz holds complex64 values; save it with one real number a voxel.")
def _(folder):
    rewrite(folder, "4d", lambda cine: cine.astype(np.complex64))


@damage("patient001_gt.nii.gz: a ground truth needs its frame number in its name; save each labelled frame as NAME_frameNN_gt.nii.gz.")
def _(folder):
    shutil.copy(folder / "patient001_frame02_gt.nii.gz", folder / "patient001_gt.nii.gz")


@damage("patient001_frame00_gt.nii.gz: frames are counted from 1; rename the file.")
def _(folder):
    shutil.copy(folder / "patient001_frame02_gt.nii.gz", folder / "patient001_frame00_gt.nii.gz")


@damage("patient001_frame2.nii.gz: patient001_frame02.nii.gz stands for the same data; remove one of the two.")
def _(folder):
    shutil.copy(folder / "patient001_frame02.nii.gz", folder / "patient001_frame2.nii.gz")


@damage("patient001_4d.nii.gz is a folder where a file is expected; put the file itself there.")
def _(folder):
    path = folder / "patient001_4d.nii.gz"
    path.rename(folder / "inner")
    path.mkdir()
    (folder / "inner").rename(path / "patient001_4d.nii")


@damage("patient001_4d.nii.gz is a link that leads nowhere; put the file itself there.")
def _(folder):
    path = folder / "patient001_4d.nii.gz"
    path.unlink()
    path.symlink_to(path)


@pytest.fixture
def case_dir(cohort, tmp_path):
    """A sound phantom patient of 4 frames of 2 slices, ED in frame 1 and ES in frame 2."""
    return shutil.copytree(cohort / "patient001", tmp_path / "data" / "patient001")


def only_case(case_dir):
    [case] = reading.find_cases(case_dir.parent)
    return case


def test_the_phantom_is_sound(case_dir):
    seen = reading.examine(only_case(case_dir))
    assert seen.problems == seen.remarks == [] and len(seen.cine.labels) == 2


@pytest.mark.parametrize("sentence", DAMAGES)
def test_damage_gives_one_sentence(case_dir, sentence):
    DAMAGES[sentence](case_dir)
    case = only_case(case_dir)
    [problem] = reading.check(case)
    place = f"{case_dir}: " if sentence.startswith("the ") else f"{case_dir}/"
    assert problem.startswith(place + sentence) and problem.endswith(".") and problem.isprintable()
    with pytest.raises(BadData) as error:
        reading.read(case)
    assert error.value.problems == [problem]
    if "has no ground truth" in sentence:  # fit for prediction all the same
        assert not reading.read(case, with_labels=False).labels


@pytest.mark.parametrize("name", ["patient\udcff", "pat\nient", "pat\x1b[2Jient"])
def test_a_name_that_cannot_be_written_is_told_in_one_that_can(case_dir, name):
    case_dir.rename(case_dir.with_name(name))
    [case] = reading.find_cases(case_dir.parent)
    problem, *others = reading.check(case)
    assert case.name == "patient001" and problem.isprintable() and problem.isascii()
    assert problem.endswith(f"in {case_dir.parent} has a name that cannot be written; rename it.")
    assert all(problem.isprintable() for problem in others)


@pytest.fixture
def dirty(cohort, tmp_path):
    """The four phantom patients, the first three of them damaged in two, one and one ways."""
    folder = shutil.copytree(cohort, tmp_path / "dirty")
    (folder / "patient001" / "Info.cfg").write_text("ED: 9\nES: 2\n")
    (folder / "patient001" / "patient001_frame02_gt.nii.gz").write_bytes(b"")
    (folder / "patient002" / "patient002_4d.nii.gz").write_bytes(b"")
    (folder / "patient003" / "patient003_gt.nii.gz").write_bytes(b"")
    return folder


NAMES = ["patient001/Info.cfg", "patient001_frame02_gt", "patient002_4d", "patient003_gt"]


def assert_all_told(text):
    lines = text.splitlines()
    assert len(lines) == 4 and all(name in line for name, line in zip(NAMES, lines, strict=True))


@pytest.mark.parametrize("jobs", [1, 2])
def test_check_data_tells_all_problems_of_a_cohort_at_once(dirty, jobs, capsys):
    with pytest.raises(SystemExit) as left:
        check_data.check(Config.make(data_dir=str(dirty)).data, jobs)
    assert left.value.code == 2
    told, _, summary = capsys.readouterr().out.strip().rpartition("\n")
    assert_all_told(told)
    assert summary == "4 cases, 3 bad, 4 problems"


def test_training_tells_them_all_before_it_starts(dirty, tmp_path):
    config = Config.make(**LOOP, data_dir=str(dirty), cache_dir=str(tmp_path / "cache"), workdir=str(tmp_path / "run"))
    with pytest.raises(BadData) as error:
        loop.train(config)
    *problems, advice = sorted(error.value.problems[:-1]) + error.value.problems[-1:]
    assert_all_told("\n".join(problems))
    assert advice == "3 of 4 cases are bad: correct them, or leave them out by --skip_bad_cases."
    assert not (tmp_path / "run").exists()


def test_what_is_left_out_is_listed_and_recorded(dirty, tmp_path, capsys):
    shutil.rmtree(dirty / "patient001")
    shutil.copytree(dirty / "patient004", dirty / "patient005")
    for path in (dirty / "patient005").glob("patient004*"):
        path.rename(path.with_name(path.name.replace("4_", "5_", 1)))
    split = {"train": ["patient002", "patient004"], "val": ["patient003", "patient005"]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    changes = dict(data_dir=str(dirty), cache_dir=str(tmp_path / "cache"), workdir=str(tmp_path / "run"))
    changes |= dict(split_file=str(tmp_path / "split.json"), skip_bad_cases=True, steps=2)
    config = Config.make(**LOOP | changes)
    loop.train(config)
    assert "left out: patient002, patient003" in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "split.json").read_text()) == {"train": ["patient004"], "val": ["patient005"]}
    left_out = json.loads((tmp_path / "run" / "left_out.json").read_text())
    assert list(left_out) == ["patient002", "patient003"] and "frame number" in left_out["patient003"][0]
    assert int(loop.train(config).step) == 2  # the same again is the same run

    with pytest.raises(BadData, match="2 of 4 cases are bad"):
        judging.evaluate(tmp_path / "run", split="all", cines=0, pictures=False)
    out = judging.evaluate(tmp_path / "run", split="all", cines=0, pictures=False, skip_bad_cases=True)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["patients"] == ["patient004", "patient005"] and list(summary["left_out"]) == ["patient002", "patient003"]
    assert "bad cases were left out: patient002, patient003" in (out / "table.md").read_text()


def test_prediction_uses_the_same_checks_but_needs_no_ground_truth(dirty, tmp_path, capsys):
    with pytest.raises(BadData) as error:
        jobs.find_jobs(dirty, tmp_path / "out")
    problem, summary = error.value.problems
    assert NAMES[2] in problem and summary.startswith("1 of 4 cases are bad")
    todo = jobs.find_jobs(dirty, tmp_path / "out", skip_bad_cases=True)
    assert [job.case.name for job in todo] == ["patient001", "patient003", "patient004"]
    assert "left out: patient002" in capsys.readouterr().err


def test_a_part_of_the_split_may_not_be_left_out_altogether():
    split = {"train": ["a", "b"], "val": ["c"]}
    assert cohort.without(split, ["a"]) == {"train": ["b"], "val": ["c"]}
    with pytest.raises(UserError, match="--skip_bad_cases leaves nobody in 'val'"):
        cohort.without(split, ["a", "c"])
    with pytest.raises(BadData, match="1 of 1 cases are bad: correct them.$"):
        cohort.screen([Case("x", problems=("bad.",))], reading.read, skip_bad=True)
