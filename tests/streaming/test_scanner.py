"""The scanner keeps to its own clock, waits for nobody, and its queue loses the oldest frame first."""

import threading
import time

import nibabel as nib
import numpy as np
import pytest
from tiny import SMALL

from ica_unet_jax.config import Config
from ica_unet_jax.errors import UserError
from ica_unet_jax.streaming.scanner import FrameQueue, Handover, Scanner, at_rate, open_source, with_faults

FRAME = np.ones((1, 2, 3), np.float32)


def test_a_frame_too_many_pushes_out_the_oldest():
    queue = FrameQueue(2)
    for number in range(1, 6):
        queue.put(Handover(number, 0.0, FRAME))
    queue.close()
    assert [handover.number for handover in queue] == [4, 5]
    assert queue.dropped == 3


def test_a_patient_queue_loses_nothing_and_lets_nobody_wait_after_its_end():
    queue, read = FrameQueue(2, patient=True), []

    def write():
        for number in range(1, 50):
            queue.put(Handover(number, 0.0, FRAME))
        queue.close()

    writer = threading.Thread(target=write)
    writer.start()
    for handover in queue:
        read.append(handover.number)
        assert len(queue._waiting) <= 2
    assert read == list(range(1, 50)) and queue.dropped == 0
    writer.join()
    full = FrameQueue(1, patient=True)
    writers = [threading.Thread(target=full.put, args=(Handover(n, 0.0, FRAME),)) for n in (1, 2)]
    for writer in writers:
        writer.start()
    full.close()
    for writer in writers:
        writer.join(5)
        assert not writer.is_alive()


def test_a_reader_waits_for_a_frame_and_for_the_end():
    queue, read = FrameQueue(2), []
    reader = threading.Thread(target=lambda: read.extend(handover.number for handover in queue))
    reader.start()
    queue.put(Handover(1, 0.0, FRAME))
    while not read:
        time.sleep(0.001)
    assert reader.is_alive()
    queue.close()
    reader.join(5)
    assert not reader.is_alive() and read == [1]


def test_a_beat_is_repeated_at_the_rate():
    beat = np.arange(3).reshape(3, 1, 1, 1)
    assert [(round(due, 3), frame.item()) for due, frame in at_rate(beat, 20, 0.25)] == [
        (0, 0), (0.05, 1), (0.1, 2), (0.15, 0), (0.2, 1)
    ]  # fmt: skip
    assert len(list(at_rate(beat, 22, 60))) == 1320 and len(list(at_rate(beat, 1, 0.1))) == 1


def test_frames_come_when_they_are_due_though_nobody_reads_them():
    queue, put = FrameQueue(1), []
    queue.put = lambda handover: put.append((handover, time.perf_counter()))
    scanner = Scanner([(0.0, FRAME), (0.03, FRAME), (0.03, FRAME), (0.0, FRAME)], queue)  # the last is overdue
    scanner.start()
    scanner.join(5)
    scanner.finish()
    handovers, times = zip(*put, strict=True)
    assert [handover.number for handover in handovers] == [1, 2, 3, 4] and scanner.frames == 4
    start = handovers[0].time_stamp
    assert [handover.time_stamp - start for handover in handovers] == pytest.approx([0, 0.03, 0.03, 0])
    assert all(at >= handover.time_stamp for handover, at in put)
    assert times[1] - start >= 0.03


def test_faults_come_in_turn():
    shots = list(with_faults(at_rate(np.ones((3, 2, 4, 5), np.float32), 10, 60), 10))
    strange = [i for i, (_, frame) in enumerate(shots) if frame.shape != (2, 4, 5) or np.isnan(frame).any()]
    assert strange == [25, 75, 175, 225, 325, 375, 475, 525] and np.isnan(shots[25][1]).sum() == 1 and shots[75][1].shape == (2, 4, 4)
    due = np.array([due for due, _ in shots])
    late = due - np.arange(600) / 10
    assert np.flatnonzero(late > 1e-9).tolist() == [125 + i + j for i in (0, 150, 300, 450) for j in range(5)]
    assert np.ptp(due[125:131]) == pytest.approx(0, abs=1e-9) and np.all(np.diff(due) >= 0)


def test_it_can_be_stopped_while_it_waits():
    queue = FrameQueue(1)
    scanner = Scanner([(0.0, FRAME), (1e6, FRAME)], queue)
    scanner.start()
    assert next(iter(queue)).number == 1
    scanner.finish()
    assert not scanner.is_alive() and list(queue) == []


def test_what_goes_wrong_in_its_thread_is_raised_where_it_is_finished():
    def shots():
        yield 0.0, FRAME
        raise RuntimeError("no more film")

    queue = FrameQueue(2)
    scanner = Scanner(shots(), queue)
    scanner.start()
    assert [handover.number for handover in queue] == [1]
    with pytest.raises(RuntimeError, match="no more film"):
        scanner.finish()


def test_the_phantom_is_one_beat_on_the_models_grid():
    frames, spacing = open_source("phantom", Config.make(**SMALL, spacing=2.0), rate=7.6)
    assert frames.shape == (8, 2, 64, 64) and spacing == (10.0, 2.0, 2.0)


def test_a_cine_is_played_with_its_bad_frames_but_needs_voxels_and_time(tmp_path):
    config, cine = Config.make(**SMALL), np.random.default_rng(0).random((4, 3, 2, 5)).astype(np.float32)
    cine[0, 0, 0, 2] = np.nan
    image = nib.Nifti1Image(cine, np.eye(4))
    image.header.set_zooms((1.4, 1.5, 8.0, 0.03))
    nib.save(image, tmp_path / "cine.nii.gz")
    frames, spacing = open_source(tmp_path / "cine.nii.gz", config, 22)
    np.testing.assert_array_equal(frames, cine.T)
    assert spacing == pytest.approx((8, 1.5, 1.4))

    nib.save(image.slicer[..., 0], tmp_path / "frame.nii")
    with pytest.raises(UserError, match="frame.nii is a single frame: name a 4D cine, or phantom"):
        open_source(tmp_path / "frame.nii", config, 22)
    image.header["pixdim"][1] = 0
    nib.save(image, tmp_path / "flat.nii")
    with pytest.raises(UserError, match="flat.nii has voxels of 0 x 1.5 x 8 mm"):
        open_source(tmp_path / "flat.nii", config, 22)
    with pytest.raises(UserError, match="does not exist"):
        open_source(tmp_path / "none.nii", config, 22)


def test_a_cine_is_played_turned_to_the_training_s_letters(tmp_path):
    cine = np.random.default_rng(0).random((4, 3, 2, 5)).astype(np.float32)
    image = nib.Nifti1Image(cine, np.diag([1.4, 1.5, 8.0, 1.0]))  # RAS
    nib.save(image, tmp_path / "cine.nii.gz")
    frames, spacing = open_source(tmp_path / "cine.nii.gz", Config.make(**SMALL), 22, codes="PLS")
    np.testing.assert_array_equal(frames, cine.transpose(1, 0, 2, 3)[::-1, ::-1].T)
    assert spacing == pytest.approx((8, 1.4, 1.5))
