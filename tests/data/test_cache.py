import dataclasses
import os
import shutil
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from ica_unet_jax.data import cache, entries
from ica_unet_jax.data.geometry import normalize, place, resample_labels
from ica_unet_jax.data.heart import on_heart
from ica_unet_jax.data.reading import find_cases, read
from ica_unet_jax.errors import UserError
from ica_unet_jax.labels import UNLABELLED

OPTIONS = dict(crop=(8, 32, 32), spacing=1.5)


@pytest.fixture
def case(tmp_path):
    """Six frames of 3 slices, 36 mm x 30 mm, with labels on frames 1 and 4."""
    folder = tmp_path / "data"
    folder.mkdir()
    rng = np.random.default_rng(0)
    affine = np.diag([1.2, 1.2, 10, 1])
    nib.save(nib.Nifti1Image(rng.integers(0, 500, (30, 25, 3, 6), dtype=np.int16), affine), folder / "a_4d.nii.gz")
    for number in (1, 4):
        labels = np.zeros((30, 25, 3), np.uint8)
        labels[8:20, 6:18] = number % 4 + 1 if number < 4 else 3
        nib.save(nib.Nifti1Image(labels, affine), folder / f"a_frame{number:02d}_gt.nii.gz")
    [case] = find_cases(folder)
    return case


def test_values(case, tmp_path):
    first, second = cache.preprocessed(case, **OPTIONS, cache_dir=tmp_path / "cache")
    cine = read(case)
    placement = place((3, 25, 30), cine.spacing, (3, 40, 40), 1.5)
    assert (first.case_name, first.time, second.time) == ("a", 0, 3)
    assert first.frames.shape == (3, 3, 40, 40) and first.frames.dtype == np.float16
    for frame, times in ((first, (0, 0, 1)), (second, (2, 3, 4))):
        expected = np.concatenate([placement.forward(normalize(cine.frames[t])) for t in times])
        np.testing.assert_allclose(frame.frames, expected, atol=2e-3)
        assert frame.labels.shape == frame.valid.shape == (3, 40, 40) and frame.labels.dtype == np.uint8
        np.testing.assert_array_equal(frame.valid, placement.valid[0])
        assert not frame.frames[:, ~frame.valid].any() and not frame.labels[~frame.valid].any()
    assert set(np.unique(first.labels)) == {0, 2} and set(np.unique(second.labels)) == {0, 3}
    # 12 x 12 voxels of 1.2 mm are 92 voxels of 1.5 mm.
    assert np.sum(second.labels[0] > 0) == pytest.approx(12 * 12 * (1.2 / 1.5) ** 2, rel=0.12)


def test_a_window_on_the_heart_is_that_of_an_evaluation_which_found_it(tmp_path):
    """A heart at the image's corner: the model's window goes as far as the image, the canvas round it beyond."""
    folder = tmp_path / "data"
    folder.mkdir()
    affine = np.diag([1.5, 1.5, 10, 1])
    labels = np.zeros((60, 60, 2), np.uint8)
    labels[46:56, 30:40] = 3  # columns, rows
    nib.save(nib.Nifti1Image(np.random.default_rng(0).integers(0, 500, (60, 60, 2, 3), dtype=np.int16), affine), folder / "a_4d.nii.gz")
    nib.save(nib.Nifti1Image(labels, affine), folder / "a_frame02_gt.nii.gz")
    [case] = find_cases(folder)
    [frame] = cache.preprocessed(case, **OPTIONS, train_window="heart", cache_dir=tmp_path / "cache")
    [plain] = cache.preprocessed(case, **OPTIONS, cache_dir=tmp_path / "cache")
    cine = read(case)
    window = on_heart(place((2, 60, 60), cine.spacing, (2, 32, 32), 1.5), cine.labels.values())
    assert window.offset == (4, 14)  # the heart's middle is 4.5 rows and 21 columns off; the window's reach is 14
    middle = (slice(None), slice(4, 36), slice(4, 36))  # of the canvas, which is 40 x 40
    np.testing.assert_array_equal(frame.labels[middle], resample_labels(cine.labels[1], window, 4)[0])
    assert (frame.labels[middle] > 0).sum() == (labels > 0).sum() > (plain.labels[middle] > 0).sum()


def test_a_wider_window_holds_the_narrow_one(case, tmp_path):
    for narrow, wide in zip(*(cache.preprocessed(case, **OPTIONS, reach=r, cache_dir=tmp_path) for r in (1, 3)), strict=True):
        assert wide.frames.shape == (7, 3, 40, 40)
        np.testing.assert_array_equal(wide.frames[2:5], narrow.frames)
        np.testing.assert_array_equal(wide.labels, narrow.labels)


@pytest.mark.parametrize("cyclic", [False, True])
@pytest.mark.parametrize("reach", [1, 2])
def test_all_frames_of_a_case_share_what_is_stored(case, tmp_path, reach, cyclic):
    options = OPTIONS | dict(reach=reach, cyclic=cyclic, cache_dir=tmp_path / "cache")
    labelled, every = cache.preprocessed(case, **options), cache.preprocessed(case, **options, unlabelled=True)
    assert [(frame.time, frame.labelled) for frame in every] == [(t, t in (0, 3)) for t in range(6)]
    for one, same in zip(labelled, (every[0], every[3]), strict=True):
        for part in ("frames", "labels", "valid"):
            np.testing.assert_array_equal(getattr(one, part), getattr(same, part))
    cine = read(case)
    for frame in every:
        for image, time in zip(frame.frames, cine.window(frame.time, reach, cyclic), strict=True):
            np.testing.assert_array_equal(image, every[time].frames[reach])
        assert frame.labelled or np.all(frame.labels == UNLABELLED)
    assert {stored(path) for path in (tmp_path / "cache").iterdir()} == {2 * (2 * reach + 1), 6 + 2 * reach}


def stored(entry):
    """The number of images that an entry has."""
    with (entry / entries.FILE).open("rb") as file:
        _, _, frames = (np.load(file) for _ in range(3))
    return len(frames)


def test_cyclic_neighbours(case, tmp_path):
    plain, _ = cache.preprocessed(case, **OPTIONS, cache_dir=tmp_path)
    cyclic, _ = cache.preprocessed(case, **OPTIONS, cyclic=True, cache_dir=tmp_path)
    np.testing.assert_array_equal(plain.frames[0], plain.frames[1])
    assert np.any(cyclic.frames[0] != cyclic.frames[1])


def test_second_start_reads_the_cache_only(case, tmp_path, monkeypatch):
    first = cache.preprocessed(case, **OPTIONS, cache_dir=tmp_path / "cache")
    monkeypatch.setattr(cache.reading, "read", None)
    again = cache.preprocessed(case, **OPTIONS, cache_dir=tmp_path / "cache")
    for one, other in zip(first, again, strict=True):
        assert isinstance(other.frames, np.memmap) and (one.case_name, one.time) == (other.case_name, other.time)
        for part in ("frames", "labels", "valid"):
            np.testing.assert_array_equal(getattr(one, part), getattr(other, part))
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.parametrize("change", [dict(spacing=2.0), dict(crop=(8, 32, 64)), dict(label_map="2:1"), dict(cyclic=True),
                                    dict(margin=1.5), dict(reach=2)])
def test_every_option_is_in_the_key(case, tmp_path, change):
    cache.preprocessed(case, **OPTIONS, cache_dir=tmp_path / "cache")
    cache.preprocessed(case, **(OPTIONS | change), cache_dir=tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_another_content_of_the_same_name_size_and_time_is_read_again(case, tmp_path):
    """Two cohorts whose files differ in nothing but their voxels; a copy of the first is the first."""
    other = shutil.copytree(case.cine.parent, tmp_path / "other")
    path = other / case.labels[0].name
    before, stated = path.read_bytes(), os.stat(path)
    image = nib.load(path)
    labels = np.asarray(image.dataobj).copy()
    [same] = find_cases(other)
    cache.preprocessed(case, **OPTIONS, cache_dir=tmp_path / "cache")
    cache.preprocessed(same, **OPTIONS, cache_dir=tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 1
    nib.save(nib.Nifti1Image(np.where(labels == 2, 1, labels).astype(np.uint8), image.affine), path)
    content = path.read_bytes()
    path.write_bytes(content.ljust(len(before), b"\0"))
    os.utime(path, ns=(stated.st_atime_ns, stated.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (stated.st_size, stated.st_mtime_ns)
    first, _ = cache.preprocessed(same, **OPTIONS, cache_dir=tmp_path / "cache")
    assert set(np.unique(first.labels)) == {0, 1}


@pytest.mark.parametrize("kept", [0, 100, 1000, -1])
def test_damaged_cache_is_made_again(case, tmp_path, kept):
    before = [frame.labels.copy() for frame in cache.preprocessed(case, **OPTIONS, cache_dir=tmp_path / "cache")]
    [folder] = (tmp_path / "cache").iterdir()
    path = folder / entries.FILE
    path.write_bytes(path.read_bytes()[:kept])
    after = [frame.labels for frame in cache.preprocessed(case, **OPTIONS, cache_dir=tmp_path / "cache")]
    np.testing.assert_array_equal(before, after)


def test_pickles_are_not_opened(case, tmp_path):
    cache.preprocessed(case, **OPTIONS, cache_dir=tmp_path / "cache")
    [folder] = (tmp_path / "cache").iterdir()
    np.save(folder / entries.FILE, np.array([{"a": 1}], object), allow_pickle=True)
    assert cache.preprocessed(case, **OPTIONS, cache_dir=tmp_path / "cache")[0].labels.dtype == np.uint8


def test_another_process_may_be_faster(case, tmp_path, monkeypatch):
    """Both write the same folder; the one that comes second takes what is there."""
    compute = cache._compute

    def meanwhile(*arguments, **options):
        monkeypatch.setattr(cache, "_compute", compute)
        cache.preprocessed(case, **OPTIONS, cache_dir=tmp_path / "cache")
        return compute(*arguments, **options)

    monkeypatch.setattr(cache, "_compute", meanwhile)
    assert len(cache.preprocessed(case, **OPTIONS, cache_dir=tmp_path / "cache")) == 2
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_others_may_read_an_entry_as_the_umask_has_it(case, tmp_path):
    for mask in (0o002, 0o077):
        before = os.umask(mask)
        try:
            cache.preprocessed(case, **OPTIONS, cache_dir=tmp_path / f"{mask}")
        finally:
            os.umask(before)
        [entry] = (tmp_path / f"{mask}").iterdir()
        assert entry.stat().st_mode & 0o777 == 0o777 & ~mask
        assert all(file.stat().st_mode & 0o777 == 0o666 & ~mask for file in entry.iterdir())


def test_an_entry_that_another_user_keeps_to_himself_is_made_in_memory(case, tmp_path, monkeypatch):
    stored = cache.preprocessed(case, **OPTIONS, cache_dir=tmp_path / "cache")

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cache.entries, "held", refused)
    for mine, theirs in zip(cache.preprocessed(case, **OPTIONS, cache_dir=tmp_path / "cache"), stored, strict=True):
        np.testing.assert_array_equal(mine.frames, theirs.frames)
        np.testing.assert_array_equal(mine.labels, theirs.labels)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_long_name_has_an_entry(case, tmp_path):
    assert cache.preprocessed(dataclasses.replace(case, name="n" * 235), **OPTIONS, cache_dir=tmp_path / "cache")


def test_refusals(case, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--cache_dir=.*file cannot be written"):
        cache.preprocessed(case, **OPTIONS, cache_dir=tmp_path / "file")
    for path in case.labels.values():
        path.unlink()
    with pytest.raises(UserError, match="a_frame01_gt.nii.gz cannot be read"):
        cache.preprocessed(case, **OPTIONS, cache_dir=tmp_path / "cache")
    [bare] = find_cases(case.cine.parent)
    assert cache.preprocessed(bare, **OPTIONS, cache_dir=tmp_path / "cache") == []


def use(case, root, name):
    return cache.preprocessed(dataclasses.replace(case, name=name), **OPTIONS, cache_dir=root)


def names(root):
    return {path.name.partition("-")[0] for path in root.iterdir()}


def test_the_entries_used_longest_ago_go_first(case, tmp_path):
    root = tmp_path / "cache"
    for age, name in enumerate(("newest", "middle", "oldest")):
        use(case, root, name)
        [entry] = root.glob(f"{name}-*")
        os.utime(entry, (10**9 - age,) * 2)
    (root / "compiled").mkdir()  # is none
    gb = (entry / entries.FILE).stat().st_size / 1e9
    assert entries.make_room(root, 4 * gb) == pytest.approx(3 * gb) and len(names(root)) == 4
    use(case, root, "oldest")  # and so it is no longer
    assert entries.make_room(root, 2 * gb) == pytest.approx(2 * gb) and names(root) == {"newest", "oldest", "compiled"}
    assert entries.make_room(root, 0.5 * gb) == 0 and names(root) == {"compiled"}


@pytest.mark.skipif(entries.fcntl is None, reason="needs locks of POSIX")
def test_what_a_training_has_mapped_stays_until_it_ends(case, tmp_path):
    """Here a process that is killed; and nothing of an entry is gone of which a part is still in use."""
    program = f"""
import sys
from ica_unet_jax.data import cache, reading
[case] = reading.find_cases({str(case.cine.parent)!r})
[_, frame] = cache.preprocessed(case, crop=(8, 32, 32), spacing=1.5, cache_dir={str(tmp_path)!r})
labels = frame.labels  # of one frame, and that alone
del frame, _
print("mapped", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as training:
        assert training.stdout.readline() == b"mapped\n"
        assert entries.make_room(tmp_path, 0) > 0 and "a" in names(tmp_path)
        training.kill()
    assert entries.make_room(tmp_path, 0) == 0 and "a" not in names(tmp_path)


@pytest.mark.skipif(entries.fcntl is None, reason="needs locks of POSIX")
def test_where_locks_are_refused_nothing_goes(case, tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(entries.fcntl, "flock", refused)
    assert len(use(case, tmp_path / "cache", "a")) == 2 and entries.make_room(tmp_path / "cache", 0) > 0


def test_an_entry_that_goes_between_two_of_its_readers_is_made_again(case, tmp_path, monkeypatch):
    """Another process makes room after this one has found the entry, before it has opened it."""
    before = [frame.frames.copy() for frame in use(case, tmp_path, "a")]
    held = entries.held

    def meanwhile(folder):
        monkeypatch.setattr(entries, "held", held)
        assert entries.make_room(tmp_path, 0) == 0
        return held(folder)

    monkeypatch.setattr(entries, "held", meanwhile)
    np.testing.assert_array_equal(before, [frame.frames for frame in use(case, tmp_path, "a")])
