"""A signal ends a process at once, or where it can save something; also where Python does not run for a long time."""

import os
import signal
import threading
import time

import pytest

from ica_unet_jax.errors import Interrupted
from ica_unet_jax.runtime import interruption
from ica_unet_jax.runtime.interruption import SIGNALS, Interruption

pytestmark = pytest.mark.usefixtures("signals_heard")


@pytest.fixture
def left(monkeypatch):
    """The signals that would have ended this process."""
    numbers = []
    monkeypatch.setattr(interruption, "leave", numbers.append)
    return numbers


def kill(number):
    os.kill(os.getpid(), number)


def until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("number", SIGNALS)
def test_where_nothing_is_saved_it_raises(number):
    before = [signal.getsignal(n) for n in SIGNALS]
    with pytest.raises(Interrupted) as stop, Interruption():
        kill(number)
    assert stop.value.number == number
    assert [signal.getsignal(n) for n in SIGNALS] == before and signal.set_wakeup_fd(-1) == -1
    until(lambda: "signals" not in {thread.name for thread in threading.enumerate()})


def test_where_something_is_saved_it_waits_and_says_so(capfd, monkeypatch, left):
    monkeypatch.setattr(interruption, "PATIENCE", 0.01)
    calls = []
    with Interruption(lambda: calls.append(1)) as asked:
        asked.hold("the state is saved")
        asked.to_stop()
        kill(signal.SIGTERM)
        until(lambda: calls and "saved" in capfd.readouterr().err)
        with pytest.raises(Interrupted, match="SIGTERM"):
            asked.to_stop()
    assert calls == [1] and not left


def test_what_is_saved_soon_is_not_waited_for_aloud(capfd, left):
    with Interruption() as asked:
        asked.hold("the state is saved")
        kill(signal.SIGTERM)
    time.sleep(interruption.PATIENCE + 0.2)
    assert capfd.readouterr().err == "" and not left


def test_a_signal_that_comes_twice_at_once_is_one(left):
    with Interruption() as asked:
        asked.hold("the state is saved")
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            kill(number)
        with pytest.raises(Interrupted, match="SIGTERM"):
            asked.to_stop()
    assert not left


def test_a_later_second_signal_ends_it(monkeypatch, left):
    monkeypatch.setattr(interruption, "TOGETHER", 0.0)
    with Interruption() as asked:
        asked.hold("the state is saved")
        kill(signal.SIGINT)
        until(lambda: asked.received)
        assert not left
        kill(signal.SIGINT)
        until(lambda: left == [signal.SIGINT])


def test_an_exception_that_is_swallowed_does_not_keep_it(monkeypatch, left):
    monkeypatch.setattr(interruption, "GRACE", 0.1)
    with Interruption():
        try:
            kill(signal.SIGINT)
        except KeyboardInterrupt:
            until(lambda: left == [signal.SIGINT])


def test_an_exception_that_is_made_another_one_is_an_interruption():
    with pytest.raises(Interrupted, match="SIGTERM"), Interruption():
        try:
            kill(signal.SIGTERM)
        except KeyboardInterrupt:
            raise RuntimeError("a callback failed") from None


def test_where_an_exception_would_be_swallowed_it_comes_later():
    def some_gc_callback():
        kill(signal.SIGINT)

    with pytest.raises(Interrupted), Interruption() as asked:
        some_gc_callback()
        assert asked.received
        time.sleep(interruption.GRACE)


def test_the_innermost_hears(left):
    with Interruption() as outer:
        with Interruption() as inner:
            inner.hold("the state is saved")
            kill(signal.SIGINT)
        assert inner.received == signal.SIGINT and outer.received is None
        with pytest.raises(Interrupted):
            kill(signal.SIGTERM)
        assert outer.received == signal.SIGTERM


def test_signals_that_are_ignored_stay_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interruption() as asked:
            kill(signal.SIGINT)
            asked.to_stop()
    finally:
        signal.signal(signal.SIGINT, before)


def test_outside_the_main_thread_nothing_changes():
    before = [signal.getsignal(n) for n in SIGNALS]

    def run():
        with Interruption() as asked:
            asked.to_stop()
            seen.append([signal.getsignal(n) for n in SIGNALS])

    seen = []
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before]
