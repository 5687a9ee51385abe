"""What a stream hands over to those who look at it: its newest frame, and the figures of all. It waits for nobody."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ica_unet_jax.labels import STRUCTURES
from ica_unet_jax.reporting.figures import PALETTE
from ica_unet_jax.streaming.segmenter import Answer, Result
from ica_unet_jax.streaming.tally import Tally

# s from one look for a newer frame to the next. If the stream woke the pages, they would run there and then, and it would wait.
LOOK = 0.01
KEPT = 2000  # answers whose figures a page that comes later still gets
FADING = 0.05  # of the grey values' range, which follows the images slowly enough for nobody to see it


class View(NamedTuple):
    """What one page gets at a time."""

    seen: int  # answers of which it then knows the figures
    figures: dict[str, Any]  # JSON-safe
    planes: bytes  # uint8: the image's grey values (s, h, w), then the labels (s, h, w); b"" where there is no newer frame


class _Newest(NamedTuple):
    serial: int  # of the answer, from 1 over all sessions
    frame: np.ndarray
    result: Result
    spacing: tuple[float, float, float]
    session: int  # from 1


class Feed:
    """A hand-over with one side that never waits, and another of any number of pages.

    `show` may be called from any one thread. It keeps references, and returns: no lock, no copy, no queue that fills up, no call that could
    let another thread in. All else is done in the thread of an event loop, once for all pages.
    """

    def __init__(self) -> None:
        self.ended = False
        # The stream's side. Each is written by one operation that cannot be interrupted.
        self._newest: _Newest | None = None
        self._posted: collections.deque[tuple[int, list[float]]] = collections.deque(maxlen=KEPT)  # (session, point)
        self._counts: dict[str, Any] = {}
        self._tally: Tally | None = None
        self._serial = self._session = 0
        self._latest = time.monotonic()
        # The pages' side.
        self._points: collections.deque[list[float]] = collections.deque(maxlen=KEPT)
        self._points_session = 0
        self._grey: tuple[Any, float, float] = (None, 0.0, 1.0)  # (what the range is of, from, to)
        self._encoded: tuple[int, bytes] = (0, b"")

    def show(self, tally: Tally, answers: Sequence[Answer], spacing: tuple[float, float, float]) -> None:
        """The stream's side: frames that were answered; another `tally` begins a new session. Returns at once."""
        if tally is not self._tally:
            self._tally, self._session = tally, self._session + 1
        for frame, result in answers:
            self._serial += 1
            volumes = [round(result.volumes_ml[name], 2) for name in STRUCTURES]
            point = [self._serial, round(result.arrived, 4), *volumes, round(result.arrival_to_mask_ms, 2), round(result.compute_ms, 2)]
            self._posted.append((self._session, point))
            self._newest, self._latest = _Newest(self._serial, frame, result, spacing, self._session), time.monotonic()
        self._counts = tally.counts() | {"refusal": tally.refusal}

    def end(self) -> None:
        """Nothing more will come: nobody is to wait for it."""
        self.ended = True

    async def after(self, seen: int, patience: float) -> View:
        """What is newer than the first `seen` answers, as soon as there is any; after `patience` seconds the counts alone."""
        end = time.monotonic() + patience
        while not (newest := self._newer(seen)) and not self.ended and time.monotonic() < end:
            await asyncio.sleep(LOOK)
        figures = self._counts | {"structures": PALETTE, "quiet_s": round(time.monotonic() - self._latest, 1), "points": [], "frame": None}
        if not newest:
            return View(seen, figures, b"")
        self._take_points()
        figures["points"] = [point for point in self._points if seen < point[0] <= newest.serial]
        figures["frame"] = _about(newest)
        return View(newest.serial, figures, self._planes(newest))

    def _newer(self, seen: int) -> _Newest | None:
        return self._newest if self._newest and self._newest.serial > seen else None

    def _take_points(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                session, point = self._posted.popleft()
                if session != self._points_session:
                    self._points_session = session
                    self._points.clear()
                self._points.append(point)

    def _planes(self, newest: _Newest) -> bytes:
        if self._encoded[0] != newest.serial:
            low, high = self._range(newest)
            grey = np.clip((np.asarray(newest.frame, np.float32) - low) * (255 / (high - low)), 0, 255)
            self._encoded = newest.serial, b"".join(part.astype(np.uint8).tobytes() for part in (grey, newest.result.labels))
        return self._encoded[1]

    def _range(self, newest: _Newest) -> tuple[float, float]:
        """The values that are black and white."""
        of = newest.session, newest.frame.shape
        low, high = (float(value) for value in np.percentile(newest.frame[:, ::3, ::3], (1, 99.5)))
        if self._grey[0] == of:
            low, high = (FADING * now + (1 - FADING) * before for now, before in zip((low, high), self._grey[1:], strict=True))
        self._grey = of, low, max(high, low + 1e-6 * max(1.0, abs(low)))
        return self._grey[1:]


def _about(newest: _Newest) -> dict[str, Any]:
    return {
        "serial": newest.serial,
        "session": newest.session,
        "number": newest.result.number,
        "shape": list(newest.frame.shape),
        "spacing": [round(float(step), 4) for step in newest.spacing],
    }
