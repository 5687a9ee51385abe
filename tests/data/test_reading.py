"""The seam for readers: three functions and a line in `READERS` teach the package another layout."""

import shutil
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from ica_unet_jax.data import reading
from ica_unet_jax.data.case import Case, Cine, Examination
from ica_unet_jax.errors import BadData


def read_numbers(case, label_map, with_labels):
    frames = np.load(case.cine).astype(np.float32)
    return Examination(Cine(case, frames, tuple(range(len(frames))), {}, (8.0, 1.0, 1.0), np.eye(4), nib.Nifti1Header()), list(case.problems))


def find_numbers(root):
    return ((path.parent, Case(path.stem, cine=path)) for path in root.rglob("*.npy"))


NUMPY = SimpleNamespace(recognises=lambda root: any(root.rglob("*.npy")), find_cases=find_numbers, examine=read_numbers)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """One patient as an array; images beside it are of the other readers."""
    monkeypatch.setattr(reading, "READERS", {"numpy": NUMPY} | reading.READERS)
    np.save(tmp_path / "a.npy", np.arange(24).reshape(2, 2, 2, 3))
    return tmp_path


def test_another_layout_is_read(folder):
    [case] = reading.find_cases(folder)
    assert (case.name, case.reader) == ("a", "numpy")
    cine = reading.read(case)
    assert cine.times == (0, 1) and cine.frame(1)[1, 1, 2] == 23


def test_a_name_twice_is_a_problem_whoever_reads(folder):
    (folder / "more").mkdir()
    shutil.copy(folder / "a.npy", folder / "more" / "a.npy")
    [case] = reading.find_cases(folder)
    with pytest.raises(BadData, match="there is a second case named a in"):
        reading.read(case)


def test_the_layouts_are_told_apart(cohort, tmp_path):
    acdc, plain = reading.find_cases(cohort)[0], tmp_path / "plain"
    plain.mkdir()
    shutil.copy(acdc.cine, plain)
    assert acdc.reader == "acdc" and acdc.info.name == "Info.cfg"
    [case] = reading.find_cases(plain)
    assert (case.reader, case.name, case.info, case.ed) == ("folder", "patient001", None, None)
    shutil.copy(acdc.info, plain)  # a patient's folder by itself
    [case] = reading.find_cases(plain)
    assert (case.reader, case.ed, case.es) == ("acdc", acdc.ed, acdc.es)
