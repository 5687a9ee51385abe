"""A study in DICOM to masks, measurements and a page: they agree with each other, and tell nobody who the patient is."""

import contextlib
import gzip
import io
import json
import re
from types import SimpleNamespace

import dicoms
import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
from places import SHARED_DATA

from ica_unet_jax.data import reading
from ica_unet_jax.data.dicom import grid as grids
from ica_unet_jax.errors import BadData, UserError
from ica_unet_jax.inference import case_page, dicom_seg, jobs, prediction, segmenters, volumes
from ica_unet_jax.labels import STRUCTURES

MINI = SHARED_DATA / "acdc_mini"


@pytest.fixture(scope="module")
def frames(cohort):
    return np.asarray(nib.load(cohort / "patient001" / "patient001_4d.nii.gz").dataobj).T


@pytest.fixture(scope="module")
def study(frames, tmp_path_factory):
    """A study, one series a slice, in a folder of the patient's name."""
    folder = tmp_path_factory.mktemp("dicom") / "study"
    dicoms.write_cine(folder / dicoms.SECRETS[0], frames, one_series_a_slice=True, ProtocolName=f"cine {dicoms.SECRETS[1]}")
    return folder


@pytest.fixture(scope="module")
def predicted(tiny_run, study, tmp_path_factory):
    """The folder of what `predict --report` made of the study, and all that it printed."""
    folder, printed = tmp_path_factory.mktemp("predicted"), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        prediction.predict(tiny_run, study, folder, report=True)
    return folder, printed.getvalue()


def masks_of(paths, grid, shape):
    """Labels (t, s, h, w) as highdicom reads them, by the images that they refer to."""
    labels = np.zeros(shape, np.uint8)
    for path in paths:
        time = int(path.stem) - 1
        read, uids = highdicom.seg.segread(path), [image.uid for image in grid.sources(time)]
        labels[time] = read.get_pixels_by_source_instance(uids, combine_segments=True, assert_missing_frames_are_empty=True)
    return labels


def test_the_objects_hold_the_masks_of_the_nifti_file_and_refer_to_the_images(predicted, study):
    folder, _ = predicted
    [path] = folder.glob("*_seg.nii.gz")
    labels, [case] = np.asarray(nib.load(path).dataobj).T, reading.find_cases(study)
    objects = sorted((folder / path.name.replace(".nii.gz", "_dicom_seg")).iterdir())
    assert labels.any() and len(objects) == labels.any(axis=(1, 2, 3)).sum()
    np.testing.assert_array_equal(masks_of(objects, grids.arrange(case.stack), labels.shape), labels)
    np.testing.assert_allclose(nib.load(path).affine, reading.read(case, with_labels=False).affine, atol=1e-4)
    read = pydicom.dcmread(objects[0])
    codes = [item.SegmentedPropertyTypeCodeSequence[0].CodeValue for item in read.SegmentSequence]
    assert codes == ["53085002", "49848007", "87878005"] and read.StudyInstanceUID == "1.2.3"  # SNOMED CT: RV, myocardium of the LV, LV
    assert read.ContentDescription == "Research use only, not for diagnosis" and str(read.PatientID) == dicoms.SECRETS[3]


def test_nothing_but_the_objects_tells_who_the_patient_is(predicted):
    folder, printed = predicted
    checked = 0
    for path in folder.rglob("*"):
        assert not any(secret in str(path.relative_to(folder)) for secret in dicoms.SECRETS)
        if path.is_file() and path.suffix != ".dcm":
            data = path.read_bytes()
            data, checked = gzip.decompress(data) if path.suffix == ".gz" else data, checked + 1
            assert not any(secret.encode() in data for secret in dicoms.SECRETS), path.name
    assert checked == 5 and not any(secret in printed for secret in dicoms.SECRETS)
    assert "name, number, birth date and what else the images tell of patient, study and hospital is in them, as DICOM demands" in printed


def test_the_page_and_the_summary_have_the_same_figures(predicted):
    folder, _ = predicted
    [page], [summary] = folder.glob("*_report.html"), folder.glob("*_summary.json")
    page, known = page.read_text(), json.loads(summary.read_text())
    assert page.count("Research use only, not for diagnosis") == 1 and known["note"] == "Research use only, not for diagnosis"
    assert page.count('src="data:image/png;base64,') == 2 and "http" not in page
    assert len(known["volumes_ml"]["RV"]) == 4 and known["seconds_per_frame"] == pytest.approx(0.04)
    lv = known["volumes_ml"]["LV"]
    assert known["stroke_volume_ml"]["LV"] == pytest.approx(max(lv) - min(lv), abs=2e-3)
    assert known["lv_mass_g"] == pytest.approx(1.05 * known["volumes_ml"]["MYO"][known["ed_frame"] - 1], abs=2e-3)
    assert f">{known['lv_mass_g']:.1f}<" in page and f">{known['ed_volume_ml']['LV']:.1f}<" in page
    [head, *lines] = next(folder.glob("*_volumes.csv")).read_text().splitlines()
    assert head == "frame,time_s,RV_ml,MYO_ml,LV_ml,LV_mass_g" and float(lines[2].split(",")[4]) == pytest.approx(lv[2])


def test_identifiers_are_kept_if_that_is_asked_for(study, frames, tmp_path):
    labels = np.zeros(frames.shape, np.uint8)
    [job] = jobs.find_studies(study, tmp_path, False, False, "", "", True)
    prediction.save_cine(job, cine := job.read("").cine, labels, ["a remark"], {})
    assert dicoms.SECRETS[3] in job.target.name
    summary = json.loads(next(tmp_path.glob("*_summary.json")).read_text())
    assert summary["patient"]["patient_name"] == f"{dicoms.SECRETS[0]}^{dicoms.SECRETS[1]}" and summary["remarks"] == ["a remark"]
    case_page.save(tmp_path / "page.html", cine, labels, volumes.curves(labels, cine), summary, warnings=["<odd>"], identity=summary["patient"])
    page = (tmp_path / "page.html").read_text()
    assert dicoms.SECRETS[2] in page and "&lt;odd&gt;" in page and "Ejection fraction" in page


def test_what_cannot_be_predicted(frames, tmp_path):
    for number in range(2):
        dicoms.write_cine(tmp_path / "in" / f"{number}", frames, study=f"1.2.{number}")
    nib.save(nib.Nifti1Image(np.zeros((3, 3, 3)), np.eye(4)), tmp_path / "a.nii.gz")
    dicoms.write_image(tmp_path / "report" / "a", frames[0, 0], (0, 0, 0), dicoms.AXIAL, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11")
    dicoms.write_cine(tmp_path / "cut", frames)
    cut = tmp_path / "cut" / "IM005_00003"
    cut.write_bytes(cut.read_bytes()[:700])
    for source, target, more, message in (
        ("in", "out.nii.gz", {}, "must be a folder, as --input=.*in holds 2 studies"),
        ("in", "in/out", {}, "lies in --input"),
        ("in", "out", dict(acdc_names=True), "--acdc_names needs a cohort in ACDC's layout"),
        ("cut", "out.nii.gz", {}, r"\A[^\n]*IM005_00003 is cut off: its header ends before the size of the image; copy it from the archive again.\Z"),
        ("report", "out", {}, "holds no MR images in DICOM"),
    ):
        given = dict(acdc_names=False, skip_bad_cases=False, codes="", series="", keep_identifiers=False) | more
        with pytest.raises(UserError, match=message):
            jobs.find_studies(tmp_path / source, tmp_path / target, **given)


def test_a_study_with_a_slice_missing_is_one_sentence(tiny_run, frames, tmp_path, capfd):
    dicoms.write_cine(tmp_path / "in", np.repeat(frames, 2, axis=1), skip=[(t, 1) for t in range(4)])
    with pytest.raises(UserError, match=r"\A[^\n]*a slice is missing between slice 1[^\n]*\Z"):
        prediction.predict(tiny_run, tmp_path / "in", tmp_path / "out.nii.gz")
    assert capfd.readouterr().err == "" and not (tmp_path / "out.nii.gz").exists()


def test_masks_of_mixed_times_refer_to_the_nearest_images(tmp_path):
    """A slice of 2 images among slices of 4: each image gets the masks of two times."""
    frames = np.random.default_rng(0).integers(0, 900, (4, 3, 12, 16))
    uneven = [0, 10, 20, 120]  # as in a heart out of rhythm; images are matched one by one all the same
    dicoms.write_cine(tmp_path / "in", frames, times=[dicoms.TIMES, uneven, dicoms.TIMES[:2]], one_series_a_slice=True)
    [case] = reading.find_cases(tmp_path / "in")
    grid, labels = grids.arrange(case.stack), np.random.default_rng(1).integers(0, 4, frames.shape).astype(np.uint8)
    np.testing.assert_array_equal(masks_of(dicom_seg.save(tmp_path / "out", grid, labels, "net"), grid, labels.shape), labels)
    assert [[image.instance for image in grid.sources(time)] for time in range(4)] == [[1, 1, 1], [2, 2, 1], [3, 3, 2], [4, 4, 2]]
    np.testing.assert_array_equal(grid.frames()[:, :2], frames[:, :2])
    before = sorted((tmp_path / "out").iterdir())
    foreign = tmp_path / "out" / "099.dcm"
    foreign.write_bytes(next((tmp_path / "in").iterdir()).read_bytes())
    labels[0] = 0
    assert [*dicom_seg.save(tmp_path / "out", grid, labels, "net"), foreign] == [*before[1:], foreign] == sorted((tmp_path / "out").iterdir())
    foreign.rename(before[1])
    with pytest.raises(UserError, match="002.dcm is there already and not written by ica_unet_jax: remove it"):
        dicom_seg.save(tmp_path / "out", grid, labels, "net")


def test_masks_of_a_multi_frame_file_refer_to_its_frames(tmp_path):
    frames = np.random.default_rng(0).integers(0, 900, (4, 3, 12, 16))
    dicoms.write_enhanced(tmp_path / "in" / "all", frames, beside=frames)
    [case] = reading.find_cases(tmp_path / "in")
    labels = np.random.default_rng(1).integers(0, 4, frames.shape).astype(np.uint8)
    for time, path in enumerate(dicom_seg.save(tmp_path / "out", grids.arrange(case.stack), labels, "net")):
        made = highdicom.seg.segread(path)
        [shared] = made.SharedFunctionalGroupsSequence
        assert [*shared.PixelMeasuresSequence[0].PixelSpacing] == [1.5, 1.5] and shared.PixelMeasuresSequence[0].SliceThickness == 8
        for group, mask in zip(made.PerFrameFunctionalGroupsSequence, made.pixel_array, strict=True):
            [source] = group.DerivationImageSequence[0].SourceImageSequence
            [segment] = group.SegmentIdentificationSequence
            there, slice_ = divmod(source.ReferencedFrameNumber - 1, frames.shape[1])
            assert there == time and str(source.ReferencedSOPInstanceUID) == case.stack.images[0].uid
            np.testing.assert_allclose(group.PlanePositionSequence[0].ImagePositionPatient, dicoms.positions(3)[slice_], atol=1e-5)
            np.testing.assert_array_equal(mask, labels[time, slice_] == segment.ReferencedSegmentNumber)


def test_headers_that_are_not_as_dicom_wants_them_get_their_masks_and_are_not_quoted(tmp_path, capfd):
    """As after making anonymous: what is missing, or no value of its kind, is empty or made anew."""
    frames = np.random.default_rng(0).integers(0, 900, (4, 3, 12, 16))
    bad = dict(PatientBirthDate="1941-05-23", PatientSex="X", StudyDate="20200000", StudyTime="12:00:00", PatientName="Zyxwv=B=C=D^^^^^^^^^")
    dicoms.write_cine(tmp_path / "in", frames, thickness=None, **bad)
    for path in (tmp_path / "in").iterdir():
        data = pydicom.dcmread(path)
        del data.FrameOfReferenceUID, data.PositionReferenceIndicator, data.ReferringPhysicianName, data.StudyID
        data.add(pydicom.DataElement("PatientWeight", "DS", None))
        data["PatientWeight"]._value = "1941-05-23"
        data.save_as(path)
    [case] = reading.find_cases(tmp_path / "in")
    grid, labels = grids.arrange(case.stack), np.random.default_rng(1).integers(0, 4, frames.shape).astype(np.uint8)
    objects = dicom_seg.save(tmp_path / "out", grid, labels, "net")
    np.testing.assert_array_equal(masks_of(objects, grid, labels.shape), labels)
    made = [pydicom.dcmread(path) for path in objects]
    assert len({data.FrameOfReferenceUID for data in made}) == 1 and made[0].PatientBirthDate == made[0].PatientSex == made[0].StudyDate == ""
    assert made[0].SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness == pytest.approx(10)
    assert not any(secret in "".join(capfd.readouterr()) for secret in ("Zyxwv", "1941"))


def test_one_study_without_objects_does_not_stop_the_others_and_no_name_is_in_theirs(tiny_run, frames, tmp_path, monkeypatch, capsys):
    """Without --output, of folders and files that are called as patients are. What is wrong is told at the end, and quotes nothing."""
    for number in range(2):
        dicoms.write_cine(tmp_path / dicoms.SECRETS[0], frames[:, :2], study=f"1.2.{number}", number=5 + number, times=[[12] * 4] * 2)
    monkeypatch.chdir(tmp_path / dicoms.SECRETS[0])
    real, failed = dicom_seg._segmentation, []

    def refusing(headers, *others):
        header = next(iter(headers.values()))
        if failed and header.StudyInstanceUID != failed[0]:
            return real(headers, *others)
        failed.append(header.StudyInstanceUID)
        raise ValueError(f"Invalid date {header.PatientBirthDate}")

    monkeypatch.setattr(dicom_seg, "_segmentation", refusing)
    monkeypatch.setattr(segmenters, "load_as", lambda trained, chosen: SimpleNamespace(config=trained.config))
    monkeypatch.setattr(prediction, "segment", lambda segmenter, cine, chosen, name: (np.full(cine.frames.shape, 3, np.uint8), [0.0] * len(cine.frames)))
    with pytest.raises(BadData, match=r"001\.dcm cannot be written: something in the header of .* is not as DICOM wants it \(ValueError\)") as caught:
        prediction.predict(tiny_run, ".")
    assert caught.value.__cause__ is None and len(caught.value.problems) == 1 and dicoms.SECRETS[2] not in str(caught.value)
    made = [str(path.relative_to(tmp_path)) for path in (tmp_path / "studies_seg").rglob("*")]
    assert sum(name.endswith("_seg.nii.gz") for name in made) == 2 and sum(name.endswith(".dcm") for name in made) == len(frames)
    assert not any(secret in name for secret in dicoms.SECRETS for name in made) and dicoms.SECRETS[2] not in "".join(capsys.readouterr())
    [remark] = json.loads(next((tmp_path / "studies_seg").glob("*_summary.json")).read_text())["remarks"]
    assert re.fullmatch(r"study_\w{8}: the images have no trigger times that [^.]*\.", remark)
    dicoms.write_enhanced(tmp_path / f"{dicoms.SECRETS[0]}.dcm", frames)
    [job] = jobs.find_studies(tmp_path / f"{dicoms.SECRETS[0]}.dcm", None, False, False, "", "", False)
    assert job.target == tmp_path / f"{job.case.name}_seg.nii.gz" and job.case.name.startswith("study_")


@pytest.mark.skipif(not MINI.is_dir(), reason="needs ACDC-mini beside the checkout")
def test_a_real_cine_comes_back_from_dicom_with_its_masks(tmp_path):
    [case] = [case for case in reading.find_cases(MINI) if case.name == "patient007"]
    cine = reading.read(case)
    times = 1000 / len(cine.frames) * np.arange(len(cine.frames))
    dicoms.write_cine(tmp_path / "in", cine.frames.astype(np.int16), times=times, step=cine.spacing[0], spacing=cine.spacing[1:])
    [written] = reading.find_cases(tmp_path / "in")
    back, grid = reading.read(written, with_labels=False), grids.arrange(written.stack)
    np.testing.assert_array_equal(back.frames, cine.frames)
    assert back.spacing == pytest.approx(cine.spacing)
    labels = np.zeros(cine.frames.shape, np.uint8)
    for time, truth in cine.labels.items():
        labels[time] = truth
    prediction.save_labels(tmp_path / "masks.nii.gz", labels, back.header)
    masks = np.asarray(nib.load(tmp_path / "masks.nii.gz").dataobj).T
    objects = dicom_seg.save(tmp_path / "seg", grid, labels, "truth")
    assert len(objects) == len(cine.labels) and set(np.unique(masks)) == {0, *STRUCTURES.values()}
    np.testing.assert_array_equal(masks_of(objects, grid, labels.shape), masks)
