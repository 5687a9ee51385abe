"""The HTTP service: a cine is sent, masks and measurements come back; nothing is kept.

Starlette and uvicorn do HTTP. What they leave open is bounded here: the size and time of a request, how many wait, and how long a
connection may do nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import io
import socket
import tempfile
import threading
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from ica_unet_jax.errors import UserError
from ica_unet_jax.runs.trained import Trained
from ica_unet_jax.runtime.http_server import Server
from ica_unet_jax.serving import openapi
from ica_unet_jax.serving.cines import MASKS, SUMMARY, VOLUMES, Cines, TooLarge, TooLong
from ica_unet_jax.serving.wire import log

EARLY = (401, 413, 415, 503)  # answers that need not wait for the upload
COURTESY = 2.0  # s in which a refused client may finish what it sends
FORMS = ("multipart/form-data",)
KINDS = {"/masks": (MASKS, "application/gzip"), "/volumes": (VOLUMES, "text/csv"), "/measurements": (SUMMARY, "application/json")}


class Refused(Exception):
    """An answer that is no success."""

    def __init__(self, code: int, text: str):
        super().__init__(text)
        self.code = code


class Service:
    """The application.

    Args:
      segment: writes what follows from a cine beside it, as `Cines` does.
      token: what requests must show; "" for none.
      waiting: requests that may wait while one is served.
      patience: seconds for the upload, for the wait, and for the work, each.
      limit: bytes of an upload.
    """

    def __init__(self, segment: Callable[[Path, float, Callable[[], bool]], None], token: str, waiting: int, patience: float, limit: int):
        self._segment, self._token, self._waiting, self._patience, self._limit = segment, token, waiting, patience, limit
        self._inside = 0
        self._turn = asyncio.Semaphore(1)

    def application(self) -> Starlette:
        posts = [Route(path, self._post, methods=["POST"]) for path in ("/segment", *KINDS)]
        return Starlette(
            routes=[
                *posts,
                Route("/health", lambda _: JSONResponse({"state": "ready"})),
                Route("/openapi.json", lambda _: JSONResponse(openapi.document())),
                Route("/", lambda _: HTMLResponse(openapi.page())),
            ]
        )

    async def _post(self, request: Request) -> Response:
        answer = await self._admitted(request)
        if answer.status_code in EARLY and not getattr(request.state, "taken", False):
            await _let_finish(request)
        return answer

    async def _admitted(self, request: Request) -> Response:
        if self._inside > self._waiting:
            return _refusal(503, "Too many requests wait: try again later.")
        self._inside += 1
        try:
            return await self._answer(request)
        except Refused as refused:
            log(f"a request was refused with {refused.code}")
            return _refusal(refused.code, str(refused))
        except ClientDisconnect:
            log("a client has gone before its answer")
            return Response(status_code=499)
        except Exception as error:  # ours: its text may hold what was sent
            log(f"a request failed, by a fault of this program ({type(error).__name__}):\n{''.join(traceback.format_tb(error.__traceback__))}")
            return _refusal(500, openapi.REFUSALS[500])
        finally:
            self._inside -= 1

    async def _answer(self, request: Request) -> Response:
        self._check(request)
        with tempfile.TemporaryDirectory(prefix="ica_unet_") as folder:
            path = Path(folder) / "cine.nii.gz"
            try:
                async with asyncio.timeout(self._patience):
                    await self._take(request, path)
            except TimeoutError:
                raise Refused(408, openapi.REFUSALS[408]) from None
            gone = threading.Event()
            watch = asyncio.create_task(_watch(request, gone))
            try:
                await self._work(path, gone)
            finally:
                watch.cancel()
            if gone.is_set():
                raise ClientDisconnect
            return _answer(Path(folder), request.url.path)

    def _check(self, request: Request) -> None:
        shown = request.headers.get("authorization", "").encode()
        if self._token and not hmac.compare_digest(shown, f"Bearer {self._token}".encode()):
            raise Refused(401, openapi.REFUSALS[401])
        if request.headers.get("content-type", "").startswith(FORMS):
            raise Refused(415, openapi.REFUSALS[415])
        length = request.headers.get("content-length", "0")
        if length.isdigit() and int(length) > self._limit:
            raise Refused(413, openapi.REFUSALS[413])

    async def _take(self, request: Request, path: Path) -> None:
        taken = 0
        with path.open("wb") as file:
            async for part in request.stream():
                taken += len(part)
                if taken > self._limit:
                    raise Refused(413, openapi.REFUSALS[413])
                file.write(part)
        request.state.taken = True

    async def _work(self, path: Path, gone: threading.Event) -> None:
        try:
            async with asyncio.timeout(self._patience):
                await self._turn.acquire()
        except TimeoutError:
            raise Refused(503, openapi.REFUSALS[503]) from None
        try:
            await asyncio.to_thread(self._segment, path, self._patience, gone.is_set)
        except TooLong:
            raise Refused(503, openapi.REFUSALS[503]) from None
        except UserError as error:
            code = 413 if isinstance(error, TooLarge) else 422
            raise Refused(code, str(error).replace(str(path), "The file")) from None
        finally:
            self._turn.release()


def _refusal(code: int, text: str) -> JSONResponse:
    headers = {"Connection": "close"} | ({"Retry-After": "5"} if code == 503 else {}) | ({"WWW-Authenticate": "Bearer"} if code == 401 else {})
    return JSONResponse({"error": text}, code, headers)


def _answer(folder: Path, asked: str) -> Response:
    if asked in KINDS:
        name, kind = KINDS[asked]
        return Response((folder / name).read_bytes(), media_type=kind, headers={"Connection": "close"})
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, _ in KINDS.values():
            archive.write(folder / name, name)
    return Response(packed.getvalue(), media_type="application/zip", headers={"Connection": "close"})


async def _let_finish(request: Request) -> None:
    """Passes by what a refused client still sends: many read their answer only then, and would lose it if the connection closed."""
    with contextlib.suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(COURTESY):
            async for _ in request.stream():
                pass


async def _watch(request: Request, gone: threading.Event) -> None:
    """Waits for the client to close it."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    gone.set()


def server(
    listener: socket.socket, network: str | Path | Trained, *, token: str, waiting: int, patience: float, limit: int, **given: Any
) -> Server:
    """The HTTP service of a trained network; see `Service` and `Cines`."""
    return Server(listener, Service(Cines(network, limit, **given), token, waiting, patience, limit).application(), patience)
