"""A stream gives what the offline model gives, once encoded, nothing compiled, and survives bad frames."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clock import Clock
from tiny import SMALL, variables

from ica_unet_jax.config import Config
from ica_unet_jax.data.geometry import normalize
from ica_unet_jax.data.phantom.beating_heart import simulate
from ica_unet_jax.errors import UserError
from ica_unet_jax.inference import way
from ica_unet_jax.inference.segmenters import Segmenter
from ica_unet_jax.metrics.clinical import volumes_ml
from ica_unet_jax.models.networks import build_model
from ica_unet_jax.runtime.compilation import Compilations
from ica_unet_jax.streaming.segmenter import StreamingSegmenter

SPACING = (10.0, 1.7, 1.4)
PHANTOM = simulate(0, 0, (3, 56, 70), 5, SPACING)  # three slices: two windows of the model's two
CINE, SHALLOW = PHANTOM.frames, PHANTOM.frames[:, :2]
KINDS = ("both", "past", "two_past", "none")


@pytest.fixture(scope="module")
def segmenters():
    return {kind: Segmenter(config := config_of(kind), variables(config.model)) for kind in KINDS}


def config_of(kind):
    return Config.make(**SMALL, neighbours=kind)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def stream(segmenters, kind):
    return open_stream(segmenters[kind])


def open_stream(segmenter, **options):
    return StreamingSegmenter(segmenter, CINE.shape[1:], SPACING, **options)


def play(stream, frames):
    """The results of all frames."""
    return [result for results in (*map(stream.push, frames), stream.flush()) for result in results]


def offline_logits(segmenter, times, cine=CINE):
    """The whole network on each frame and those round it, `times`, NumPy's geometry, no reuse."""
    apply = jax.jit(build_model(segmenter.config.model).apply)
    placement = segmenter.place(cine.shape[1:], SPACING)
    images = [jnp.float32(placement.forward(normalize(frame)))[..., None] for frame in cine]
    valid = jnp.float32(placement.valid)[..., None]
    reach = segmenter.config.model.reach

    def parts(group):
        """Frames before, at and after a time, each part in the channels of one array."""
        around = [images[t] for t in group]
        return (jnp.concatenate(part, -1) for part in (around[:reach], around[reach : reach + 1], around[reach + 1 :]))

    return [
        placement.backward(np.asarray(apply(segmenter.variables, *parts(group), valid)[0][-1])) for group in times
    ]


@pytest.mark.parametrize("cine", [CINE, SHALLOW], ids=["deep", "one window"])
def test_streaming_is_offline(segmenters, kind, cine):
    segmenter = segmenters[kind]
    stream = StreamingSegmenter(segmenter, cine.shape[1:], SPACING)
    results, placement = play(stream, cine), segmenter.place(cine.shape[1:], SPACING)
    reach = segmenter.config.model.reach
    around = [tuple(min(max(t + i, 0), 4) for i in range(-reach, reach + 1)) for t in range(5)]
    for wanted, result in zip(offline_logits(segmenter, around, cine), results, strict=True):
        tolerance = 1e-5 * np.abs(wanted[placement.inside]).max()
        chosen = np.take_along_axis(wanted, result.labels[..., None].astype(int), -1)[..., 0]
        assert np.all(chosen >= wanted.max(-1) - 2 * tolerance)  # the same label, but for ties
        assert result.labels.dtype == np.uint8 and result.volumes_ml == volumes_ml(result.labels, SPACING)
    assert [result.number for result in results] == [1, 2, 3, 4, 5]
    labels = segmenter.segment_cine(cine, SPACING)
    np.testing.assert_array_equal([result.labels for result in results], labels)
    assert len(np.unique(labels)) > 1


@pytest.mark.parametrize("changes", [dict(mirror=True), dict(bases_from="frame_with_coordinates"), dict(norm="group")], ids=str)
def test_overlapping_windows_of_a_deep_stack_are_averaged_in_a_stream_as_offline(changes):
    """Seven slices and a padded one, in windows of four that begin at 0, 2 and 4."""
    mirror = changes.get("mirror", False)
    config = Config.make(**SMALL | dict(crop=(4, 64, 64), neighbours="past") | ({} if mirror else changes))
    values = {"batch_stats": {}} | variables(config.model)  # group norm has none
    segmenter, cine = Segmenter(config, values, mirror=mirror), simulate(0, 0, (7, 56, 70), 2, SPACING).frames
    assert segmenter.place(cine.shape[1:], SPACING).windows == [0, 2, 4]
    stream = StreamingSegmenter(segmenter, cine.shape[1:], SPACING)
    assert isinstance(stream.way, way.StacksInJax) == ("bases_from" not in changes)
    labels = segmenter.segment_cine(cine, SPACING)
    assert (np.stack([result.labels for result in play(stream, cine)]) == labels).mean() > 0.9999 and len(np.unique(labels)) > 1


def test_the_future_changes_a_frame_only_with_neighbours_both(segmenters, kind):
    changed = CINE.copy()
    changed[3] = changed[3][:, ::-1]
    one, two = (segmenters[kind].segment_cine(frames, SPACING) for frames in (CINE, changed))
    assert np.array_equal(one[2], two[2]) == (kind != "both")
    assert np.array_equal(one[4], two[4]) == (kind == "none")
    assert np.array_equal(one[:2], two[:2])


def test_answers_come_at_once_or_with_the_next_frame(stream, kind):
    answers = [stream.push(frame) for frame in CINE[:3]]
    numbers = [[result.number for result in results] for results in (*answers, stream.flush())]
    assert numbers == ([[], [1], [2], [3]] if kind == "both" else [[1], [2], [3], []])
    assert stream.flush() == []


def test_a_stack_that_fits_the_grid_is_encoded_once_by_what_is_compiled_for_all(segmenters, kind, monkeypatch):
    segmenter = Segmenter(segmenters[kind].config, segmenters[kind].variables)
    stream, encoded = StreamingSegmenter(segmenter, SHALLOW.shape[1:], SPACING), []
    encode, decode = segmenter._network
    monkeypatch.setattr(segmenter, "_network", (lambda *args: encoded.append(1) or encode(*args), decode))
    with Compilations() as found, jax.transfer_guard("disallow"):
        assert len(play(stream, SHALLOW)) == len(encoded) == 5
    assert found.count == 0 and segmenter.traces == 2


def test_every_frame_is_encoded_once_and_nothing_is_compiled_after_the_constructor(stream, monkeypatch):
    segmenter = stream.segmenter
    traces, encoded, encode = segmenter.traces, [], stream.way._encode
    monkeypatch.setattr(stream.way, "_encode", lambda *args: encoded.append(1) or encode(*args))
    with Compilations() as found, jax.transfer_guard("disallow"):  # nothing crosses unless it is said
        results = play(stream, CINE)
    assert len(results) == len(encoded) == 5  # for both depth windows at once
    assert found.count == 0 and segmenter.traces == traces


def test_only_the_frame_goes_in_and_only_the_labels_come_out(stream, monkeypatch):
    put, get, crossed = jax.device_put, jax.device_get, []
    monkeypatch.setattr(jax, "device_put", lambda x: crossed.append(("in", x.nbytes)) or put(x))
    monkeypatch.setattr(jax, "device_get", lambda x: crossed.append(("out", sum(part.nbytes for part in x))) or get(x))
    play(stream, CINE[:3])
    assert sorted(crossed) == [("in", 4 * CINE[0].size)] * 3 + [("out", CINE[0].size)] * 3


def test_reset_and_flush_start_anew(stream):
    expected = [result.labels for result in play(stream, CINE[2:])]
    stream.push(CINE[0])
    stream.push(CINE[1])
    stream.reset()
    results = play(stream, CINE[2:])
    assert [result.number for result in results] == [1, 2, 3]
    np.testing.assert_array_equal([result.labels for result in results], expected)
    np.testing.assert_array_equal([result.labels for result in play(stream, CINE[2:])], expected)


def bad_frames():
    hole, endless, huge = CINE[1].copy(), CINE[1].copy(), CINE[1].astype(np.float64)
    hole[0, 5, 5], endless[0, 5, 5], huge[0, 5, 5] = np.nan, -np.inf, 1e60
    return {
        "holds NaN or infinite values": [hole, endless, huge],
        r"has the shape \(3, 56, 71\), the stream \(3, 56, 70\)": [np.ones((3, 56, 71))],
        r"has the shape \(56, 70\)": [CINE[1][0]],
        r"is constant \(7\)": [np.full(CINE[1].shape, 7, np.int16)],
        "holds complex64 values": [CINE[1].astype(np.complex64)],
    }


def test_a_bad_frame_is_refused_alone_and_the_stream_goes_on_as_if_it_had_been_dropped(stream, kind):
    expected = [result.labels for result in play(stream, CINE[[0, 1, 3]])]
    for where in range(4):
        results, number = [], 0
        for i, frame in enumerate(CINE[[0, 1, 3]]):
            for reason, frames in bad_frames().items() if i == where else ():
                for bad in frames:
                    number += 1
                    with pytest.raises(UserError, match=f"^Frame {number} {reason}"):
                        stream.push(bad)
            number += 1
            results += stream.push(frame)
        results += stream.flush()
        np.testing.assert_array_equal([result.labels for result in results], expected)
        assert results[-1].number == number


def test_any_real_type_is_taken_and_the_buffer_is_the_callers_again(stream):
    whole = np.round(CINE).astype(np.int16)
    expected = [result.labels for result in play(stream, whole.astype(np.float32))]
    buffer, results = np.empty(CINE.shape[1:], np.float32), []
    for frame in whole:
        buffer[:] = frame
        results += stream.push(buffer)
        buffer[:] = -1
    results += stream.flush()
    np.testing.assert_array_equal([result.labels for result in results], expected)
    np.testing.assert_array_equal([result.labels for result in play(stream, whole)], expected)
    backwards = np.ascontiguousarray(whole[..., ::-1])[..., ::-1]
    np.testing.assert_array_equal([result.labels for result in play(stream, backwards)], expected)


def test_both_latencies_on_one_clock(segmenters, kind, monkeypatch):
    clock = Clock()
    stream = open_stream(segmenters[kind], clock=clock)
    labels = stream.way.labels

    def slow(*arguments):
        clock.now += 0.004
        return labels(*arguments)

    monkeypatch.setattr(stream.way, "labels", slow)
    results = []
    for i in range(3):
        clock.now = 100 + 0.05 * i
        results += stream.push(CINE[i], time_stamp=clock.now - 0.003, number=10 + i)  # 3 ms in a queue
    clock.now = 100.2
    results += stream.flush()
    assert [result.number for result in results] == [10, 11, 12]
    assert [result.compute_ms for result in results] == pytest.approx([4, 4, 4])
    # With `both` the next frame is waited for, and the last frame for the end of the stream.
    waits = {"both": [50, 50, 100]}.get(kind, [0, 0, 0])
    assert [result.arrival_to_mask_ms for result in results] == pytest.approx([wait + 3 + 4 for wait in waits])
    assert [result.arrived for result in results] == pytest.approx([99.997, 100.047, 100.097])
    clock.now = 300.0
    stream.push(CINE[0])
    [last] = stream.push(CINE[1])
    assert (last.number, last.arrived) == ((1, 300.0) if kind == "both" else (2, 300.004))


def test_the_windows_of_a_mirrored_model_are_averaged_in_a_stream_too(segmenters):
    mirrored = Segmenter(config_of("past"), segmenters["past"].variables, mirror=True)
    mirrored._network = segmenters["past"]._network
    stream = open_stream(mirrored)
    labels = mirrored.segment_cine(CINE, SPACING)
    np.testing.assert_array_equal([result.labels for result in play(stream, CINE)], labels)
    assert (labels != segmenters["past"].segment_cine(CINE, SPACING)).any()
