"""What a server shows to those who look on is what it answered to the scanner."""

import threading

import numpy as np
import pytest
from wires import (
    SHAPE,
    SPACING,
    Trivial,
    answer,
    cine,
    connect,
    everything,
    header,
    images,
    parsed,
    serving,
    stream,
    trivial_engine,
)

from ica_unet_jax.serving import mrd
from ica_unet_jax.serving.engine import Engine


class Looker:
    """Remembers what it was shown."""

    def __init__(self):
        self.answers, self.counts, self.spacings = [], [], set()

    def __call__(self, tally, answers, spacing):
        self.answers += [(frame, result.labels, result.number) for frame, result in answers]
        self.counts.append((tally.answered, tally.dropped, tally.refused))
        self.spacings.add(spacing)


def session(frames, looker, engine=None, **options):
    with serving(mrd.Talk, mrd.refusal, engine, show=looker, **options) as port, connect(port) as connection:
        sender = threading.Thread(target=connection.sendall, args=(stream(header(SHAPE[0]), *images(frames).values()),))
        sender.start()
        found = everything(connection)
        sender.join()
    return parsed(found)


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("codes", ["", "LPS", "RAS"])
def test_frames_and_labels_lie_as_they_came(waits, codes):
    frames, looker = cine(), Looker()
    session(frames, looker, trivial_engine(waits, codes=codes))
    assert [number for *_, number in looker.answers] == [1, 2, 3, 4]
    for (shown, labels, _), frame in zip(looker.answers, frames, strict=True):
        assert (shown == frame).all() and (labels == answer(frame)).all()
    assert looker.counts[-1] == (4, 0, 0) and looker.spacings == {SPACING}


def test_refused_and_dropped_frames_are_told_while_it_runs():
    frames, looker = cine(8).astype(np.float32), Looker()
    frames[2] = np.nan
    session(frames, looker)
    assert (2, 0, 1) in looker.counts and looker.counts[-1] == (7, 0, 1)

    class Slow(Trivial):
        def push(self, *given):
            threading.Event().wait(0.1)
            return super().push(*given)

    looker = Looker()
    session(cine(8), looker, Engine(Slow), queue=1)
    answered, dropped, _ = looker.counts[-1]
    assert dropped > 0 and answered + dropped == 8
