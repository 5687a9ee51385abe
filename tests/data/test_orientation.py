"""How cases lie in the patient: what their headers say, and that turning is exact."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from places import SHARED_DATA
from tiny import LOOP
from turned import turned_cohort

from ica_unet_jax.config import Config
from ica_unet_jax.data import orientation, reading
from ica_unet_jax.data.case import Case
from ica_unet_jax.data.orientation import Cohort, Turn
from ica_unet_jax.errors import UserError
from ica_unet_jax.inference import options, turning
from ica_unet_jax.runs import run_folder
from ica_unet_jax.runs.trained import Run
from ica_unet_jax.runtime.files import write_json
from ica_unet_jax.training import loop


def header(sform=None, qform=None, zooms=(1.5, 1.25, 8.0)):
    image = nib.Nifti1Image(np.zeros((4, 5, 3), np.uint8), np.diag([*zooms, 1.0]))
    image.header.set_zooms(zooms)
    image.set_qform(qform, code=int(qform is not None), update_affine=False)
    image.set_sform(sform, code=int(sform is not None), update_affine=False)
    return image.header


def test_letters_are_told_only_where_the_header_tells_them():
    lps, las = np.diag([-1.5, -1.25, 8, 1]), np.diag([-1.5, 1.25, 8, 1])
    assert orientation.codes_of(header(lps)) == orientation.codes_of(header(None, lps)) == orientation.codes_of(header(lps, lps)) == "LPS"
    assert orientation.codes_of(header(lps, las)) == ""  # which one?
    assert orientation.codes_of(header()) == ""  # nibabel would make one up
    flat = lps.copy()
    flat[:, 0] = 0
    assert orientation.codes_of(header(flat)) == "" == orientation.codes_of(header(np.full((4, 4), np.inf)))
    assert orientation.has_scale(header(lps)) and not orientation.has_scale(header(np.diag([-1.0, -1, 1, 1])))


@pytest.mark.parametrize("codes", ["LPS", "RPS", "SLP", "PIR"])
def test_a_turn_moves_voxels_as_nibabel_does_and_back(codes):
    stored = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    turn = Turn("LPS", codes)
    image = nib.Nifti1Image(stored[0].T.astype(np.int16), np.diag([-1.5, -1.25, 8.0, 1.0]))
    asked = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("LPS"), nib.orientations.axcodes2ornt(codes))
    theirs = image.as_reoriented(asked)
    np.testing.assert_array_equal(turn.forth(stored)[0].T, theirs.dataobj)
    assert turn.sizes((8.0, 1.25, 1.5)) == theirs.header.get_zooms()[::-1]
    np.testing.assert_array_equal(turn.back(turn.forth(stored)), stored)
    for nothing in (Turn("", codes), Turn(codes, ""), Turn()):
        np.testing.assert_array_equal(nothing.forth(stored), stored)
        assert nothing.sizes((8.0, 1.25, 1.5)) == (8.0, 1.25, 1.5)


def test_the_usual_letters_are_the_most_frequent_ones():
    assert orientation.count(["LAS", "LPS", "LPS", ""]) == {"LPS": 2, "": 1, "LAS": 1}
    usual = [Cohort(codes, True).usual for codes in ({"": 5, "LAS": 1}, {"": 5}, {}, {"RAS": 10**15, "LAS": 10**15})]
    assert usual == ["LAS", "", "", "LAS"]
    assert [orientation.is_codes(text) for text in ("LPS", "SAR", "LRS", "LP", "LPX", "")] == [True, True, False, False, False, False]


def test_a_mixed_cohort_is_brought_to_its_usual_letters_and_says_so(cohort, tmp_path, capsys):
    """The same frames to learn from and to validate on as of the cohort that was never turned."""
    split = {"train": ["patient001", "patient002", "patient003"], "val": ["patient004"]}
    write_json(tmp_path / "split.json", split)
    upright = turned_cohort(cohort, tmp_path / "upright", ["LPS"] * 4)
    mixed = turned_cohort(cohort, tmp_path / "mixed", ["LPS", "RAS", "LPS", "SLP"])
    common = LOOP | dict(cache_dir=str(tmp_path / "cache"), split_file=str(tmp_path / "split.json"), workdir=str(tmp_path / "run"))
    config = Config.make(**common, data_dir=str(mixed), reorient=True)
    assert loop.orientation_of(config) == Cohort({"LPS": 2, "RAS": 1}, True)
    samples, [cine], _, _ = loop.load(config)
    expected, [same], _, _ = loop.load(config.replace(data_dir=str(upright), reorient=False))
    for one, other in zip(samples, expected, strict=True):
        np.testing.assert_array_equal(one.frames, other.frames)
        np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_array_equal(cine.frames, same.frames)
    assert cine.spacing == same.spacing and "all are turned to LPS" in orientation.remark(loop.orientation_of(config), True)
    assert "--reorient turns all to LPS in training" in orientation.remark(loop.orientation_of(config))
    began = Cohort({"LAS": 3}, False)
    folder = run_folder.open_run(config, split, lie=began)
    assert run_folder.read_orientation(folder) == began == loop.orientation_of(config)


def test_to_a_network_for_any_orientation_none_is_new(cohort, tiny_run, tmp_path):
    folder = shutil.copytree(tiny_run, tmp_path / "run")
    write_json(folder / "orientation.json", {"codes": {"LPS": 4}, "scaled": True})
    cases = reading.find_cases(turned_cohort(cohort, tmp_path / "turned", ["RAI", "PLS", "LPS", "SLP"]))
    assert turning.remark(Run(folder), cases, "").startswith("3 of 4 cases: by the affine they lie otherwise")
    known = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", known | dict(rotation=180.0, flip=True, flip_slices=True))
    assert turning.remark(Run(folder), cases, "") == "" and "3 of 4 cases: turned to LPS" in turning.remark(Run(folder), cases, "LPS")


def test_a_case_that_does_not_tell_cannot_be_turned(cohort, tmp_path):
    image = nib.load(reading.find_cases(cohort)[0].cine)
    image.set_sform(None, code=0)
    image.set_qform(None, code=0)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), None, image.header), tmp_path / "bare_4d.nii.gz")
    bare = Case("bare", cine=tmp_path / "bare_4d.nii.gz")
    assert reading.check(bare, with_labels=False) == []
    [problem] = reading.examine(bare, with_labels=False, codes="LPS").problems
    assert "does not tell how it lies in the patient" in problem


def test_a_run_that_does_not_say_how_its_patients_lay_cannot_turn(tiny_run, cohort, tmp_path):
    data, chosen = run_folder.read_config(tiny_run).data, options.Options(reorient=True)
    with pytest.raises(UserError, match="--reorient: .* does not say how its training patients lay"):
        turning.codes_for(Run(tiny_run), data, chosen)
    assert turning.codes_for(Run(tiny_run), data, options.USUAL) == "" == turning.remark(Run(tiny_run), reading.find_cases(cohort), "")
    write_json(tmp_path / "orientation.json", dict(codes={"LPX": 3}, scaled=True))
    with pytest.raises(UserError, match="must be as"):
        run_folder.read_orientation(tmp_path)


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="needs the ACDC samples")
def test_the_remark_says_whose_letters_differ_and_what_an_affine_without_scale_is_worth(tmp_path):
    write_json(tmp_path / "orientation.json", Cohort({"LPS": 80}, True)._asdict())
    (tmp_path / "config.json").write_text(Config().to_json())
    told = {name: turning.remark(Run(tmp_path), reading.find_cases(SHARED_DATA / name), "") for name in ("acdc_full", "acdc_mini")}
    assert told["acdc_full"] == ""
    assert told["acdc_mini"].startswith("21 of 21 cases: by the affine they lie otherwise in the patient (21 LAS) than the training's (80 LPS).")
    doubt, mini = "Some affines hold no voxel sizes: these are often not true, so look at pictures first.", reading.find_cases(SHARED_DATA / "acdc_mini")
    assert not told["acdc_mini"].endswith(doubt)
    write_json(tmp_path / "orientation.json", Cohort({"LPS": 80}, False)._asdict())  # as those of ACDC are
    assert turning.remark(Run(tmp_path), mini, "").endswith(doubt) and turning.remark(Run(tmp_path), mini, "LPS").endswith(doubt)
    assert reading.lie(reading.find_cases(SHARED_DATA / "acdc_full")) == Cohort({"LPS": 10}, False) and reading.lie(mini) == Cohort({"LAS": 21}, True)


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="needs the ACDC samples")
@pytest.mark.parametrize("codes", ["RPS", "LAS", "LPI", "RAS", "PLS", "SLP"])
def test_real_patients_turned_are_read_as_the_upright_ones(tmp_path, codes):
    source = tmp_path / "source"
    for name in ("patient001", "patient007"):
        shutil.copytree(SHARED_DATA / "acdc_full" / name, source / name, copy_function=shutil.copyfile)
    upright, other = turned_cohort(source, tmp_path / "upright", ["LPS"] * 2), turned_cohort(source, tmp_path / "other", [codes] * 2)
    for one, same in zip(reading.find_cases(upright), reading.find_cases(other), strict=True):
        expected, found = reading.read(one), reading.read(same, codes="LPS")
        np.testing.assert_array_equal(found.frames, expected.frames)
        assert found.spacing == expected.spacing and list(found.labels) == list(expected.labels)
        for time, labels in expected.labels.items():
            np.testing.assert_array_equal(found.labels[time], labels)
