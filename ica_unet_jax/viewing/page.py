"""The page on which a stream is looked at: its files, and a WebSocket over which it asks for one view after the other.

A page asks for the next view when it has drawn the last one. So one that is slow, or pauses, skips frames, and nothing is kept for it.
"""

from __future__ import annotations

import asyncio
import hmac
import socket
import threading
from pathlib import Path

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from ica_unet_jax.runtime.http_server import Server
from ica_unet_jax.runtime.listening import is_local, listening, make_token
from ica_unet_jax.viewing.feed import Feed

FOLDER = Path(__file__).parent / "page"
KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; media-src blob:; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
FASTEST = 1 / 40  # s from one view to the next
PATIENCE = 10.0  # s in which the first message has to come
PULSE = 1.0  # s after which a page hears something in any case
MOST = 16  # pages at once
WRONG_TOKEN, TOO_MANY, NO_TEXT = 4401, 4503, 1003  # why a socket is closed


class Page:
    """`with Page(...) as page`: others may look at what is given to `page.feed.show`.

    Args:
      bind, port: where to listen; port 0 takes a free one.
      token: what a page must show; made where others than this machine can reach it and none is given.

    Raises:
      UserError: an address that cannot be listened on.
    """

    def __init__(self, bind: str = "127.0.0.1", port: int = 0, token: str = ""):
        self.feed, self.viewers = Feed(), 0
        self._listener = listening(bind, port, "--view_bind or --view_port")
        self._local = is_local(self._listener)
        self.port = self._listener.getsockname()[1]
        self.token = token or ("" if self._local else make_token())
        files = [Route(f"/{file.name}", _file, methods=["GET"]) for file in FOLDER.iterdir() if file.suffix in KINDS]
        application = Starlette(routes=[Route("/", _file, methods=["GET"]), *files, WebSocketRoute("/views", self._views)])
        self._server = Server(self._listener, application, 60.0, websockets=True)
        self._thread = threading.Thread(target=self._server.run, name="page", daemon=True)

    @property
    def address(self) -> str:
        """For a browser; with the token behind a #, which browsers keep to themselves."""
        bound = self._listener.getsockname()[0]
        host = socket.gethostname() if bound in ("0.0.0.0", "::") else f"[{bound}]" if ":" in bound else bound
        return f"http://{host}:{self.port}/" + (f"#{self.token}" if self.token else "")

    def __enter__(self) -> Page:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.feed.end()
        self._server.stop()
        self._thread.join()

    async def _views(self, web: WebSocket) -> None:
        await web.accept()
        counted = False
        try:
            async with asyncio.timeout(PATIENCE):
                shown = await web.receive_text()
            if not self._trusts(web.headers, shown):
                return await web.close(WRONG_TOKEN)
            if self.viewers >= MOST:
                return await web.close(TOO_MANY)
            self.viewers, counted = self.viewers + 1, True
            await self._talk(web)
        except KeyError:  # bytes came
            await web.close(NO_TEXT)
        except TimeoutError:
            await web.close(WRONG_TOKEN)
        except WebSocketDisconnect:
            pass
        finally:
            self.viewers -= counted

    async def _talk(self, web: WebSocket) -> None:
        """A view for each message."""
        seen = 0
        while not self.feed.ended:
            view = await self.feed.after(seen, PULSE)
            seen = view.seen
            await web.send_json(view.figures | {"viewers": self.viewers})
            if view.planes:
                await web.send_bytes(view.planes)
            await asyncio.sleep(FASTEST)
            await web.receive_text()
        await web.close()

    def _trusts(self, headers: Headers, shown: str) -> bool:
        """Without a token, whether the page is ours: any other one in the same browser could ask as well, under whatever name."""
        if self.token:
            return hmac.compare_digest(shown.encode(), self.token.encode())
        host = headers.get("host", "")
        ours = ("localhost", "127.0.0.1", "[::1]", self._listener.getsockname()[0])
        return host.rsplit(":", 1)[0] in ours and headers.get("origin") in (None, f"http://{host}")


async def _file(request: Request) -> Response:
    name = request.url.path.strip("/") or "index.html"
    return Response((FOLDER / name).read_bytes(), media_type=KINDS[Path(name).suffix], headers=HEADERS)
