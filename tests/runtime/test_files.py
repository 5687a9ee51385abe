"""Files are whole or not there, wherever they are to go."""

import ast
import os
import stat

import pytest
from places import ROOT

from ica_unet_jax.errors import UserError
from ica_unet_jax.runtime import files


def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "a.json")
    for value in ({}, {"b": 1}):  # the first makes what it points to
        files.write_json(tmp_path / "link", value)
        assert (tmp_path / "link").is_symlink() and files.read_object(tmp_path / "real" / "a.json", "") == value
    assert [path.name for path in (tmp_path / "real").iterdir()] == ["a.json"]


def test_what_is_no_regular_file_is_written_into(tmp_path):
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    files.check_place(pipe)
    files.write_json(pipe, {"a": 1})
    assert os.read(reader, 100) == b'{\n  "a": 1\n}\n' and stat.S_ISFIFO(pipe.stat().st_mode)
    os.close(reader)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe.json"]


def test_a_stream_that_is_open_is_written_into(capfd):
    files.check_place("/dev/stdout")
    print("before", flush=True)
    files.write_text("/dev/stderr", "a\n")
    print("after", flush=True)
    assert capfd.readouterr() == ("before\nafter\n", "a\n")


@pytest.mark.parametrize("length", [200, 235, 255])
def test_a_name_as_long_as_names_may_be(tmp_path, length):
    path = tmp_path / ("n" * (length - 7) + ".nii.gz")
    files.check_place(path)
    with files.replacing(path) as temporary:
        assert temporary.name.endswith(".nii.gz")
        temporary.write_text("a")
    assert path.read_text() == "a"


def test_places_that_are_refused(tmp_path):
    (tmp_path / "file").touch()
    for path, folder, told in (
        (tmp_path, False, "is a folder: name a file"),
        (tmp_path / "file", True, "is no folder: name another place"),
        (tmp_path / "file" / "a" / "b", None, "is no folder"),
        (tmp_path / ("n" * 256), None, "File name too long"),
        (tmp_path / ("n" * 256) / "b", None, "File name too long"),
    ):
        with pytest.raises(UserError, match=told):
            files.check_place(path, folder=folder)
    for path, folder in ((tmp_path, None), (tmp_path, True), (tmp_path / "file", False), (tmp_path / "a" / "b", True), ("a", False)):
        files.check_place(path, folder=folder)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_names_of_files_in_no_encoding(tmp_path):
    files.write_text(tmp_path / "a.txt", os.fsdecode(b"h\xe9rz \xc3\xa9"))
    assert (tmp_path / "a.txt").read_bytes() == b"h\xe9rz \xc3\xa9"


def test_every_text_file_is_utf8():
    """Without a name of an encoding Python takes the terminal's, which is ASCII where LC_ALL is C."""
    found = []
    for path in [*(ROOT / "ica_unet_jax").rglob("*.py"), *(ROOT / "ablations").rglob("*.py")]:
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call):
                continue
            *of, name = ast.unparse(call.func).rsplit(".", 1)
            binary = any(isinstance(a, ast.Constant) and isinstance(a.value, str) and "b" in a.value for a in call.args)
            text = name == "read_text" or name == "write_text" and of not in ([], ["files"]) or name == "open" and of not in (["os"], ["gzip"])
            if text and not binary and "encoding" not in {keyword.arg for keyword in call.keywords}:
                found.append(f"{path.relative_to(ROOT)}:{call.lineno}")
    assert not found
