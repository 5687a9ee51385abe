"""A live session counts what happened, and goes on through every fault of a scanner."""

import dataclasses
import io
import json
import sys
import threading

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from tiny import SMALL, variables

from ica_unet_jax.config import Config
from ica_unet_jax.data.geometry import place
from ica_unet_jax.errors import UserError
from ica_unet_jax.inference.segmenters import Segmenter
from ica_unet_jax.runtime import memory
from ica_unet_jax.streaming import session, tally, view
from ica_unet_jax.streaming.recorder import Recorder
from ica_unet_jax.streaming.segmenter import Result, StreamingSegmenter
from ica_unet_jax.streaming.session import play
from ica_unet_jax.streaming.tally import Tally, describe, percentiles
from ica_unet_jax.streaming.view import LiveView

SPACING = (10.0, 1.5, 1.5)
SHAPE = (2, 64, 64)
FRAMES = np.random.default_rng(0).random((8, *SHAPE)).astype(np.float32)


def result(number=1, compute=5.0, latency=20.0, lv=100.0, rv=120.0):
    labels = np.zeros(SHAPE, np.uint8)
    labels[:, 20:40, 20:40] = 3
    volumes = {"RV": rv, "MYO": 90.0, "LV": lv}
    return Result(number, labels, volumes, 0.0, latency / 1000, compute, place(SHAPE, SPACING, SHAPE, 1.5))


class Fake(StreamingSegmenter):
    """Answers every frame at once; `before` is called with its number first."""

    def __init__(self, before=lambda number: None):
        self.before, self.taken, self.stamps = before, [], []

    def push(self, frame, time_stamp=None, number=None):
        self.before(number)
        self.taken.append(number)
        self.stamps.append(time_stamp)
        return [result(number)]

    def flush(self):
        return []


def test_percentiles_of_made_up_numbers():
    assert percentiles(range(1, 101)) == {"p50": 50.5, "p95": 95.05, "p99": 99.01, "max": 100.0}
    assert percentiles([7.0]) == dict.fromkeys(("p50", "p95", "p99", "max"), 7.0)
    assert percentiles([]) == dict.fromkeys(("p50", "p95", "p99", "max"))


def test_a_tally_of_made_up_answers():
    tally = Tally(50.0)
    assert tally.summary()["ejection_fraction"] == {"LV": None, "RV": None}
    moved = dataclasses.replace(result(), placement=place(SHAPE, SPACING, (2, 32, 32), 1.5).at(0, 3))
    for i, (lv, latency) in enumerate([(100, 49), (40, 50), (120, 50.5), (60, 80)]):
        tally.add(result(compute=10.0 * (i + 1), latency=latency, lv=lv, rv=200 - lv))
    tally.refuse(UserError("no"))
    assert tally.window_moves == 0
    summary = json.loads(json.dumps(tally.summary()))
    assert (summary["answered"], summary["deadline_misses"], summary["refused"]) == (4, 2, 1)
    assert summary["compute_ms"] == {"p50": 25.0, "p95": 38.5, "p99": 39.7, "max": 40.0}
    assert summary["arrival_to_mask_ms"]["p50"] == 50.25 and summary["arrival_to_mask_ms"]["max"] == 80
    assert summary["ejection_fraction"] == {"LV": round(80 / 120, 4), "RV": round(80 / 160, 4)}
    tally.add(moved)
    tally.add(moved)
    assert tally.summary()["window_moves"] == 1


def test_a_slow_answer_costs_the_oldest_waiting_frames():
    taken, played = threading.Event(), threading.Event()

    def shots():
        yield 0.0, FRAMES[0]
        assert taken.wait(10)
        for _ in range(9):  # a burst, while the first frame is still being answered
            yield 0.0, FRAMES[0]
        played.set()

    def before(number):
        taken.set()
        assert played.wait(10)

    fake = Fake(before)
    tally = play(fake, shots(), queue_size=2)
    assert fake.taken == [1, 9, 10]
    assert (tally.frames, tally.answered, tally.dropped, tally.refused) == (10, 3, 7, 0)


def test_a_stalled_scanner_is_waited_for():
    fake, seen = Fake(), []
    shots = [(0.0, FRAMES[0]), (0.1, FRAMES[1]), (0.1, FRAMES[2])]
    tally = play(fake, shots, watch=lambda tally, answers: seen.append([(shown[0, 0, 0], result.number) for shown, result in answers]))
    assert fake.taken == [1, 2, 3] and tally.dropped == 0
    assert seen == [[(FRAMES[i, 0, 0, 0], i + 1)] for i in range(3)] + [[]]
    assert fake.stamps[1] - fake.stamps[0] == pytest.approx(0.1)


def test_errors_that_are_no_bad_frames_end_the_session_and_its_thread():
    def broken(number):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        play(Fake(broken), ((0.01 * i, FRAMES[0]) for i in range(10**6)))

    def torn():
        yield 0.0, FRAMES[0]
        raise OSError("no more film")

    with pytest.raises(OSError, match="no more film"):
        play(Fake(), torn())
    assert "scanner" not in {thread.name for thread in threading.enumerate()}


@pytest.fixture(scope="module", params=["both", "past"])
def segmenter(request):
    config = Config.make(**SMALL, neighbours=request.param)
    return StreamingSegmenter(Segmenter(config, variables(config.model)), SHAPE, SPACING)


def test_the_fault_list(segmenter):
    """A NaN frame, frames of another size, a stall and a burst: the answers are those to the good frames alone."""
    hole, wide = FRAMES[2].copy(), np.ones((2, 64, 65), np.float32)
    hole[0, 3, 3] = np.nan
    shots = [(0.0, FRAMES[0]), (0.0, FRAMES[1]), (0.01, hole), (0.02, FRAMES[2]), (0.03, wide), (0.03, wide)]
    shots += [(0.15, frame) for frame in FRAMES[3:]]  # the stall, and the burst after it
    good = {number: frame for number, (_, frame) in enumerate(shots, start=1)}
    answers, refusals = [], []

    def watch(tally, answered):
        answers.extend(result for _, result in answered)
        assert all((frame == good[result.number]).all() for frame, result in answered)
        refusals.append(tally.refusal)

    tally = play(segmenter, shots, queue_size=16, watch=watch)
    assert (tally.frames, tally.answered, tally.dropped, tally.refused, tally.compilations) == (11, 8, 0, 3, 0)
    assert [answer.number for answer in answers] == [1, 2, 4, 7, 8, 9, 10, 11]
    assert any(text.startswith("Frame 3 holds NaN") for text in refusals)
    assert refusals[-1].startswith("Frame 6 has the shape (2, 64, 65), the stream (2, 64, 64)")
    labels = segmenter.segmenter.segment_cine(FRAMES, SPACING)
    np.testing.assert_array_equal([answer.labels for answer in answers], labels)
    # The burst is handed over at once, so each answer is later than the one before; what both clocks say agrees.
    latencies, computed = (np.array(getattr(tally, name)) for name in ("arrival_to_mask_ms", "compute_ms"))
    assert np.all(np.diff(latencies[3:]) > 0) and np.all(latencies >= computed)
    assert tally.deadline_misses == np.sum(latencies > tally.deadline_ms)


def test_a_session_from_a_run_folder(tiny_run, tmp_path, capfd):
    files = dict(json_file=tmp_path / "out" / "stream.json", gif=tmp_path / "beat.gif")
    shown = []
    summary = session.stream(tiny_run, "phantom", rate=20, seconds=0.6, queue_size=12, show=lambda *given: shown.append(given), **files)
    assert json.loads(files["json_file"].read_text()) == summary
    assert summary["frames"] == summary["answered"] == 12
    assert summary["dropped"] == summary["refused"] == summary["compilations"] == 0
    assert summary["shape"] == [2, 64, 64] and summary["checkpoint_step"] == 2
    # A frame is answered with the next one, 50 ms later.
    assert all(summary["arrival_to_mask_ms"][name] > summary["compute_ms"][name] for name in ("p50", "p95", "p99", "max"))
    assert summary["arrival_to_mask_ms"]["p50"] > 50
    assert "versions" in summary["provenance"]
    assert [result.number for _, answers, _ in shown for _, result in answers] == list(range(1, 13))
    assert {(frame.shape, spacing) for _, answers, spacing in shown for frame, _ in answers} == {((2, 64, 64), (10.0, 1.5, 1.5))}
    with Image.open(files["gif"]) as picture:
        assert picture.n_frames == 12 and picture.info["duration"] == 50
    text = describe(summary)
    assert "12 frames, 12 answered, 0 dropped" in text and "arrival to mask (ms)" in text


def test_a_session_with_faults_says_what_it_refused_and_what_it_holds(tiny_run, monkeypatch):
    monkeypatch.setattr(tally, "MEMORY_SECONDS", 1.0)
    monkeypatch.setattr(tally.memory, "resident_mb", lambda: 123.0)
    summary = session.stream(tiny_run, "phantom", rate=10, seconds=3, queue_size=30, faults=True)  # the first fault is a NaN
    assert (summary["faults"], summary["frames"], summary["answered"], summary["refused"], summary["dropped"]) == (True, 30, 29, 1, 0)
    looks = np.array(summary["resident_mb"])
    assert len(looks) >= 3 and np.all(looks[:, 1] == 123) and np.all(np.diff(looks[:, 0]) >= 0.5)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the system does not say")
def test_the_memory_of_this_process():
    before = memory.resident_mb()
    kept = np.ones(50_000_000, np.uint8)
    assert 30 < memory.resident_mb() - before < 100 and kept.any()


def test_a_session_whose_window_follows(tiny_run):
    summary = session.stream(tiny_run, "phantom", rate=20, seconds=0.6, queue_size=12, window="follow")
    assert summary["shape"] == [2, 128, 128] and summary["window"] == "follow"  # twice the grid's height and width
    assert summary["answered"] == 12 and summary["compilations"] == 0


def test_what_cannot_be_is_said_before_anything_runs(tiny_run):
    with pytest.raises(UserError, match="--gif=a.mp4 is no GIF"):
        session.stream("no run", "phantom", gif="a.mp4")
    with pytest.raises(UserError, match="none.nii.gz does not exist"):
        session.stream(tiny_run, "none.nii.gz")
    with pytest.raises(UserError, match="--window=oracle needs a ground truth"):
        session.stream(tiny_run, "phantom", window="oracle")
    with pytest.raises(TypeError, match="mirror is no option here"):
        session.stream(tiny_run, "phantom", mirror=True)


@pytest.mark.parametrize("terminal", [True, False])
def test_the_view_shows_the_figures(terminal, monkeypatch):
    for name in ("SECONDS_BETWEEN_PICTURES", "SECONDS_BETWEEN_LINES"):
        monkeypatch.setattr(view, name, 0.0)
    file, tally = io.StringIO(), Tally(50.0, frames=7, dropped=2)
    with LiveView(Console(file=file, force_terminal=terminal, width=200, highlight=False)) as shown:
        shown.update(tally)  # nothing answered yet
        tally.add(result(lv=100.0))
        tally.add(result(lv=40.0, latency=66.6))
        tally.refuse(UserError("Frame 5 holds NaN"))
        shown.update(tally)
    text = file.getvalue()
    for part in ("Frame 5 holds NaN", "7 frames, 2 dropped, 1 refused, 1 late", "66.6 ms", "LV 40 mL", "LV 60 %", "frames/s"):
        assert part in text
    assert text.count("Frame 5") == 1


def test_the_view_is_drawn_now_and_then():
    file, tally = io.StringIO(), Tally(50.0)
    with LiveView(Console(file=file, width=200)) as shown:
        for _ in range(100):
            tally.add(result())
            shown.update(tally)
    assert file.getvalue() == ""  # seconds have not passed


def test_the_recorder_keeps_the_last_answers(tmp_path):
    recorder = Recorder(3)
    for number in (1, 2, 3, 5, 6):
        recorder.add([(FRAMES[number], result(number))])
    recorder.add([])
    assert [found.number for _, found in recorder.kept] == [3, 5, 6]
    for frame, found in recorder.kept:
        assert np.array_equal(frame, FRAMES[found.number])
    recorder.save(tmp_path / "a.gif", SPACING, 10)
    with Image.open(tmp_path / "a.gif") as picture:
        assert picture.n_frames == 3 and picture.info["duration"] == 100
    with pytest.raises(UserError, match="no frame was answered"):
        Recorder(3).save(tmp_path / "b.gif", SPACING, 10)
