"""A program: sends a cine to the HTTP service, whole and again and again."""

from __future__ import annotations

import gzip
import http.client
import json
import math
import time
import zlib
from pathlib import Path

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError

from ica_unet_jax.data.case import Cine
from ica_unet_jax.errors import UserError
from ica_unet_jax.serving.clients.client import PATIENCE, Client, ended, no_server, paced


class Http(Client):
    """See `Client`. All frames of a file are sent at once, so they have one time, and the file is sent again when they would have passed.

    `source`: the file of the cine. `patience`: seconds, thrice, as a server has so long for the upload, the wait and the work. Raises UserError where
    the file cannot be sent as it is.
    """

    def __init__(self, host: str, port: int, cine: Cine, source: Path, patience: float = PATIENCE, token: str = ""):
        super().__init__(cine)
        self._host, self._port, self._patience, self._token = host, port, 3 * patience, token
        try:
            self._body = source.read_bytes()
        except OSError as error:
            raise UserError(f"{source} cannot be sent ({error.strerror}): --protocol=http plays a single NIfTI file.") from error

    def play(self, count: int, rate: float) -> None:
        frames = len(self.labels)
        for round_, _, planned in paced([(i, 0) for i in range(math.ceil(count / frames))], rate / frames):
            sent, first, labels = self._ask()
            for index, mask in enumerate(labels):
                number = round_ * frames + index
                self.planned[number], self.sent[number] = planned, sent
                self.keep(round_, index, mask, first)

    def _ask(self) -> tuple[float, float, np.ndarray]:
        """When the last byte was sent, when the first one came back, and the labels (t, s, h, w)."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._patience)
        try:
            connection.connect()
        except OSError as error:
            raise no_server(self._host, self._port, error) from error
        try:
            connection.request("POST", "/masks", self._body, {"Authorization": f"Bearer {self._token}"} if self._token else {})
            sent = time.perf_counter()
            answer = connection.getresponse()
            first, content = time.perf_counter(), answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise ended(str(error) or type(error).__name__) from error
        finally:
            connection.close()
        if answer.status != http.client.OK:
            raise ended(f"it answers {answer.status}: {_said(content)}")
        try:
            labels = np.asarray(nibabel.Nifti1Image.from_bytes(gzip.decompress(content)).dataobj).T.reshape(self.labels.shape)
        except (OSError, EOFError, zlib.error, ImageFileError, ValueError) as error:
            raise ended(f"it sent no masks of this cine ({type(error).__name__})") from error
        return sent, first, labels


def _said(content: bytes) -> str:
    try:
        return json.loads(content)["error"]
    except (ValueError, KeyError, TypeError):
        return content[:200].decode(errors="replace")
