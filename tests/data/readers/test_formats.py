"""Forms in which the same patient comes: packed or not, pairs, capitals, links of git-annex, what people write into Info.cfg."""

import gzip
import os
import shutil

import nibabel as nib
import numpy as np
import pytest

from ica_unet_jax.data import reading, splits
from ica_unet_jax.data.phantom.beating_heart import simulate

AFFINE = np.diag([-1.5, -1.5, 10.0, 1.0])


@pytest.fixture
def patient(cohort, tmp_path):
    """A phantom patient of 4 frames, ED 1 and ES 2, two levels below `tmp_path`."""
    return shutil.copytree(cohort / "patient001", tmp_path / "set" / "training" / "patient001")


def seen(patient):
    [case] = reading.find_cases(patient.parent)
    return case, reading.examine(case)


def same(patient, cohort):
    """Whether the patient is read as that of the cohort."""
    case, found = seen(patient)
    assert found.problems == []
    expected = reading.read(reading.find_cases(cohort)[0])
    np.testing.assert_array_equal(found.cine.frames, expected.frames)
    assert list(found.cine.labels) == list(expected.labels)
    return case


def unpack(path, name):
    path.with_name(name).write_bytes(gzip.decompress(path.read_bytes()))
    if name != path.name:
        path.unlink()


def test_what_is_packed_its_bytes_say(patient, cohort):
    for path in patient.glob("*.nii.gz"):
        unpack(path, path.name)
    same(patient, cohort)
    for path in patient.glob("*.nii.gz"):
        path.with_suffix("").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    same(patient, cohort)


@pytest.mark.parametrize("names", [str.upper, lambda name: name.replace(".nii.gz", ".NII.GZ")])
def test_capitals(patient, cohort, names):
    for path in list(patient.iterdir()):
        path.rename(path.with_name(names(path.name)))
    case = same(patient, cohort)
    assert case.name == "patient001" and (case.ed, case.es) == (0, 1)


@pytest.mark.parametrize("kind", ["img", "img.gz", "IMG"])
def test_pairs(patient, cohort, kind):
    for path in patient.glob("*.nii.gz"):
        stem = path.name.removesuffix(".nii.gz")
        image = nib.load(path)
        nib.save(nib.Nifti1Pair(np.asarray(image.dataobj), image.affine, image.header), patient / f"{stem}.{kind.lower()}")
        if kind == "IMG":
            for suffix in ("img", "hdr"):
                (patient / f"{stem}.{suffix}").rename(patient / f"{stem}.{suffix.upper()}")
        path.unlink()
    same(patient, cohort)
    header = next(path for path in patient.iterdir() if "4d.hdr" in path.name.lower())
    header.unlink()
    [problem] = seen(patient)[1].problems[:1]
    assert problem.startswith(f"{header} does not exist; put it beside patient001_4d.{kind}")


@pytest.mark.parametrize("level", [0, 1, 2])
def test_links_of_git_annex_are_followed_wherever_the_cohort_lies_in_its_repository(patient, cohort, tmp_path, level):
    repository = [patient.parent, tmp_path / "set", tmp_path][level]
    store = repository / ".git" / "annex" / "objects"
    for i, path in enumerate(sorted(patient.iterdir())):
        kept = store / f"{i}" / "key" / path.name
        kept.parent.mkdir(parents=True)
        path.rename(kept)
        path.symlink_to(os.path.relpath(kept, patient))
    assert same(patient, cohort).ed == 0
    outside = tmp_path.parent / f"{tmp_path.name}_elsewhere"
    shutil.move(store, outside)
    shutil.copytree(outside, tmp_path / "elsewhere")
    for i, path in enumerate(sorted(patient.iterdir())):
        path.unlink()
        path.symlink_to(tmp_path / "elsewhere" / f"{i}" / "key" / path.name)
    problems = seen(patient)[1].problems
    assert problems and all("is a link that leads outside" in problem and "`cp -rL`" in problem for problem in problems)


INFO = "ed=1\nEs : 2\nGROUP: dcm\nspacing: Nominal\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_info_in_any_case_with_either_sign_in_any_utf(patient, encoding):
    (patient / "Info.cfg").write_bytes(INFO.encode(encoding))
    case, found = seen(patient)
    assert (case.ed, case.es, case.group, case.nominal_spacing) == (0, 1, "DCM", True)
    assert found.problems == found.remarks == []


def test_lines_of_info_that_say_nothing_known_are_remarked_on(patient):
    (patient / "Info.cfg").write_text("# from the scanner\nED: 1\nEnd-systole: 2\n\nES 2\nSpacing: nominell\n")
    case, found = seen(patient)
    [remark] = found.remarks
    assert "'End-systole: 2', 'ES 2', 'Spacing: nominell' says nothing that is known here; known are ED, ES," in remark
    assert (case.ed, case.es, case.nominal_spacing) == (0, None, False)


def labels_of(patient, change):
    path = patient / "patient001_frame02_gt.nii.gz"
    labels = np.asarray(nib.load(path).dataobj)
    nib.save(nib.Nifti1Image(change(labels), AFFINE), path)
    return labels


def test_labels_that_a_slope_has_moved_are_rounded_with_a_remark(patient):
    labels = labels_of(patient, lambda labels: (labels * (1 + 2e-8) + 3e-7).astype(np.float64))
    _, found = seen(patient)
    np.testing.assert_array_equal(found.cine.labels[1], labels.T)
    assert any("labels that are no whole numbers, but close to them; they are rounded" in remark for remark in found.remarks)


def test_labels_that_are_none_are_told_with_all_their_digits(patient):
    labels_of(patient, lambda labels: np.where(labels == 3, 3.0025, labels))
    [problem] = seen(patient)[1].problems
    assert "holds the labels 3.0025, known are 0 to 3" in problem


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_split_file_may_begin_with_a_byte_order_mark(patient, tmp_path, encoding):
    (tmp_path / "split.json").write_bytes('{"train": ["patient001"], "val": []}'.encode(encoding))
    assert splits.read_split(tmp_path / "split.json", [seen(patient)[0]])["train"] == ["patient001"]


def test_an_empty_frame_of_a_cine_without_labels_is_a_remark(patient):
    path = patient / "patient001_4d.nii.gz"
    array = np.asarray(nib.load(path).dataobj).copy()
    array[..., 2] = 7
    nib.save(nib.Nifti1Image(array, AFFINE), path)
    assert "frame 3, is constant (7), so it shows nothing" in seen(patient)[1].problems[0]
    for other in (*patient.glob("*frame*"), patient / "Info.cfg"):
        other.unlink()
    _, found = seen(patient)
    assert found.problems == [] and "frame 3, is constant (7)" in found.remarks[0]
    np.testing.assert_array_equal(found.cine.empty, [False, False, True, False])
    array[:] = 7
    nib.save(nib.Nifti1Image(array, AFFINE), path)
    assert "frames 1 to 4, are constant (7), so they show nothing" in seen(patient)[1].problems[0]


@pytest.mark.parametrize("shape, zooms", [((40, 36, 25), (1.5, 1.5, 8.0)), ((40, 36, 25, 4), (1.5, 1.5, 8.0, 1.0))])
def test_a_stack_of_very_many_slices_may_be_a_cine(tmp_path, shape, zooms):
    image = nib.Nifti1Image(np.random.default_rng(0).integers(0, 99, shape, dtype=np.int16), AFFINE)
    image.header.set_zooms(zooms)
    nib.save(image, tmp_path / "a.nii.gz")
    [remark] = reading.examine_file(tmp_path / "a.nii.gz").remarks
    assert "x 25 slices; if these are frames, save it as (x, y, z, t), of one slice as (x, y, 1, t)" in remark


def test_a_cine_of_one_slice_that_was_saved_as_a_stack_is_remarked_on(tmp_path):
    cine = simulate(0, 0, (8, 64, 64), 12).frames
    for name, stack in (("cine", cine[:, 4]), ("stack", cine[0])):
        image = nib.Nifti1Image(stack.T, AFFINE)
        nib.save(image, tmp_path / f"{name}.nii.gz")
    assert "1 x 12 slices; if these are frames" in reading.examine_file(tmp_path / "cine.nii.gz").remarks[0]
    assert reading.examine_file(tmp_path / "stack.nii.gz").remarks == []
