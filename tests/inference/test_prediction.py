import csv
import gzip
import json

import nibabel as nib
import numpy as np
import pytest

from ica_unet_jax.data import reading, saving
from ica_unet_jax.errors import UserError
from ica_unet_jax.inference import jobs, prediction, segmenters, volumes
from ica_unet_jax.metrics.clinical import volumes_ml
from ica_unet_jax.reporting import figures


@pytest.fixture
def cine_file(cohort, tmp_path):
    """A phantom cine whose header holds what tools get wrong: scaling, codes, an oblique affine, time in ms."""
    frames = np.asarray(nib.load(cohort / "patient001" / "patient001_4d.nii.gz").dataobj)
    affine = np.array([[0, -1.4, 0.1, 10], [1.5, 0, 0, -20], [0, 0.2, 9.9, 30], [0, 0, 0, 1]])
    image = nib.Nifti1Image(frames, affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=3)
    image.header.set_zooms((1.5, 1.5, 10, 50))
    image.header.set_xyzt_units("mm", "msec")
    image.header.set_slope_inter(2.5, -7)
    image.header["cal_max"] = 900
    path = tmp_path / "cine.nii.gz"
    nib.save(image, path)
    return path


def test_a_cine_keeps_its_header(tiny_run, cine_file, tmp_path, capsys):
    target = tmp_path / "out" / "labels.nii.gz"
    prediction.predict(tiny_run, cine_file, target)
    image, labels = nib.load(cine_file), nib.load(target)
    assert labels.shape == image.shape and labels.get_data_dtype() == np.uint8
    for key in ("pixdim", "xyzt_units", "qform_code", "sform_code", "srow_x", "quatern_b", "qoffset_x", "toffset"):
        np.testing.assert_array_equal(labels.header[key], image.header[key], key)
    np.testing.assert_array_equal(labels.affine, image.affine)
    assert labels.dataobj.slope == 1 and labels.dataobj.inter == 0 and labels.header["cal_max"] == 0

    with (target.parent / "labels_volumes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["frame"] for row in rows] == ["1", "2", "3", "4"] and float(rows[3]["time_s"]) == pytest.approx(0.15)
    first = np.count_nonzero(np.asarray(labels.dataobj)[..., 0] == 3) * 1.5 * 1.5 * 10 / 1000
    assert float(rows[0]["LV_ml"]) == pytest.approx(first, abs=1e-3)
    summary = json.loads((target.parent / "labels_summary.json").read_text())
    assert set(summary["ejection_fraction"]) == {"LV", "RV"} and summary["seconds_per_frame"] == pytest.approx(0.05)
    curves, phases = volumes_ml(np.asarray(labels.dataobj).T, (10, 1.5, 1.5)), {summary["es_frame"] - 1: "ES", summary["ed_frame"] - 1: "ED"}
    figures.volume_curves(tmp_path / "drawn.png", curves, seconds=summary["seconds_per_frame"], phases=phases, title="cine")
    assert (target.parent / "labels_volumes.png").read_bytes() == (tmp_path / "drawn.png").read_bytes()
    assert "EF of LV" in capsys.readouterr().out
    assert not list(target.parent.glob(".writing*"))


def test_without_a_place_masks_lie_beside_the_input_and_take_no_others(tiny_run, cine_file, capsys):
    target = cine_file.with_name("cine_seg.nii.gz")
    nib.save(nib.load(cine_file), target)  # an expert's, perhaps
    content = target.read_bytes()
    with pytest.raises(UserError, match="cine_seg.nii.gz is there, and was not written by this command: name another place by --output."):
        prediction.predict(tiny_run, cine_file)
    assert target.read_bytes() == content and len(reading.find_cases(cine_file.parent)) == 2
    target.unlink()
    for _ in range(2):  # its own it writes anew
        prediction.predict(tiny_run, cine_file)
    assert saving.holds_our_labels(target) and not saving.holds_our_labels(cine_file)
    assert [case.name for case in reading.find_cases(cine_file.parent)] == ["cine"]  # masks are no patient


def test_nothing_but_geometry_is_taken_over_from_a_header(tiny_run, cine_file, tmp_path):
    """Extensions and texts may hold names. That these are labels the header says, so that nobody takes them for a cine."""
    image = nib.load(cine_file)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Jane Doe, 1950"))
    image.header["descrip"], image.header["aux_file"], image.header["intent_name"] = "Jane Doe", "jane.dcm", "Jane"
    image.header["db_name"], image.header["data_type"] = "Doe^Jane", "JANE"
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header), cine_file)
    assert b"Jane" in gzip.decompress(cine_file.read_bytes())
    prediction.predict(tiny_run, cine_file, tmp_path / "out" / "masks.nii.gz")
    data = gzip.decompress((tmp_path / "out" / "masks.nii.gz").read_bytes())
    assert not any(word in data.lower() for word in (b"jane", b"doe"))
    with pytest.raises(UserError, match="masks.nii.gz holds labels and no image"):
        jobs.find_jobs(tmp_path / "out", tmp_path / "twice")


def test_an_empty_frame_gets_no_label_and_is_no_systole(tiny_run, cine_file, tmp_path, capsys):
    image = nib.load(cine_file)
    frames = np.asarray(image.dataobj).copy()
    frames[..., 2] = 0
    nib.save(nib.Nifti1Image(frames, image.affine, image.header), cine_file)
    prediction.predict(tiny_run, cine_file, tmp_path / "labels.nii.gz")
    assert not np.asarray(nib.load(tmp_path / "labels.nii.gz").dataobj)[..., 2].any()
    rows = list(csv.DictReader((tmp_path / "labels_volumes.csv").read_text().splitlines()))
    assert rows[2]["LV_ml"] == "" and rows[1]["LV_ml"]
    assert json.loads((tmp_path / "labels_summary.json").read_text())["es_frame"] != 3
    assert "frame 3, is constant" in capsys.readouterr().err


def test_a_cine_is_followed(tiny_run, tmp_path):
    rng = np.random.default_rng(0)
    frames = rng.gamma(2, 100, (3, 2, 90, 120)).astype(np.float32)
    image = nib.Nifti1Image(frames.T, np.eye(4))
    image.header.set_zooms((1.5, 1.5, 10, 1))
    nib.save(image, tmp_path / "large.nii.gz")
    prediction.predict(tiny_run, tmp_path / "large.nii.gz", tmp_path / "labels.nii.gz", window="follow")
    found = np.asarray(nib.load(tmp_path / "labels.nii.gz").dataobj).T
    expected = segmenters.load(tiny_run).segment_cine(frames, (10.0, 1.5, 1.5), window="follow")
    np.testing.assert_array_equal(found, expected)
    assert found.any()


def test_a_frame_gives_a_frame(tiny_run, cohort, tmp_path, capsys):
    source, target = cohort / "patient001" / "patient001_frame01.nii.gz", tmp_path / "frame.nii"
    prediction.predict(tiny_run, source, target, largest_component=True)
    assert nib.load(target).shape == nib.load(source).shape
    assert "volume_ml" in json.loads((tmp_path / "frame_summary.json").read_text())
    assert "mL: RV" in capsys.readouterr().out and not (tmp_path / "frame_volumes.png").exists()


def test_a_folder_is_checked_first_and_goes_on_without_a_bad_file_if_told_so(tiny_run, cohort, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    frame = nib.load(cohort / "patient001" / "patient001_frame01.nii.gz")
    nib.save(frame, source / "b.nii.gz")
    (source / "a.nii.gz").write_bytes(b"no image")
    with pytest.raises(UserError, match="a.nii.gz cannot be read as NIfTI"):
        prediction.predict(tiny_run, source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    prediction.predict(tiny_run, source, tmp_path / "out", skip_bad_cases=True)
    assert (tmp_path / "out" / "b_seg.nii.gz").is_file() and not (tmp_path / "out" / "a_seg.nii.gz").exists()


def test_acdc_submission(tiny_run, cohort, tmp_path):
    prediction.predict(tiny_run, cohort, tmp_path / "submission", acdc_names=True)
    expected = {f"patient00{i}_{phase}.nii.gz" for i in range(1, 5) for phase in ("ED", "ES")}
    assert {path.name for path in (tmp_path / "submission").iterdir()} == expected
    for case in reading.find_cases(cohort):
        image = nib.load(tmp_path / "submission" / f"{case.name}_ES.nii.gz")
        assert image.shape == nib.load(case.labels[case.es]).shape


def test_names_that_cannot_be(tmp_path):
    file = tmp_path / "a.nii.gz"
    file.touch()
    for source, target, message in (
        (file, file, "is the input"),
        (file, tmp_path / "b.png", "must be a file .nii.gz or .nii"),
        (tmp_path, tmp_path / "b.nii.gz", "must be a folder"),
        (tmp_path, tmp_path / "masks" / "new", "lies in --input"),
        (tmp_path / ".." / tmp_path.name, tmp_path / "masks", "lies in --input"),
    ):
        with pytest.raises(UserError, match=message):
            jobs.find_jobs(source, target)
    with pytest.raises(UserError, match="needs a cohort"):
        jobs.find_jobs(file, tmp_path / "out", acdc_names=True)


def test_summary_of_curves():
    curves = {"RV": np.array([100.0, 60, 80]), "MYO": np.array([90.0, 90, 90]), "LV": np.array([120.0, 48, 100])}
    summary = volumes.summarize(curves, None, False)
    assert (summary["ed_frame"], summary["es_frame"]) == (1, 2)
    assert summary["ejection_fraction"] == {"LV": 0.6, "RV": 0.4}
    assert volumes.describe(summary).startswith("EF of LV 60.0 %, EF of RV 40.0 %; mL at ED (frame 1): RV 100.0")
    nominal = volumes.summarize(curves, None, True)
    assert set(nominal["ed_volume_ml"].values()) == {None} and "RV –" in volumes.describe(nominal)
    gap = volumes.summarize({name: np.append(curve, np.nan) for name, curve in curves.items()}, None, False)
    assert gap == summary | dict(frames=4)
    no_rv = volumes.summarize(curves | dict(RV=np.zeros(3)), None, False)
    assert no_rv["ejection_fraction"] == {"LV": 0.6, "RV": None} and "EF of RV –" in volumes.describe(no_rv)


@pytest.mark.parametrize("frames", [1, 3])
def test_no_heart_is_said_and_has_no_phases(frames):
    nothing = dict.fromkeys(("RV", "MYO", "LV"), np.zeros(frames))
    empty = volumes.summarize(nothing, None, False)
    assert volumes.describe(empty).startswith("no heart was found") and empty["heart_found"] is False
    right = volumes.summarize(dict(RV=np.ones(3), MYO=np.zeros(3), LV=np.zeros(3)), None, False)
    assert right["ed_frame"] is right["es_frame"] is None and right["ejection_fraction"] == {"LV": None, "RV": None}
    assert volumes.describe(right).startswith("no LV cavity was found") and right["heart_found"] is True


def test_mirroring_needs_a_network_that_knows_it(tiny_run, cohort, tmp_path):
    with pytest.raises(UserError, match="--mirror needs a network that was trained with --flip"):
        prediction.predict(tiny_run, cohort, tmp_path / "out", mirror=True)


def test_long_names_are_written_or_refused_before_anything_is_segmented(tiny_run, cine_file, tmp_path, monkeypatch):
    prediction.predict(tiny_run, cine_file, tmp_path / ("n" * 228 + ".nii.gz"))
    assert sum(path.name.startswith("nnn") for path in tmp_path.iterdir()) == 4
    monkeypatch.setattr(prediction, "segment", lambda *_: pytest.fail("was segmented"))
    with pytest.raises(UserError, match="_summary.json cannot be written .File name too long.: choose another place or make room"):
        prediction.predict(tiny_run, cine_file, tmp_path / ("n" * 243 + ".nii.gz"))
