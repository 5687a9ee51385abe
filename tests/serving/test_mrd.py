"""An MRD session: what ismrmrd's own serializer sends is segmented, and what comes back its own deserializer reads."""

import functools
import struct
import threading

import ismrmrd
import numpy as np
import pytest
from wires import answer, cine, connect, everything, header, images, parsed, serving, stream, trivial_engine

from ica_unet_jax.data.orientation import Turn
from ica_unet_jax.serving import engine as engines
from ica_unet_jax.serving import mrd
from ica_unet_jax.serving.clients.mrd import Mrd
from ica_unet_jax.serving.wire import Malformed

CONFIG = ismrmrd.serialization.ConfigFile("ica_unet")
KEPT = ("position", "read_dir", "phase_dir", "slice_dir", "field_of_view", "matrix_size", "slice", "phase", "repetition", "image_index",
        "patient_table_position", "acquisition_time_stamp", "physiology_time_stamp", "measurement_uid", "set", "contrast", "average")  # fmt: skip


def exchange(data, engine=None, slices=None, reorder=2, **options):
    """What a server answers to these bytes; they are read while they are sent."""
    with serving(functools.partial(mrd.Talk, slices=slices, reorder=reorder), mrd.refusal, engine, **options) as port, connect(port) as connection:
        sender = threading.Thread(target=connection.sendall, args=(data,))
        sender.start()
        found = everything(connection)
        sender.join()
    return found


def labels_of(answers, shape):
    """{(repetition, phase): labels (s, h, w)} of label images."""
    found = {}
    for image in answers:
        found.setdefault((image.repetition, image.phase), np.zeros(shape, int))[image.slice] = image.data[0, 0]
    return found


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint32", "float32", "float64", "complex64"])
def test_every_frame_gets_its_labels_in_the_geometry_of_its_images(waits, dtype):
    frames = cine()
    sent = images(frames.astype(dtype))
    answers = parsed(exchange(stream(CONFIG, header(3), *sent.values()), trivial_engine(waits)))
    assert len(answers) == len(sent)
    found = labels_of(answers, frames.shape[1:])
    assert all((found[0, t] == answer(frames[t])).all() for t in range(len(frames)))
    for image in answers:
        source = sent[image.phase, image.slice]
        assert all(list(np.ravel(getattr(image, name))) == list(np.ravel(getattr(source, name))) for name in KEPT)
        assert image.data.dtype == np.uint16 and image.image_type == ismrmrd.IMTYPE_MAGNITUDE and image.image_series_index == 102


def test_attributes_say_what_the_labels_are_and_keep_those_of_the_image():
    frames = cine(1)
    sent = images(frames)
    for image in sent.values():
        image.meta = {"IceMiniHead": "abc", "ImageRowDir": ["1.0", "0.0", "0.0"], "DataRole": "Image"}
    first, *_ = parsed(exchange(stream(CONFIG, header(3), *sent.values())))
    labels = answer(frames[0])
    meta = first.meta
    assert meta["IceMiniHead"] == "abc" and meta["ImageRowDir"] == ["1.0", "0.0", "0.0"] and meta["Keep_image_geometry"] == "1"
    assert "Segmentation" in meta["DataRole"] and "Quantitative" in meta["DataRole"] and meta["LUTFileName"].endswith(".pal")
    assert {name: float(meta[f"Volume{name}_ml"]) for name in ("RV", "MYO", "LV")} == {
        name: (labels == k).sum() for k, name in enumerate(("RV", "MYO", "LV"), 1)
    }
    assert meta["ImageComments"] == [f"{k} {name}: {(labels == k).sum():.1f} mL" for k, name in enumerate(("RV", "MYO", "LV"), 1)]


@pytest.mark.parametrize("order", ["shuffled", "interleaved", "slice by slice", "one late"])
def test_slices_in_another_order_give_the_same_labels(order):
    frames = cine(6)
    sent = images(frames)
    keys = list(sent)
    if order == "shuffled":
        np.random.default_rng(1).shuffle(keys)
    elif order == "interleaved":
        keys.sort(key=lambda key: (key[0], key[1] % 2, key[1]))
    elif order == "slice by slice":
        keys.sort(key=lambda key: key[::-1])
    else:
        keys.insert(keys.index((3, 1)), keys.pop(keys.index((2, 1))))
    answers = parsed(exchange(stream(CONFIG, header(3), *(sent[tuple(key)] for key in keys)), reorder=6))
    found = labels_of(answers, frames.shape[1:])
    assert len(answers) == 18 and all((found[0, t] == answer(frames[t])).all() for t in range(6))


def test_slices_are_stacked_as_they_lie_whatever_their_numbers():
    """Interleaved slices: number 0, 1, 2 lie at 0, 20 and 10 mm; the network sees them in the order of place, 10 mm apart."""
    frames, seen = cine(1), []
    places = {0: 0.0, 1: 20.0, 2: 10.0}

    def make(shape, spacing):
        seen.append((shape, spacing))
        segmenter = trivial_engine()._make(shape, spacing)
        push = segmenter.push
        segmenter.push = lambda frame, *more: seen.append(np.array(frame)) or push(frame, *more)
        return segmenter

    sent = images(frames)
    for (_, k), image in sent.items():
        image.position = (0.0, 0.0, places[k])
    found = labels_of(parsed(exchange(stream(CONFIG, header(3), *sent.values()), engines.Engine(make))), frames.shape[1:])
    assert seen[0] == ((3, 8, 6), (10.0, 1.5, 1.25)) and (seen[1] == frames[0][[0, 2, 1]]).all()
    assert (found[0, 0] == answer(frames[0])).all()


def test_frames_are_turned_to_the_training_s_axes_and_labels_back():
    frames, seen = cine(1), []

    def make(shape, spacing):
        seen.append((shape, spacing))
        return trivial_engine()._make(shape, spacing)

    sent = images(frames)  # x to the left, y to the back, slices to the head: LPS
    found = labels_of(parsed(exchange(stream(CONFIG, header(3), *sent.values()), engines.Engine(make, "PRS"))), frames.shape[1:])
    assert seen == [(Turn("LPS", "PRS").forth(frames[0]).shape, (10.0, 1.25, 1.5))] and (found[0, 0] == answer(frames[0])).all()


def test_a_volume_is_a_frame():
    frames = cine(2)
    volumes = []
    for t, frame in enumerate(frames):
        image = ismrmrd.Image.from_array(frame, transpose=False)
        image.phase, image.image_type, image.field_of_view = t, 1, (7.5, 12.0, 30.0)
        volumes.append(image)
    first, second = parsed(exchange(stream(CONFIG, *volumes)))
    assert first.data.shape == (1, 3, 8, 6) and (first.data[0] == answer(frames[0])).all() and (second.data[0] == answer(frames[1])).all()


def test_without_a_header_the_frames_are_segmented_at_the_end():
    frames = cine()
    text = b"Dummy XML header\0"  # what the public client sends where a file has none
    dummy = struct.pack("<HI", mrd.HEADER, len(text)) + text
    answers = parsed(exchange(dummy + stream(*images(frames).values())))
    found = labels_of(answers, frames.shape[1:])
    assert len(answers) == 12 and all((found[0, t] == answer(frames[t])).all() for t in range(4))


def test_what_is_no_magnitude_image_passes_by():
    frames = cine(1)
    wave = ismrmrd.Waveform.from_array(np.zeros((2, 5), np.uint32))
    acquisition = ismrmrd.Acquisition.from_array(np.zeros((2, 8), np.complex64), np.zeros((8, 2), np.float32))
    phase = images(frames, image_type=ismrmrd.IMTYPE_PHASE)[0, 0]
    others = [wave, "a text", acquisition, phase, np.zeros((2, 3), np.float32), ismrmrd.serialization.ConfigText("<c/>")]
    mixed = [message for image in images(frames).values() for message in (*others, image)]
    answers = parsed(exchange(stream(CONFIG, header(3), *mixed, wave)))
    assert len(answers) == 3 and (labels_of(answers, frames.shape[1:])[0, 0] == answer(frames[0])).all()


def test_a_bad_frame_is_told_and_the_next_is_segmented():
    frames = cine(6).astype(np.float32)
    frames[1, 0, 0, 0] = np.nan
    sent = images(frames)
    for k in range(3):
        sent[2, k].position = (0.0, 0.0, 5.0 * (k > 0))  # two at one place
        sent[4, k].meta = {"ImageRowDir": ["1", "0", "0"], "ImageColumnDir": ["0", f"{1 - 0.3 * (k == 2):g}", f"{0.7 * (k == 2):g}"]}
    sent[3, 1].read_dir, sent[3, 1].phase_dir = (0.0, 1.0, 0.0), (-1.0, 0.0, 0.0)
    *answers, = parsed(exchange(stream(CONFIG, header(3), *sent.values())))
    texts = [message for message in answers if isinstance(message, str)]
    assert len(texts) == 4 and all("WARNING" in text for text in texts)
    assert sum("one place" in text for text in texts) == 1 and sum("not parallel" in text for text in texts) == 2
    assert {image.phase for image in answers if not isinstance(image, str)} == {0, 5}


def test_labels_are_those_of_a_stream(tiny_run):
    """A whole way: the replay client, the server, the network, in any order, the same labels as the segmenter gives."""
    from ica_unet_jax.data.case import Case, Cine
    from ica_unet_jax.inference import segmenters
    from ica_unet_jax.streaming.segmenter import StreamingSegmenter

    frames, spacing = np.random.default_rng(2).gamma(2, 100, (3, 2, 64, 64)).astype(np.float32), (10.0, 1.5, 1.5)
    import nibabel as nib

    affine = np.diag([-1.5, -1.5, 10.0, 1.0])
    whole = Cine(Case("c"), frames, (0, 1, 2), {}, spacing, affine, nib.Nifti1Header())
    live = StreamingSegmenter(segmenters.load(tiny_run), (2, 64, 64), spacing)
    expected = [r.labels for f in frames for r in live.push(f)] + [r.labels for r in live.flush()]
    order = [(0, 1), (0, 0), (1, 0), (2, 1), (2, 0), (1, 1)]
    with serving(mrd.Talk, mrd.refusal, engines.load(tiny_run, runtime="jax")) as port:
        client = Mrd("127.0.0.1", port, whole)
        client.play(3, 0.0, order)
    assert (client.labels == np.stack(expected)).all() and client.masked.keys() == {0, 1, 2}


@pytest.mark.parametrize("queue", [0, 2])
def test_with_a_queue_the_oldest_frames_are_dropped_without_the_sender_waits(queue, monkeypatch):
    """The segmenter begins when all frames have come, or, as nobody takes them then, at once."""
    frames = cine(12)
    sent, read, engine = stream(CONFIG, header(3), *images(frames).values()), threading.Event(), trivial_engine()
    make, come = engine._make, mrd.Talk.frames

    def held(shape, spacing):
        segmenter = make(shape, spacing)
        push = segmenter.push
        segmenter.push = lambda *one: read.wait(20) and push(*one)
        return segmenter

    def all_of(talk):
        yield from come(talk)
        read.set()

    engine._make = held
    monkeypatch.setattr(mrd.Talk, "frames", all_of)
    if not queue:
        read.set()
    phases = [image.phase for image in parsed(exchange(sent, engine, queue=queue))][::3]
    assert phases[-2:] == [10, 11] and len(phases) <= 3 if queue else phases == [*range(12)]


def test_a_frame_that_is_to_be_turned_and_does_not_tell_how_it_lies_is_refused():
    frames, none = cine(3), dict.fromkeys(("read_dir", "phase_dir", "slice_dir"), (0.0, 0.0, 0.0))
    sent = images(frames)
    for k in range(3):
        for name, value in none.items():
            setattr(sent[1, k], name, value)
    for waits in (False, True):
        answers = parsed(exchange(stream(CONFIG, header(3), *sent.values()), trivial_engine(waits, codes="PRS")))
        [text] = [message for message in answers if isinstance(message, str)]
        assert "--reorient cannot turn" in text
        assert {image.phase for image in answers if not isinstance(image, str)} == {0, 2}


def test_a_cine_goes_on_where_a_size_differs_by_a_rounding():
    frames, begun, engine = cine(4), [], trivial_engine(waits=True)
    ready = engine.ready
    engine.ready = lambda *geometry: begun.append(geometry) or ready(*geometry)
    sent = images(frames)
    for (t, _), image in sent.items():
        image.field_of_view = (7.503 + 3e-5 * (t % 2), 12.0, 8.0)  # 1.2505 mm, which is no whole thousandth either
    assert len(parsed(exchange(stream(CONFIG, header(3), *sent.values()), engine))) == 12 and len(begun) == 1


@pytest.mark.parametrize("maximum", ["\u00b2", "\u0663", "9" * 5000, "1024", "-1", "", "1e2"])
def test_a_number_of_slices_that_is_none_is_malformed(maximum):
    text = f"<h><encoding><encodingLimits><slice><maximum>{maximum}</maximum></slice></encodingLimits></encoding></h>"
    with pytest.raises(Malformed):
        mrd.slices_by(text.encode())
    assert mrd.slices_by(text.replace(f">{maximum}<", "> 1023 <").encode()) == 1024
