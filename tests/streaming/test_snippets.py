"""A stream of snippets: the labels of the whole cine, and a wait that is part of every latency."""

import numpy as np
import pytest
from clock import Clock
from PIL import Image
from snippets import CINE, SMALL, SPACING
from tiny import variables, write_run

from ica_unet_jax.config import Config
from ica_unet_jax.errors import UserError
from ica_unet_jax.inference.segmenters import segmenter_of
from ica_unet_jax.streaming import session
from ica_unet_jax.streaming.segmenter import StreamingSegmenter


@pytest.fixture(scope="module")
def segmenter():
    config = Config.make(**SMALL)
    return segmenter_of(config, variables(config.model))


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def stream(segmenter, clock):
    return StreamingSegmenter(segmenter, CINE.shape[1:], SPACING, clock=clock)


def test_a_stream_is_its_cine(stream, segmenter):
    answers = [stream.push(frame) for frame in CINE] + [stream.flush()]
    assert [[result.number for result in results] for results in answers] == [[], [], [1, 2, 3], [], [], [4, 5]]
    labels = [result.labels for results in answers for result in results]
    np.testing.assert_array_equal(labels, segmenter.segment_cine(CINE, SPACING))
    assert stream.flush() == []
    assert stream.push(CINE[0]) == []  # the next cine begins with frame 1
    assert [result.number for result in stream.flush()] == [1]


def test_arrival_to_mask_is_wait_and_compute(stream, clock, segmenter, monkeypatch):
    decode = segmenter.decode

    def slow(*arguments):
        clock.now += 0.125
        return decode(*arguments)

    monkeypatch.setattr(segmenter, "decode", slow)
    period, start = 1 / 30, clock.now
    for i, frame in enumerate(CINE[:3]):
        clock.now = start + i * period
        results = stream.push(frame, time_stamp=clock.now)
    for i, result in enumerate(results):
        assert result.compute_ms == pytest.approx(125)
        assert result.arrival_to_mask_ms == pytest.approx((2 - i) * 1e3 * period + 125)  # (span - 1) frames for the first


def test_a_window_that_follows_moves_between_snippets(segmenter, clock):
    wide = np.random.default_rng(2).gamma(2, 100, (6, 3, 80, 90))
    stream = StreamingSegmenter(segmenter, wide.shape[1:], SPACING, window="follow", clock=clock)
    results = [result for frame in wide for result in stream.push(frame)]
    np.testing.assert_array_equal([result.labels for result in results], segmenter.segment_cine(wide, SPACING, window="follow"))
    placements = [result.placement for result in results]
    assert placements[0] == placements[1] == placements[2] and placements[3] == placements[4] == placements[5]
    still = segmenter.segment_cine(wide, SPACING)
    assert not np.array_equal([result.labels for result in results], still)  # it looked elsewhere


def test_a_bad_frame_is_left_out(stream):
    stream.push(CINE[0])
    with pytest.raises(UserError, match="Frame 2 holds NaN"):
        stream.push(np.full(CINE.shape[1:], np.nan))
    assert stream.push(CINE[1]) == []
    assert [result.number for result in stream.push(CINE[2])] == [1, 3, 4]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The run folder of an MSU-Net of random values."""
    config = Config.make(**SMALL, workdir=str(tmp_path_factory.mktemp("runs") / "msu_net"), steps=2)
    write_run(config)
    return config.train.workdir


def test_it_is_played_as_any_other_network(run, tmp_path):
    """Seven frames are two snippets of three and one frame that waits for the end."""
    summary = session.stream(run, "phantom", rate=10, seconds=0.7, queue_size=7, gif=tmp_path / "beat.gif")
    assert (summary["frames"], summary["answered"], summary["dropped"], summary["compilations"]) == (7, 7, 0, 0)
    assert summary["arrival_to_mask_ms"]["max"] > 200  # the first frame of a snippet waits for two more, 100 ms apart
    with Image.open(tmp_path / "beat.gif") as picture:
        assert picture.n_frames == 7
