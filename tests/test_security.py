"""What is loaded never executes, and a data folder never leads outside itself."""

import ast
import builtins
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ica_unet_jax
from ica_unet_jax.data import cache, reading, splits
from ica_unet_jax.errors import BadData, UserError
from ica_unet_jax.evaluation import judging
from ica_unet_jax.inference import segmenters

PACKAGE = Path(ica_unet_jax.__file__).parent
EXECUTING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml", "torch"}


def calls(tree, *names):
    """The calls of functions or methods of these names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in names:
                yield node


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_loads_what_could_execute(path):
    tree = ast.parse(path.read_text())
    imported = {alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {(node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not imported & EXECUTING
    assert not [node for node in calls(tree, "eval", "exec", "compile", "__import__") if isinstance(node.func, ast.Name)]
    for call in calls(tree, "load", "save", "savez"):
        if isinstance(call.func, ast.Attribute) and getattr(call.func.value, "id", "") == "np":
            given = {keyword.arg: keyword.value for keyword in call.keywords}
            assert ast.unparse(given["allow_pickle"]) == "False", f"line {call.lineno}"


LOAD = """
import sys

asked = []

def watch(event, arguments):
    if event == "pickle.find_class":
        asked.append(arguments)

sys.addaudithook(watch)
from ica_unet_jax.evaluation import judging
from ica_unet_jax.inference import segmenters
judging.evaluate(sys.argv[1], sys.argv[2], cines=1)
segmenters.load(sys.argv[1], checkpoint="best")
from ica_unet_jax.data import cache, reading
for case in reading.find_cases(sys.argv[3]):
    for _ in range(2):  # written, then read
        cache.preprocessed(case, crop=(2, 64, 64), spacing=1.5, cache_dir=sys.argv[4])
print(asked)
import pickle
pickle.loads(pickle.dumps(sys.intern))
print(asked)
"""


def test_runs_and_caches_are_loaded_without_a_pickle(tiny_run, cohort, tmp_path):
    places = [tiny_run, tmp_path / "evaluation", cohort, tmp_path / "cache"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(PACKAGE.parent)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    command = [sys.executable, "-c", LOAD, *map(str, places)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["[]", "[('sys', 'intern')]"]


def test_files_of_a_run_are_arrays_and_json(tiny_run):
    """No file begins as a pickle of protocol 2 or later does."""
    files = [path for path in tiny_run.rglob("*") if path.is_file()]
    assert files and not [path for path in files if path.read_bytes()[:1] == b"\x80" and path.read_bytes().endswith(b".")]


class Bomb:
    """Executes when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_pickle_in_the_cache_is_not_executed(cohort, tmp_path):
    case = reading.find_cases(cohort)[0]
    options = dict(crop=(2, 64, 64), spacing=1.5, cache_dir=tmp_path / "cache")
    cache.preprocessed(case, **options)
    for path in (tmp_path / "cache").rglob("*.npy"):
        np.save(path, np.array([Bomb(tmp_path / "boom")], object), allow_pickle=True)
    assert len(cache.preprocessed(case, **options)) == 2 and not (tmp_path / "boom").exists()
    pickle.loads(pickle.dumps(Bomb(tmp_path / "boom")))
    assert (tmp_path / "boom").exists()  # it would have


@pytest.fixture
def data(cohort, tmp_path):
    """A data folder with one patient, and a secret beside it."""
    shutil.copytree(cohort / "patient001", tmp_path / "data" / "patient001")
    shutil.copytree(cohort / "patient002", tmp_path / "secret")
    return tmp_path / "data"


def opened(monkeypatch):
    """The paths of the files that are opened from now on."""
    seen, open_ = [], open
    for module in (builtins, io):  # pathlib has the second
        monkeypatch.setattr(module, "open", lambda path, *a, **k: seen.append(Path(path).resolve()) or open_(path, *a, **k))
    return seen


@pytest.mark.parametrize("what", ["4d", "frame01", "frame02_gt"])
@pytest.mark.parametrize("target", ["absolute", "relative", "through a folder"])
def test_a_link_to_an_image_outside_is_told_and_never_opened(data, monkeypatch, what, target):
    path = data / "patient001" / f"patient001_{what}.nii.gz"
    path.unlink()
    secret = data.parent / "secret" / f"patient002_{what}.nii.gz"
    if target == "through a folder":
        (data / "inner").symlink_to(data.parent / "secret")
        path.symlink_to(data / "inner" / secret.name)
    else:
        path.symlink_to(secret if target == "absolute" else os.path.relpath(secret, path.parent))
    seen = opened(monkeypatch)
    found = {case.name: case for case in reading.find_cases(data)}
    problems = [problem for case in found.values() for problem in reading.check(case)]
    assert any(f"{path} is a link that leads outside {data}" in problem for problem in problems)
    with pytest.raises(BadData):
        reading.read(found["patient001"])
    assert seen and all(place.is_relative_to(data.resolve()) for place in seen)


def test_a_link_to_a_patient_or_an_info_outside_is_told_and_never_opened(data, monkeypatch):
    (data / "patient002").symlink_to(data.parent / "secret")
    (data / "patient001" / "Info.cfg").unlink()
    (data / "patient001" / "Info.cfg").symlink_to(data.parent / "secret" / "Info.cfg")
    seen = opened(monkeypatch)
    for case in reading.find_cases(data):
        problems = reading.check(case)
        assert problems and all("is a link that leads outside" in problem for problem in problems[:1])
    assert seen and all(place.is_relative_to(data.resolve()) for place in seen)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "patient001/../../secret", "..", ""])
def test_a_split_file_names_patients_and_no_paths(data, tmp_path, name):
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"train": ["patient001"], "val": [name]}))
    with pytest.raises(UserError, match="is not in the data"):
        splits.read_split(path, reading.find_cases(data))


@pytest.mark.parametrize("value", ["../../secret", "/etc/passwd", "1/../2"])
def test_info_names_no_files(data, value):
    """Whatever Info.cfg says, names of files come from the listing; no name of a case is more than a name."""
    (data / "patient001" / "Info.cfg").write_text(f"ED: {value}\nGroup: {value}\nNbFrame: {value}\n")
    [case] = reading.find_cases(data)
    assert all(path.parent == data / "patient001" for path in case.files)
    assert case.name == Path(case.name).name == "patient001" and len(reading.check(case)) == 2


def test_a_run_of_a_stranger_writes_nothing_when_it_is_loaded(tiny_run, tmp_path):
    folder = shutil.copytree(tiny_run, tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    places = {name: str(tmp_path / "elsewhere" / name) for name in ("workdir", "cache_dir", "phantom_dir")}
    places |= dict(data_dir="", phantom_patients=4)
    (folder / "config.json").write_text(json.dumps(config | places))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    segmenters.load(folder)
    with pytest.raises(UserError, match="the phantom cohort of this run, is not there: name a cohort by --data_dir"):
        judging.evaluate(folder, data_dir="")
    assert not (tmp_path / "elsewhere").exists()
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
