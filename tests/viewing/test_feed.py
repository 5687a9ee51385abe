"""The hand-over never waits, and what is seen is what was segmented."""

import asyncio
import json
import threading
import time

import numpy as np
import pytest
from seen import SPACING, answer, shown

from ica_unet_jax.errors import UserError
from ica_unet_jax.streaming.tally import Tally
from ica_unet_jax.viewing.feed import KEPT, Feed


def after(feed, seen=0, patience=0.0):
    return asyncio.run(feed.after(seen, patience))


def test_what_is_seen_is_what_was_segmented():
    feed, tally = Feed(), Tally(50.0)
    first, second = answer(1), answer(2)
    shown(feed, tally, first, second)
    view = after(feed)
    frame, result = second
    size = frame.size
    assert view.figures["frame"] == {"serial": 2, "session": 1, "number": 2, "shape": list(frame.shape), "spacing": list(SPACING)}
    assert view.planes[size:] == result.labels.tobytes()
    grey = np.frombuffer(view.planes[:size], np.uint8).reshape(frame.shape).astype(float)
    low, high = np.percentile(frame[:, ::3, ::3], (1, 99.5))
    assert np.abs(grey - np.clip((frame - low) / (high - low), 0, 1) * 255).max() <= 1
    assert [point[2:5] for point in view.figures["points"]] == [[pytest.approx(v) for v in r.volumes_ml.values()] for _, r in (first, second)]
    assert (view.figures["answered"], view.figures["frames"]) == (2, 2)
    json.dumps(view.figures)


def test_who_comes_late_gets_the_past_and_who_is_slow_loses_no_figures():
    feed, tally = Feed(), Tally(50.0)
    shown(feed, tally, *(answer(n) for n in range(1, 4)))
    view = after(feed)
    assert [point[0] for point in view.figures["points"]] == [1, 2, 3] and view.seen == 3
    assert not after(feed, 3).planes and after(feed, 3).seen == 3
    shown(feed, tally, *(answer(n) for n in range(4, 9)))
    view = after(feed, view.seen)
    assert [point[0] for point in view.figures["points"]] == [4, 5, 6, 7, 8] and view.figures["frame"]["number"] == 8
    shown(feed, tally, *(answer(1) for _ in range(KEPT)))
    assert len(after(feed).figures["points"]) == KEPT


def test_a_new_session_begins_anew():
    feed = Feed()
    shown(feed, Tally(50.0), answer(1), answer(2))
    after(feed)
    shown(feed, Tally(50.0), answer(1, shape=(2, 5, 4)))
    view = after(feed)
    assert view.figures["frame"]["session"] == 2 and len(view.figures["points"]) == 1 and len(view.planes) == 2 * 40


def test_refusals_are_told_before_any_answer():
    feed, tally = Feed(), Tally(50.0)
    tally.refuse(UserError("Frame 1 holds NaN"))
    feed.show(tally, [], SPACING)
    figures = after(feed).figures
    assert figures["refused"] == 1 and figures["refusal"] == "Frame 1 holds NaN" and figures["frame"] is None
    assert figures["ejection_fraction"] == {"LV": None, "RV": None}


def test_the_hand_over_waits_for_nobody():
    """The thread of the pages hangs; the stream does not notice, and its last frame is there afterwards."""
    feed, tally = Feed(), Tally(50.0)
    hangs, free = threading.Event(), threading.Event()
    found = []

    async def pages():
        waiting = asyncio.create_task(feed.after(0, 60))
        await asyncio.sleep(0)  # it waits now
        hangs.set()
        free.wait(20)
        found.append(await waiting)

    thread = threading.Thread(target=asyncio.run, args=(pages(),))
    thread.start()
    assert hangs.wait(10)
    began = time.perf_counter()
    shown(feed, tally, *(answer(n) for n in range(1, 101)))
    taken = time.perf_counter() - began
    assert thread.is_alive() and not found
    free.set()
    thread.join(10)
    assert taken < 1 and found[0].figures["frame"]["number"] == 100
    shown(feed, tally, answer(101))  # the loop is closed
    feed.end()


def test_who_waits_is_told_at_once():
    feed, tally = Feed(), Tally(50.0)

    async def wait():
        task = asyncio.create_task(feed.after(0, 60))
        await asyncio.sleep(0)
        threading.Thread(target=shown, args=(feed, tally, answer(7))).start()
        assert (await asyncio.wait_for(task, 10)).figures["frame"]["number"] == 7
        task = asyncio.create_task(feed.after(1, 60))
        await asyncio.sleep(0)
        threading.Thread(target=feed.end).start()
        assert not (await asyncio.wait_for(task, 10)).planes

    asyncio.run(wait())
