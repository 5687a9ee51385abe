"""Whatever bytes a folder holds, the reader makes a usable case of them or tells what is wrong: no other exception."""

import gzip
import io
import shutil
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ica_unet_jax.data import geometry, nifti, reading
from ica_unet_jax.errors import BadData, UserError

FLOATS = st.floats(width=32) | st.sampled_from([0.0, 1.0, 1.5, -1.0, 1e-40, 3e38])
DTYPES = st.sampled_from(["u1", "i1", "u2", "i2", "i4", "u4", "i8", "u8", "f4", "f8", "c8", "c16"])


FIELDS = ("scl_slope", "scl_inter", "vox_offset", "datatype", "bitpix", "dim", "sizeof_hdr", "magic", "intent_code", "qform_code")


@st.composite
def images(draw, labels=False):
    """The bytes of a NIfTI file, and its suffix; sound but for at most two damages to its header, bits or length."""
    shape = draw(st.tuples(*[st.integers(1, 4)] * (3 if labels else 4)) | st.lists(st.integers(0, 4), max_size=6))
    dtype = np.dtype(draw(DTYPES if not labels else st.sampled_from(["u1", "i2", "f4"])))
    array = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 4 if labels else 100, tuple(shape)).astype(dtype)
    image = draw(st.sampled_from([nib.Nifti1Image, nib.Nifti2Image]))(array, np.eye(4), dtype=dtype)
    kinds = ("pixdim", "srow_x", "quatern_b", "field", "bit of the header", "bit", "cut", "bit of the .gz", "cut the .gz")
    damages = draw(st.lists(st.sampled_from(kinds), max_size=2))
    header, layout = image.header, image.header.template_dtype.fields
    for field in set(damages) & {"pixdim", "srow_x", "quatern_b"}:
        block = header[field]
        block[draw(st.integers(0, block.size - 1)) if block.ndim else ()] = draw(FLOATS)
    data = bytearray(raw(image))
    for damage in damages:
        if damage == "field":
            kind, position = layout[draw(st.sampled_from(FIELDS))][:2]
            width = kind.base.itemsize
            data[position : position + width] = draw(st.binary(min_size=width, max_size=width))
        elif damage in ("bit", "bit of the header"):
            flip(draw, data, len(data) if damage == "bit" else header.template_dtype.itemsize)
        elif damage == "cut":
            data = cut(draw, data)
    if draw(st.booleans()):
        return bytes(data), ".nii"
    data = bytearray(gzip.compress(bytes(data), mtime=0))
    if "bit of the .gz" in damages:
        flip(draw, data, len(data))
    return bytes(cut(draw, data) if "cut the .gz" in damages else data), ".nii.gz"


def raw(image):
    """The file of an image whose header may be nonsense, which nibabel would not write."""
    header = image.header
    return header.binaryblock + b"\0" * (int(header.sizeof_hdr) + 4 - len(header.binaryblock)) + np.asarray(image.dataobj).tobytes("F")


def flip(draw, data, limit):
    if data:
        data[draw(st.integers(0, min(limit, len(data)) - 1))] ^= 1 << draw(st.integers(0, 7))


def cut(draw, data):
    return data[: draw(st.integers(0, len(data)))]


def examine(files, info):
    """Writes the files of one patient and asks for what it is: nothing may be raised but UserError."""
    with tempfile.TemporaryDirectory() as folder:
        patient = Path(folder) / "data" / "p"
        patient.mkdir(parents=True)
        for name, (data, suffix) in files.items():
            (patient / f"{name}{suffix}").write_bytes(data)
        (patient / "Info.cfg").write_bytes(info)
        [case] = reading.find_cases(patient.parent)
        seen = reading.examine(case)
        for sentence in seen.problems:
            assert sentence.startswith(str(patient)) and sentence.endswith(".") and sentence.isprintable()
        if seen.problems:
            with pytest.raises(BadData):
                reading.read(case)
        else:
            assert_usable(reading.read(case))
        shutil.rmtree(patient)


def assert_usable(cine):
    """The way of a frame to the network and back."""
    placement = geometry.place(cine.frames.shape[1:], cine.spacing, (2, 8, 8), 1.5)
    for frame in cine.frames:
        grid = placement.forward(geometry.normalize(frame))
        assert np.isfinite(grid).all() and np.abs(grid).max() < 1e3
    assert placement.backward(np.zeros((*placement.valid.shape, 4), np.float32)).shape == (*cine.frames.shape[1:], 4)
    for labels in cine.labels.values():
        assert labels.shape == cine.frames.shape[1:] and labels.max() <= 3


INFO = st.binary(max_size=30) | st.builds(
    lambda key, value: f"{key}: {value}\nGroup: \x1b".encode(), st.sampled_from(["ED", "ES", "NbFrame"]), st.integers(-2, 9) | st.text(max_size=9)
)
FILES = st.fixed_dictionaries({"p_4d": images()}, optional={"p_frame01": images(), "p_frame01_gt": images(labels=True)})


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(FILES, INFO)
def test_a_case_or_a_sentence(files, info):
    examine(files, info)


@pytest.mark.slow
@settings(max_examples=5000, deadline=None, database=None)
@given(FILES, INFO)
def test_a_case_or_a_sentence_at_length(files, info):
    examine(files, info)


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(st.binary(max_size=400), st.sampled_from([".nii", ".nii.gz"]))
def test_noise_is_no_image(data, suffix):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"noise{suffix}"
        path.write_bytes(data)
        with pytest.raises(UserError, match="cannot be read as NIfTI"):
            nifti.read_volume(path)


def test_no_more_is_unpacked_than_a_header_promises(tmp_path):
    """A .gz of 10 kB that unpacks to 10 MB, and a header that promises more than any cine has."""
    sound = raw(nib.Nifti1Image(np.arange(64, dtype=np.uint8).reshape(4, 4, 4), np.eye(4)))
    endless, large = tmp_path / "endless.nii.gz", tmp_path / "large.nii"
    endless.write_bytes(gzip.compress(sound + bytes(10**7)))
    with pytest.raises(UserError, match="it holds far more than the 416 bytes that its header promises"):
        nifti.read_volume(endless)
    header = nib.Nifti1Header.from_fileobj(io.BytesIO(sound))
    header["dim"][1:4] = 32767
    large.write_bytes(header.binaryblock + sound[348:])
    with pytest.raises(UserError, match="its header promises 35181150962015 bytes, which no cine has"):
        nifti.read_volume(large)
    large.write_bytes(sound + bytes(1000))  # some write a little more
    assert nifti.read_volume(large)[0].shape == (1, 4, 4, 4)
