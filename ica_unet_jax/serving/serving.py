"""Starts the server of a protocol for a trained network, and waits until it is told to end."""

from __future__ import annotations

import functools
import threading
from pathlib import Path
from typing import Any

from ica_unet_jax.runs.trained import Trained
from ica_unet_jax.runtime.listening import is_local, listening, make_token
from ica_unet_jax.serving import engine
from ica_unet_jax.serving.server import Server
from ica_unet_jax.streaming.session import Show


def serve(
    network: str | Path | Trained,
    *,
    protocol: str,
    bind: str,
    port: int,
    token: str = "",
    slices: int | None = None,
    reorder: int = 2,
    queue: int = 0,
    waiting: int = 8,
    patience: float = 60.0,
    limit: int = 2**28,
    like: str | Path = "",
    show: Show = lambda tally, answers, spacing: None,
    **given: Any,
) -> None:
    """Serves a trained network until a signal ends it.

    Args:
      network: as `trained.find` finds it.
      protocol: mrd, openigtlink or http.
      bind, port: where to listen; port 0 takes a free one.
      token: what HTTP requests must show.
      slices, reorder: see `Assembler`.
      queue: see `Session`.
      waiting: HTTP requests that may wait.
      patience, limit: seconds and bytes, see `Wire`.
      like: a NIfTI file as the images that will come, for whose size all is made ready before it says that it listens.
      show: of mrd and openigtlink, see `Session`.
      given: options of `options.STREAM`; `runtime` is auto unless given.

    Raises:
      UserError: no such network, or an address that cannot be listened on.
    """
    listener = listening(bind, port)
    if protocol == "http":
        from ica_unet_jax.serving import web

        if not token and not is_local(listener):
            token = make_token()
            print(f"token: {token}", flush=True)

        server = web.server(listener, network, token=token, waiting=waiting, patience=patience, limit=limit, like=like, **given)
    else:
        if protocol == "mrd":
            from ica_unet_jax.serving import mrd

            talk, refusal = functools.partial(mrd.Talk, slices=slices, reorder=reorder), mrd.refusal
        else:
            from ica_unet_jax.serving import openigtlink

            talk, refusal = functools.partial(openigtlink.Talk, slices=slices), openigtlink.refusal
        stream = engine.load(network, **given)
        if like:
            stream.ready_for(Path(like))
        server = Server(listener, talk, refusal, stream, queue=queue, patience=patience, limit=limit, show=show)
    thread = threading.Thread(target=server.run, name="server", daemon=True)
    thread.start()
    print(f"{protocol} listens on {bind}:{listener.getsockname()[1]}", flush=True)
    thread.join()
