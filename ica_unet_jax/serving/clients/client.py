"""What clients have in common: they play a cine, frame after frame, and keep what comes back and when."""

from __future__ import annotations

import abc
import socket
import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np

from ica_unet_jax.data.case import Cine
from ica_unet_jax.errors import UserError
from ica_unet_jax.serving.wire import MEGABYTE, Ended, Wire

PATIENCE = 60.0  # s for an answer
LARGEST = np.iinfo(np.uint8).max  # label


class Client(abc.ABC):
    """Counts what was sent and what came back. Frames have numbers from 0; after the cine's last frame its first one follows again.

    Attributes:
      labels: of the first round, (t, s, h, w) uint8.
      planned, sent: when a frame was to be sent, and when its last bytes had been, s, by its number.
      masked: when the first bytes of its mask came.
      unlike: numbers of the frames whose mask is another than an earlier one of the same frame of the cine. The first round is not
        compared: there a stream may know less of the past.
      compared: numbers of those that were compared.
      told: texts of the server.
    """

    def __init__(self, cine: Cine):
        self.cine = cine
        self.labels = np.zeros(cine.frames.shape, np.uint8)
        self._later, self._known = np.zeros_like(self.labels), np.zeros(self.labels.shape[:2], bool)
        self.planned: dict[int, float] = {}
        self.sent: dict[int, float] = {}
        self.masked: dict[int, float] = {}
        self.unlike: set[int] = set()
        self.compared: set[int] = set()
        self.told: list[str] = []

    @abc.abstractmethod
    def play(self, count: int, rate: float) -> None:
        """Sends `count` frames, `rate` a second (0: at once), and waits for the answers. Raises UserError where the server ends it."""

    def keep(self, round_: int, frame: int, labels: np.ndarray, first: float, index: int | None = None) -> None:
        """Labels of a frame of the cine in one of its rounds, or of its slice `index`, whose first bytes came at `first`.

        Raises IndexError, ValueError where they do not fit.
        """
        number, slices = round_ * len(self.labels) + frame, slice(None) if index is None else index
        there = (self._later if round_ else self.labels)[frame][slices]
        if round_ < 0 or labels.shape != there.shape or labels.max() > LARGEST:
            raise ValueError(f"labels {labels.shape} of round {round_}")
        if not round_ or not self._known[frame][slices].all():
            there[...] = labels
            self._known[frame, slices] |= round_ > 0
        else:
            self.compared.add(number)
            if (there != labels).any():
                self.unlike.add(number)
        self.masked.setdefault(number, first)


class WireClient(Client):
    """A session over a connection that is kept, with one message a part of a frame.

    Args:
      host, port: of the server.
      cine: what is played.
      patience: seconds for an answer, and for it to take a message.

    Raises:
      UserError: there is no server.
    """

    parts = 1  # of a frame

    def __init__(self, host: str, port: int, cine: Cine, patience: float = PATIENCE):
        super().__init__(cine)
        try:
            self.wire = Wire(socket.create_connection((host, port), timeout=patience), patience, 1024 * MEGABYTE)
        except OSError as error:
            raise no_server(host, port, error) from error
        self._ending, self._ended, self._fault = False, "", None
        self._reader = threading.Thread(target=self._read, name="answers", daemon=True)

    def begin(self) -> bytes:
        """What opens a session."""
        return b""

    @abc.abstractmethod
    def message(self, number: int, index: int) -> bytes:
        """A part of a frame."""

    @abc.abstractmethod
    def end(self) -> None:
        """Tells the server that no more comes."""

    @abc.abstractmethod
    def answer(self) -> bool:
        """Reads an answer, and keeps it; False if it was the last one."""

    def play(self, count: int, rate: float, order: Sequence[tuple[int, int]] | None = None) -> None:
        """As `Client.play`; `order`: of (frame, part), each once; by default as they are."""
        self._reader.start()
        left = dict.fromkeys(range(count), self.parts)
        try:
            self.wire.send(self.begin())
            for number, index, planned in paced(order or [(number, index) for number in range(count) for index in range(self.parts)], rate):
                self.planned.setdefault(number, planned)
                self.wire.send(self.message(number, index))
                left[number] -= 1
                if not left[number]:
                    self.sent[number] = time.perf_counter()
            self._ending = True
            self.end()
        except Ended as error:
            self._ended = self._ended or str(error)
        self._reader.join()
        self.wire.close()
        if self._fault:
            raise self._fault
        if self._ended or (self.told and not self.masked):
            raise ended(self._ended or "it answered nothing", self.told)

    def _read(self) -> None:
        try:
            while self.answer():
                pass
            if not self._ending:
                self._ended = "it says that this was all"
        except Ended as error:
            self._ended = str(error)
        except (ValueError, IndexError) as error:
            self._ended = f"it sent an answer to nothing that was played ({type(error).__name__})"
        except Exception as error:  # ours: `play` raises it
            self._fault = error
        if self._ended or self._fault:
            self.wire.close()  # nothing more is sent


def paced(order: Sequence[tuple[int, int]], rate: float) -> Iterator[tuple[int, int, float]]:
    """Each (frame, part) and when it was to be sent: at its frame's time, `rate` frames a second; 0: at once."""
    start = time.perf_counter()
    for number, index in order:
        planned = start + number / rate if rate else time.perf_counter()
        time.sleep(max(0.0, planned - time.perf_counter()))
        yield number, index, planned


def no_server(host: str, port: int, error: OSError) -> UserError:
    return UserError(f"no server answers on {host}:{port} ({error.strerror or error}): start one with serve --workdir=RUN.")


def ended(why: str, told: Sequence[str] = ()) -> UserError:
    return UserError(f"the server ended the session: {why}. {' '.join(told)}".strip())
