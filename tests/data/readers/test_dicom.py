"""Studies as scanners and archives leave them: the short-axis cine is found in each, or a sentence says why not."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import dicoms
import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEGLosslessSV1, JPEGLSLossless, RLELossless

from ica_unet_jax.data import reading
from ica_unet_jax.data.dicom import images
from ica_unet_jax.errors import BadData, UserError
from ica_unet_jax.runtime import packages

FRAMES = np.random.default_rng(0).integers(0, 900, (4, 5, 12, 16)).astype(np.int16)
LONG_AXIS = (tuple(dicoms.APEX), dicoms.SHORT_AXIS[1])
MOMENTS = 40.0 * np.arange(60)


def read(folder, series=""):
    """The one case of a folder and what was found in it."""
    cases = reading.find_cases(folder) if not series else [case for _, case in reading.dicom.find_cases(folder, series)]
    [case] = cases
    return case, reading.examine(case, with_labels=False)


def sound(folder, series=""):
    _, seen = read(folder, series)
    assert seen.problems == []
    return seen.cine


def problem(folder, series=""):
    _, seen = read(folder, series)
    [sentence] = seen.problems
    return sentence


def one_series(folder):
    dicoms.write_cine(folder, FRAMES)


def one_series_a_slice_in_folders_of_any_name(folder):
    dicoms.write_cine(folder, FRAMES, one_series_a_slice=True)
    for number, path in enumerate(sorted(folder.iterdir())):
        (folder / f"{number % 7}").mkdir(exist_ok=True)
        path.rename(folder / f"{number % 7}" / f"{(number * 7919) % 1000}.nii.gz")


def from_the_apex_and_times_first(folder):
    for t in range(4):
        for s, position in reversed(list(enumerate(dicoms.positions(5)))):
            dicoms.write_image(folder / f"{t}{s}", FRAMES[t, s], position, dicoms.SHORT_AXIS, instance=10 * t - s + 5, time=dicoms.TIMES[t])


def scaled(folder):
    dicoms.write_cine(folder, (FRAMES - 100) // 2 * 2, slope=(0.5, 50))


def multi_frame(folder):
    dicoms.write_enhanced(folder / "all", (FRAMES + 3) // 2)


def multi_frame_one_a_slice(folder):
    for s in range(5):
        dicoms.write_enhanced(folder / f"{s}", (FRAMES[:, s : s + 1] + 3) // 2, number=20 - s, first_slice=s)


def multi_frame_with_a_larger_axial_cine(folder):
    dicoms.write_enhanced(folder / "all", (FRAMES + 3) // 2, beside=np.tile(FRAMES, (1, 2, 1, 1)))


def packed(folder):
    one_series(folder)
    for number, path in enumerate(sorted(folder.iterdir())):
        data = pydicom.dcmread(path)
        data.compress((RLELossless, JPEGLSLossless)[number % 2])
        data.save_as(path)


def among_all_that_a_study_holds(folder):
    """Localizers, long axes, a perfusion, velocities, one that lies across a flow image, a report, and texts of a CD."""
    dicoms.write_cine(folder / "cine", FRAMES)
    dicoms.write_cine(folder / "localizer", FRAMES[:1], number=1, orientation=dicoms.AXIAL)
    dicoms.write_cine(folder / "axial", FRAMES[:, :, ::2], number=2, orientation=dicoms.AXIAL)
    dicoms.write_cine(folder / "long", FRAMES[:, :2], number=3, orientation=LONG_AXIS)
    dicoms.write_cine(folder / "perfusion", FRAMES[:, :3], number=30, times=dicoms.TIMES * 100)
    dicoms.write_cine(folder / "late", FRAMES[:1], number=31)
    dicoms.write_cine(folder / "flow", FRAMES, number=32, ImageType=["ORIGINAL", "PRIMARY", "P"])
    dicoms.write_cine(folder / "tags", FRAMES[:, :2, ::2], number=33)
    dicoms.write_image(folder / "report", FRAMES[0, 0], (0, 0, 0), dicoms.AXIAL, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11")
    (folder / "autorun.inf").write_text("[autorun]")


def with_private_tags(folder):
    one_series(folder)
    for path in folder.iterdir():
        data = pydicom.dcmread(path)
        data.private_block(0x0029, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", bytes(range(256)) * 20)
        data.save_as(path)


LAYOUTS = (
    one_series, one_series_a_slice_in_folders_of_any_name, from_the_apex_and_times_first, scaled, multi_frame, multi_frame_one_a_slice,
    multi_frame_with_a_larger_axial_cine, packed, among_all_that_a_study_holds, with_private_tags,
)  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_the_cine_is_found_however_it_is_stored(layout, tmp_path):
    layout(tmp_path / "study")
    cine = sound(tmp_path / "study")
    expected = {"scaled": (FRAMES - 100) // 2 + 50.0, "multi": (FRAMES + 3) // 2 * 2 - 3.0}
    np.testing.assert_array_equal(cine.frames, expected.get(layout.__name__.split("_")[0], FRAMES))
    assert cine.spacing == pytest.approx((10, 1.5, 1.5)) and cine.header.get_xyzt_units() == ("mm", "sec")
    assert float(cine.header["pixdim"][4]) == pytest.approx(0.04)
    for voxel in ((0, 0, 0), (3, 7, 4)):  # where DICOM says that it lies; NIfTI counts to the right and to the front
        place = dicoms.positions(5)[voxel[2]] + 1.5 * voxel[0] * np.array(dicoms.SHORT_AXIS[0]) + 1.5 * voxel[1] * np.array(dicoms.SHORT_AXIS[1])
        np.testing.assert_allclose(nib.affines.apply_affine(cine.affine, voxel), place * (-1, -1, 1), atol=1e-3)


def test_dcm2niix_reads_the_same_voxels_at_the_same_places(tmp_path):
    pytest.importorskip("dcm2niix")
    dicoms.write_cine(tmp_path / "study", FRAMES, slope=(2, -3))
    (tmp_path / "out").mkdir()
    command = [str(Path(sys.executable).with_name("dcm2niix")), "-b", "n", "-z", "y", "-o", str(tmp_path / "out"), str(tmp_path / "study")]
    subprocess.run(command, check=True, capture_output=True)
    [path] = (tmp_path / "out").glob("*.nii.gz")
    cine = sound(tmp_path / "study")
    theirs, ours = (nib.as_closest_canonical(image) for image in (nib.load(path), nib.Nifti1Image(cine.frames.T, cine.affine, cine.header)))
    np.testing.assert_array_equal(ours.get_fdata(), theirs.get_fdata())
    np.testing.assert_allclose(ours.affine, theirs.affine, atol=0.01)
    np.testing.assert_allclose(ours.header.get_zooms(), theirs.header.get_zooms(), rtol=1e-4)


def test_a_cohort_of_studies_whose_names_tell_nothing(tmp_path):
    for number in range(3):
        dicoms.write_cine(tmp_path / f"{dicoms.SECRETS[0]} {number}", FRAMES, study=f"1.2.{number}")
    cases = reading.find_cases(tmp_path)
    assert len({case.name for case in cases}) == 3 and not any(dicoms.SECRETS[0] in case.name for case in cases)
    shutil.rmtree(tmp_path / f"{dicoms.SECRETS[0]} 1")
    assert {case.name for case in reading.find_cases(tmp_path)} < {case.name for case in cases}


def test_a_large_folder_is_known_by_its_first_files(tmp_path, monkeypatch):
    """By their bytes alone: no header is parsed, and of each folder few files are opened."""
    opened = []
    real = images.is_dicom
    monkeypatch.setattr(images, "is_dicom", lambda path: opened.append(path) or real(path))
    monkeypatch.setattr(images, "silent_pydicom", lambda path: pytest.fail("was parsed"))
    for folder in range(3):
        (tmp_path / f"{folder}").mkdir()
        for number in range(500):
            (tmp_path / f"{folder}" / f"{number}").touch()
    assert not images.holds_dicom(tmp_path) and len(opened) <= 3 * 8
    (tmp_path / "0" / "0.nii.gz").write_bytes(bytes(128) + b"DICM")
    assert images.holds_dicom(tmp_path)


def test_slices_with_fewer_images_are_resampled_in_parts_of_the_beat(tmp_path):
    """Brightness that grows evenly over the beat stays even."""
    beats = [np.arange(n) / n for n in (10, 10, 8, 10, 5)]
    texture = np.random.default_rng(1).integers(0, 9000, (5, 12, 16))
    for s, (position, beat) in enumerate(zip(dicoms.positions(5), beats, strict=True)):
        for t, part in enumerate(beat):
            dicoms.write_image(tmp_path / f"{s}_{t}", 1000 * part + texture[s], position, dicoms.SHORT_AXIS, number=s,
                               series=f"1.{s}", instance=t, time=(800 - 40 * s) * part)  # fmt: skip
    _, seen = read(tmp_path)
    assert seen.problems == [] and seen.cine.frames.shape[0] == 10
    whole = np.minimum(np.arange(10) / 10, 7 / 8)
    np.testing.assert_allclose(seen.cine.frames[:, 2, 0, 0] - texture[2, 0, 0], 1000 * whole, atol=1)
    [remark] = seen.remarks
    assert "(3 x 10, 1 x 8, 1 x 5): slices 3, 5 are interpolated in time to 10" in remark


def test_a_missing_image_is_named_and_made_of_its_neighbours(tmp_path):
    dicoms.write_cine(tmp_path, FRAMES, skip=[(2, 3)])
    _, seen = read(tmp_path)
    assert seen.problems == []
    np.testing.assert_allclose(seen.cine.frames[2, 3], FRAMES[[1, 3], 3].mean(0), atol=0.01)
    np.testing.assert_array_equal(np.delete(seen.cine.frames, 3, 1), np.delete(FRAMES, 3, 1))
    assert any("slice 4: images are missing after series 5, image 14" in remark for remark in seen.remarks)


def test_double_images_are_named_and_left_out(tmp_path):
    one_series(tmp_path)
    for path in list(tmp_path.iterdir())[:3]:
        shutil.copy(path, path.with_name(f"copy of {path.name}"))
    _, seen = read(tmp_path)
    np.testing.assert_array_equal(seen.cine.frames, FRAMES)
    assert any("3 images of this series are there twice" in remark for remark in seen.remarks)


def test_a_slice_that_was_scanned_again_replaces_the_first(tmp_path):
    dicoms.write_cine(tmp_path, np.where(np.arange(5)[:, None, None] == 2, 7 + np.arange(16), FRAMES).astype(np.int16), one_series_a_slice=True)
    for t in range(4):
        dicoms.write_image(tmp_path / f"again{t}", FRAMES[t, 2], dicoms.positions(5)[2], dicoms.SHORT_AXIS, number=40, series="1.40", instance=t,
                           time=dicoms.TIMES[t])  # fmt: skip
    _, seen = read(tmp_path)
    np.testing.assert_array_equal(seen.cine.frames, FRAMES)
    assert any("series 40 shows 1 slice of series 7 again; the later images are taken" in remark for remark in seen.remarks)


def test_a_scan_that_was_done_again_in_one_series_replaces_the_first(tmp_path):
    dicoms.write_cine(tmp_path, FRAMES[::-1])
    dicoms.write_cine(tmp_path, FRAMES, first=100)
    _, seen = read(tmp_path)
    np.testing.assert_array_equal(seen.cine.frames, FRAMES)
    assert any("20 images of this series are there twice" in remark for remark in seen.remarks)


@pytest.mark.parametrize("number, thickness", [(5, 6.0), (40, 8.0)])
def test_a_second_scan_between_the_slices_of_the_first_is_another_cine(number, thickness, tmp_path):
    dicoms.write_cine(tmp_path, FRAMES, number=20, one_series_a_slice=True, thickness=thickness)
    dicoms.write_cine(tmp_path, FRAMES[::-1], number=number, one_series_a_slice=True, thickness=thickness, start=5)
    assert "there are 2 short-axis cines" in problem(tmp_path)
    for series, frames in (("22", FRAMES), (f"{number + 2}", FRAMES[::-1])):
        cine = sound(tmp_path, series)
        np.testing.assert_array_equal(cine.frames, frames)
        assert cine.spacing[0] == pytest.approx(10)


def test_one_slice_between_others_is_named_and_left_out(tmp_path):
    one_series(tmp_path)
    dicoms.write_cine(tmp_path, FRAMES[:, :1], number=9, start=25)
    _, seen = read(tmp_path)
    np.testing.assert_array_equal(seen.cine.frames, FRAMES)
    assert any("Left out, nearer to other slices than these are thick: series 9: 1 slice x 4 times" in remark for remark in seen.remarks)


def test_slices_of_one_scan_may_overlap_or_be_scanned_by_turns(tmp_path):
    dicoms.write_cine(tmp_path / "overlap", FRAMES, one_series_a_slice=True, step=6)
    np.testing.assert_array_equal(sound(tmp_path / "overlap").frames, FRAMES)
    for first in range(2):
        dicoms.write_cine(tmp_path / "turns", FRAMES[:, first::2], number=5 + first, step=16, start=8 * first)
    np.testing.assert_array_equal(sound(tmp_path / "turns").frames, FRAMES)


@pytest.mark.parametrize("times", [[None] * 4, [12] * 4, [12, 12, 52, 92]], ids=["none", "one", "some"])
def test_images_without_trigger_times_of_their_own_keep_the_scanners_order(times, tmp_path):
    dicoms.write_cine(tmp_path, FRAMES, times=np.array(times))
    _, seen = read(tmp_path)
    np.testing.assert_array_equal(seen.cine.frames, FRAMES)
    assert seen.cine.header.get_xyzt_units()[1] == "unknown" and "no trigger times that tell them apart" in seen.remarks[0] and len(seen.remarks) == 1


def test_a_single_slice_lies_towards_the_apex_wherever_the_patient_is(tmp_path):
    for start in (-300, 0, 300):
        dicoms.write_cine(tmp_path / f"{start}", FRAMES[:, :1], start=start)
        np.testing.assert_allclose(sound(tmp_path / f"{start}").affine[:3, 2], 8 * dicoms.APEX * (-1, -1, 1), atol=1e-3)
    dicoms.write_cine(tmp_path / "thin", FRAMES[:, :1], thickness=None)
    assert "does not tell how thick it is" in problem(tmp_path / "thin")


def test_pixels_and_sizes_that_cannot_be_are_refused(tmp_path):
    still = np.where(np.arange(4)[:, None, None, None] == 2, 7, FRAMES)
    for number, (frames, more, message) in enumerate((
        (FRAMES, dict(slope=("1e40", "0")), "holds? NaN or infinite values"), (FRAMES, dict(slope=("1e34", "0")), "holds? values beyond 1e+"),
        (still[2:3].repeat(2, 0), {}, r"frames 1 to 2, are constant \(7\)"), (FRAMES, dict(spacing=(300, 300)), "has voxels of 300 x 300 x 10 mm"),
    )):  # fmt: skip
        dicoms.write_cine(tmp_path / f"{number}", frames, **more)
        assert re.search(message, " ".join(read(tmp_path / f"{number}")[1].problems)), message
    dicoms.write_cine(tmp_path / "one", still)
    _, seen = read(tmp_path / "one")
    assert seen.problems == [] and re.match(r"study_\w{8}, frame 3, is constant \(7\)", seen.remarks[0])


def test_series_picks_one_of_two_cines(tmp_path):
    dicoms.write_cine(tmp_path, FRAMES)
    dicoms.write_cine(tmp_path, FRAMES[::-1], number=9, first=100)
    sentence = problem(tmp_path)
    assert "there are 2 short-axis cines (series 5: 5 slices x 4 times, 12x16; series 9: 5 slices" in sentence and "--series=5" in sentence
    np.testing.assert_array_equal(sound(tmp_path, "9").frames, FRAMES[::-1])
    np.testing.assert_array_equal(sound(tmp_path, "1.2.3.5").frames, FRAMES)
    assert "--series=7 is no cine of this study; there are series 5: 5 slices" in problem(tmp_path, "7")


def test_what_cannot_be_a_stack(tmp_path):
    def case(name, *arguments, **options):
        dicoms.write_cine(tmp_path / name, *arguments, **options)
        return tmp_path / name

    assert "a slice is missing between slice 2 (series 5, image 5) and slice 3 (series 5, image 13), which lie 20.0 mm apart" in problem(
        case("gap", FRAMES, skip=[(t, 2) for t in range(4)])
    )
    changed = case("changed", FRAMES, one_series_a_slice=True, skip=[(t, 2) for t in range(4)])
    for t in range(4):
        dicoms.write_image(changed / f"{t}", FRAMES[t, 2, ::2], dicoms.positions(5)[2], dicoms.SHORT_AXIS, number=7, series="1.7", instance=t, time=40 * t)
    assert "a slice is missing between slice 2" in problem(changed) and "of another matrix or place: series 7: 1 slice x 4 times, 6x16" in problem(changed)
    assert "no short-axis cine is found among the MR images; there are series 5: 5 slices x 4 times" in problem(case("axial", FRAMES, orientation=dicoms.AXIAL))
    np.testing.assert_array_equal(sound(tmp_path / "axial", "5").frames, FRAMES)  # as --series is believed
    assert "has 1 images where the others have 4" in problem(case("few", FRAMES, skip=[(t, 2) for t in range(3)]))
    shifted = case("shifted", FRAMES, skip=[(t, 4) for t in range(4)])
    for t in range(4):
        place = dicoms.positions(5)[4] + 9 * np.array(dicoms.SHORT_AXIS[0])
        dicoms.write_image(shifted / f"{t}", FRAMES[t, 4], place, dicoms.SHORT_AXIS, number=7, series="1.7", instance=t, time=40 * t)
    assert "mm in its plane against the line of the others" in problem(shifted)
    assert "there are no cines at all" in problem(case("localizer", FRAMES[:1]))


@pytest.mark.parametrize("length, message", [(200, "is cut off"), (700, "is cut off"), (-20, "its pixels are cut off")])
def test_a_truncated_file_is_named(length, message, tmp_path):
    one_series(tmp_path)
    path = sorted(tmp_path.iterdir())[6]
    path.write_bytes(path.read_bytes()[:length])
    problems = [sentence for case in reading.find_cases(tmp_path) for sentence in reading.examine(case, with_labels=False).problems]
    assert len(problems) == 1 and path.name in problems[0] and message in problems[0]


def test_any_byte_changed_is_a_sentence_or_a_cine(tmp_path):
    dicoms.write_cine(tmp_path, FRAMES[:2, :2])
    path = sorted(tmp_path.iterdir())[2]
    good, rng = path.read_bytes(), np.random.default_rng(3)
    for place in rng.integers(132, len(good), 40):
        path.write_bytes(good[:place] + bytes([int(rng.integers(256))]) + good[place + 1 :])
        for case in reading.find_cases(tmp_path):
            seen = reading.examine(case, with_labels=False)
            assert seen.problems or np.isfinite(seen.cine.frames).all()


def test_a_packed_file_that_nothing_here_unpacks(tmp_path, monkeypatch):
    one_series(tmp_path)
    path = sorted(tmp_path.iterdir())[0]
    data = pydicom.dcmread(path)
    data.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8" + bytes(20)])
    data.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    data.save_as(path)
    assert "its pixels are cut off or cannot be unpacked" in problem(tmp_path)
    decoder = type("Decoder", (), dict(is_available=False))
    monkeypatch.setattr(pydicom.pixels, "get_decoder", lambda syntax: decoder)
    assert "is compressed (JPEG Lossless" in problem(tmp_path) and "ica-unet-jax[dicom]" in problem(tmp_path)


def test_without_the_extra_a_sentence_says_what_to_install(tmp_path, monkeypatch):
    one_series(tmp_path)
    monkeypatch.setattr(packages, "missing", list)
    with pytest.raises(UserError, match=r'is or holds DICOM, which needs pydicom and highdicom: pip install "ica-unet-jax\[dicom\]"'):
        reading.find_cases(tmp_path)


def test_a_link_that_leads_outside_is_refused(tmp_path):
    one_series(tmp_path / "study")
    one_series(tmp_path / "other")
    os.symlink(tmp_path / "other" / "IM005_00001", tmp_path / "study" / "linked")
    with pytest.raises(BadData, match="leads outside"):
        for case in reading.find_cases(tmp_path / "study"):
            reading.read(case, with_labels=False)


def test_a_folder_that_is_a_link_is_named_where_it_leads_outside(tmp_path):
    one_series(tmp_path / "other")
    (tmp_path / "study").mkdir()
    os.symlink(tmp_path / "other", tmp_path / "study" / "series")
    assert "series is a link to a folder outside" in problem(tmp_path / "study")
    one_series(tmp_path / "study" / "own")
    os.symlink(tmp_path / "study", tmp_path / "study" / "own" / "round")
    (tmp_path / "study" / "series").unlink()
    sound(tmp_path / "study")


def test_nifti_files_beside_are_told(tmp_path):
    one_series(tmp_path)
    nib.save(nib.Nifti1Image(np.zeros((3, 3, 3)), np.eye(4)), tmp_path / "IM.nii.gz")
    assert "1 NIfTI files lie beside the DICOM files" in read(tmp_path)[1].remarks[0]
