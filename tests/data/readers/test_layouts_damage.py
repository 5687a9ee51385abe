"""The layouts of the field: each kind of damage is told in one sentence."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from ica_unet_jax.data import reading
from ica_unet_jax.errors import UserError

# What may be wrong: layout, what is done to its folder, the sentences that must follow.
DAMAGES = []


def damage(layout, *sentences):
    return lambda function: DAMAGES.append((layout, function, sentences))


def image(path):
    stored = nib.load(path)
    return stored, np.asarray(stored.dataobj).copy()


def change(path, function):
    """Rewrites the array of an image."""
    stored, array = image(path)
    nib.save(nib.Nifti1Image(function(array), stored.affine, stored.header), path)


def put(array, index, value):
    array[index] = value
    return array


def rewrite(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def csv_of(folder):
    return next(folder.glob("*.csv"))


def first(folder, pattern):
    return min(folder.rglob(pattern))


@damage("mms", "diagnosis_opendataset.csv has no row for A0S9V9; add it.")
def _(folder):
    rewrite(csv_of(folder), "A0S9V9", "B0S9V9")


@damage("mms", "diagnosis_opendataset.csv: ES of A0S9V9 is 9, counted from 0, but A0S9V9_sa.nii.gz has 4 frames; correct it.")
def _(folder):
    rewrite(csv_of(folder), "A0S9V9,Siemens,A,1,0,1", "A0S9V9,Siemens,A,1,0,9")


@damage("mms", "diagnosis_opendataset.csv: ED of A0S9V9 is 'first'; write a frame number counted from 0.")
def _(folder):
    rewrite(csv_of(folder), "A0S9V9,Siemens,A,1,0,1", "A0S9V9,Siemens,A,1,first,1")


@damage("mms", "A0S9V9_sa_gt.nii.gz holds the labels 7, known are 0 to 3; correct it or use --label_map.")
def _(folder):
    change(first(folder, "A0*_gt.nii.gz"), lambda truth: put(truth, (0, 0, 0, 0), 7))


@damage("mms", "A0S9V9_sa_gt.nii.gz has the shape (64, 64, 2, 3), A0S9V9_sa.nii.gz (64, 64, 2, 4); export both on one grid.")
def _(folder):
    change(first(folder, "A0*_gt.nii.gz"), lambda truth: truth[..., :3])


@damage("mms", "A0S9V9_sa_gt.nii.gz labels nothing in any frame; remove it, or name its frames without a heart by --labelled_frames.")
def _(folder):
    change(first(folder, "A0*_gt.nii.gz"), np.zeros_like)


TRUTHS = {"mms2": "dataset/001/001_SA_ES_gt.nii.gz", "ukbb": "1000001/label_sa_ES.nii.gz", "nnunet": "labelsTr/patient001_frame01.nii.gz"}
HARMS = {
    "holds the labels 7, known are 0 to 3; correct it or use --label_map.": lambda truth: put(truth, (0, 0, 0), 7),
    "has the shape (64, 64, 1), its image (64, 64, 2); export both on one grid.": lambda truth: truth[..., :1],
    "labels nothing; remove it, or put the true one there.": np.zeros_like,
}
for _layout, _file in TRUTHS.items():
    for _sentence, _harm in HARMS.items():
        damage(_layout, f"{_file.rpartition('/')[2]} {_sentence}")(lambda folder, file=_file, harm=_harm: change(folder / file, harm))


@damage("mms2", "dataset_information.csv has no row for 001; add it.")
def _(folder):
    rewrite(csv_of(folder), "\n1,", "\n9,")


@damage("mms2", "001_SA_ES.nii.gz is no frame of 001_SA_CINE.nii.gz, so that nothing tells which frame its ground truth is of; correct one of the two, or remove the cine,")
def _(folder):
    change(first(folder, "001_SA_ES.nii.gz"), lambda frame: frame[::-1])


@damage("mms2", "001_SA_ES_gt.nii.gz has no image; add 001_SA_ES.nii.gz, which tells the frame.")
def _(folder):
    first(folder, "001_SA_ES.nii.gz").unlink()


@damage("ukbb", "sa_ES.nii.gz is no frame of sa.nii.gz, so that nothing tells which frame its ground truth is of; correct one of the two, or remove the cine,")
def _(folder):
    change(folder / "1000001" / "sa_ES.nii.gz", lambda frame: frame[::-1])


@damage("ukbb", "sa_ES.nii.gz is frame 1 of sa.nii.gz, which label_sa_ED.nii.gz labels already; correct one of the two.")
def _(folder):
    shutil.copy(folder / "1000001" / "sa_ED.nii.gz", folder / "1000001" / "sa_ES.nii.gz")


@damage("ukbb", "sa_ES.nii.gz has the shape (64, 64, 1), the frames of sa.nii.gz (64, 64, 2); export both on one grid.")
def _(folder):
    change(folder / "1000001" / "sa_ES.nii.gz", lambda frame: frame[..., :1])


@damage("ukbb", "label_sa_ES.nii.gz has no image; add sa_ES.nii.gz, which tells the frame.")
def _(folder):
    (folder / "1000001" / "sa_ES.nii.gz").unlink()


@damage("nnunet", "dataset.json calls label 3 'atrium', which is not known; call it RV, MYO or LV, or use --label_map.")
def _(folder):
    rewrite(folder / "dataset.json", "RV", "atrium")
    shutil.rmtree(folder / "imagesTs")


@damage("nnunet", "patient001_frame01_0000.nii.gz has no ground truth; add labelsTr/patient001_frame01.nii.gz.")
def _(folder):
    (folder / "labelsTr" / "patient001_frame01.nii.gz").unlink()


@damage("nnunet", "patient001_frame01.nii.gz has no image; add imagesTr/patient001_frame01_0000.nii.gz.")
def _(folder):
    (folder / "imagesTr" / "patient001_frame01_0000.nii.gz").unlink()


@damage("nnunet", "imagesTr: patient001_frame01 has several channels; cine MRI has one, patient001_frame01_0000.")
def _(folder):
    shutil.copy(folder / "imagesTr" / "patient001_frame01_0000.nii.gz", folder / "imagesTr" / "patient001_frame01_0001.nii.gz")


@damage("nnunet", "imagesTr: patient001_frame00 is no frame of its own, counted from 1; rename it, in all folders.")
def _(folder):
    for path in [*folder.rglob("patient001_frame01*")]:
        path.rename(path.with_name(path.name.replace("frame01", "frame00")))


@damage("nnunet", "dataset.json names no label 3, which patient001 has; add it, or use --label_map.")
def _(folder):
    rewrite(folder / "dataset.json", ', "RV": 3', "")


@damage("nnunet", "patient001_frame02_0000.nii.gz has other voxels than patient001_frame01_0000.nii.gz (1.5 x 1.5 x 10 and 3 x 1.5 x 10 mm); export both on one grid.")
def _(folder):
    path = first(folder, "patient001_frame02_0000.nii.gz")
    stored, array = image(path)
    header = stored.header.copy()
    header.set_zooms((2 * header.get_zooms()[0], *header.get_zooms()[1:]))
    nib.save(nib.Nifti1Image(array, None, header), path)


@damage("ukbb", "sa_ES.nii.gz has 2 frames where one is expected; save the frame of ES alone.")
def _(folder):
    change(folder / "1000001" / "sa_ES.nii.gz", lambda frame: np.stack([frame, frame[::-1]], axis=-1))


@damage("ukbb", "label_sa.nii.gz has no image; add sa.nii.gz.")
def _(folder):
    place = folder / "1000001"
    shutil.copy(place / "label_sa_ED.nii.gz", place / "label_sa.nii.gz")
    for name in ("sa", "sa_ED", "sa_ES", "label_sa_ED", "label_sa_ES"):
        (place / f"{name}.nii.gz").unlink()


@damage("mms", "A0S9V9_sa_gt.nii.gz has no image; add A0S9V9_sa.nii.gz.")
def _(folder):
    first(folder, "A0S9V9_sa.nii.gz").unlink()


@damage("nnunet", "splits_final.json: fold 0 trains on frames of patient001 and validates on others; keep a patient together.")
def _(folder):
    folds = json.loads((folder / "splits_final.json").read_text())
    folds[0]["train"].append(folds[0]["val"].pop())
    (folder / "splits_final.json").write_text(json.dumps(folds))


@damage("folder", "patient001_gt.nii.gz has the shape (64, 64, 2, 3), patient001_4d.nii.gz (64, 64, 2, 4); export both on one grid.")
def _(folder):
    change(folder / "patient001_gt.nii.gz", lambda truth: truth[..., :3])


@damage("folder", "patient001_gt.nii.gz labels nothing in any frame; remove it, or name its frames without a heart by --labelled_frames.")
def _(folder):
    change(folder / "patient001_gt.nii.gz", np.zeros_like)


@damage("folder", "patient001_gt.nii.gz: patient001_frame01_gt.nii.gz is a ground truth of the same cine; remove one of the two.")
def _(folder):
    shutil.copy(folder / "patient001_gt.nii.gz", folder / "patient001_frame01_gt.nii.gz")
    change(folder / "patient001_frame01_gt.nii.gz", lambda truth: truth[..., 0])


@damage("folder", "patient001_gt.nii.gz has no image; add patient001_4d.nii.gz.")
def _(folder):
    (folder / "patient001_4d.nii.gz").unlink()


@pytest.mark.parametrize("layout, harm, sentences", DAMAGES, ids=[f"{layout}-{sentences[0][-40:]}" for layout, _, sentences in DAMAGES])
def test_each_damage_is_told_in_one_sentence(layout, harm, sentences, copied):
    folder = copied(layout)
    harm(folder)
    told = [problem for case in reading.find_cases(folder)[:1] for problem in reading.check(case)]
    assert len(told) == len(sentences), told
    for sentence, problem in zip(sentences, told, strict=True):
        assert sentence in problem and problem.startswith(str(folder))


UNREADABLE = [
    ("mms", "*.csv", "9,A0S9V9,,,,,,,,,,", "has two rows for A0S9V9; remove one of them."),
    ("mms2", "*.csv", "007,,,,\n7,,,,", "has two rows for 007 and 7; remove one of them."),
    ("nnunet", "dataset.json", "{}", 'does not name the labels as "labels"'),
    ("nnunet", "dataset.json", '{"labels": {"background": 0, "RV": 1, "MYO": 2, "LV": 2}}', "dataset.json gives several labels the value 2; correct it."),
    ("nnunet", "splits_final.json", "[1]", 'is no list of {"train"'),
]


@pytest.mark.parametrize("layout, file, text, sentence", UNREADABLE)
def test_what_is_of_the_whole_cohort_is_refused(layout, file, text, sentence, copied):
    folder = copied(layout)
    path = next(folder.glob(file))
    path.write_text(f"{path.read_text()}{text}\n" if file == "*.csv" else text)
    with pytest.raises(UserError, match=".*".join(sentence.split("{"))):
        reading.find_cases(folder)


def test_an_unknown_reader_and_one_that_finds_nothing(cohort):
    with pytest.raises(UserError, match="--reader=mms3 is not known: choose one of auto, nnunet, mms, mms2, ukbb, acdc, dicom, folder."):
        reading.find_cases(cohort, reader="mms3")
    with pytest.raises(UserError, match="holds no cases of the layout 'ukbb': see docs/data.md for it, or choose another --reader."):
        reading.find_cases(cohort, reader="ukbb")


def test_frames_that_lie_otherwise_are_remarked_on(copied):
    folder = copied("nnunet")
    path = folder / "imagesTr" / "patient001_frame02_0000.nii.gz"
    stored, array = image(path)
    affine = stored.affine.copy()
    affine[:3, 3] += 5
    nib.save(nib.Nifti1Image(array, affine, stored.header), path)
    seen = reading.examine(reading.find_cases(folder)[0])
    assert seen.problems == [] and f"{path} has another affine than patient001_frame01_0000.nii.gz, which stands for both." in seen.remarks


def test_the_table_is_found_by_its_heads(copied):
    """Not by what stands in another one, which may not even be readable; and in the form that Excel writes."""
    folder = copied("mms")
    table = csv_of(folder)
    (folder / "0.csv").write_text("a,b\nthe External code is secret,1\n")
    (folder / "1.csv").write_text('"' + "x" * 200_000)  # more than a cell may hold
    (folder / "2.csv").mkdir()
    table.write_text("sep=;\n" + table.read_text().replace(",", ";"))
    case = reading.find_cases(folder)[0]
    assert (case.name, case.vendor, case.info, reading.check(case)) == ("A0S9V9", "Siemens", table, [])
