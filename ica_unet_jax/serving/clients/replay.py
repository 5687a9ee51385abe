"""Plays a NIfTI cine to a server, which can be started for it alone, and says what came of it."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ica_unet_jax.data import saving
from ica_unet_jax.data.case import Cine
from ica_unet_jax.errors import UserError
from ica_unet_jax.inference import turning
from ica_unet_jax.runs import provenance
from ica_unet_jax.runtime.files import check_place, write_json
from ica_unet_jax.serving.clients.client import PATIENCE, Client
from ica_unet_jax.streaming.tally import percentiles

LISTENING = re.compile(r"listens on (\S+):(\d+)")  # what `serve` says


def replay(
    source: str | Path,
    host: str,
    port: int,
    *,
    protocol: str = "mrd",
    rate: float = 22.0,
    seconds: float = 0.0,
    output: str | Path = "",
    json_file: str | Path = "",
    patience: float = PATIENCE,
    token: str = "",
) -> dict[str, Any]:
    """Plays a NIfTI cine against a server, and returns what came of it.

    Args:
      source: 3D or 4D NIfTI file.
      protocol: what the server speaks: mrd, openigtlink or http.
      rate: frames a second; 0: as fast as the server takes them.
      seconds: for so long, from the start again when it is used up; 0: once.
      output: the masks go there, if named.
      json_file: the counts and latencies go there, if named.
      patience: seconds for an answer, and for the server to take what is sent.
      token: what an HTTP server asks for.

    Raises:
      UserError: no readable file, no server, a place that cannot be written or is the source, or the server ended the session.
    """
    for name, file in (("output", output), ("json", json_file)):
        if file and Path(file).resolve() == Path(source).resolve():
            raise UserError(f"--{name}={file} is the file that is played: choose another place.")
        if file:
            check_place(file)
    cine = turning.read(Path(source))
    client = _client(protocol, host, port, cine, Path(source), max(patience, 2 / rate if rate else 0.0), token)
    client.play(max(1, round(seconds * rate)) if seconds and rate else len(cine.frames), rate)
    waits = [1e3 * (client.masked[number] - client.sent[number]) for number in client.sent if number in client.masked]
    summary = {
        "protocol": protocol,
        "frames": len(client.sent),
        "answered": len(waits),
        "compared": len(client.compared),
        "unlike": sorted(client.unlike),
        "without_mask": [time + 1 for time in range(len(cine.frames)) if time not in client.masked],
        "sent_to_mask_ms": percentiles(waits),
        "rate": rate,
        "seconds": seconds,
        "late_ms": percentiles([1e3 * (client.sent[number] - client.planned[number]) for number in client.sent]),
        "elapsed_s": round(max(client.masked.values()) - min(client.sent.values()), 3) if waits else None,
        "input": str(source),
        "shape": list(cine.frames.shape[1:]),
        "told": client.told,
        "provenance": provenance.this_process(),
    }
    if output:
        saving.save_labels(Path(output), client.labels, cine.header)
    if json_file:
        write_json(json_file, summary)
    return summary


def _client(protocol: str, host: str, port: int, cine: Cine, source: Path, patience: float, token: str) -> Client:
    if protocol == "http":
        from ica_unet_jax.serving.clients.web import Http

        return Http(host, port, cine, source, patience, token)
    if protocol == "openigtlink":
        from ica_unet_jax.serving.clients.openigtlink import OpenIGTLink

        return OpenIGTLink(host, port, cine, patience)
    from ica_unet_jax.serving.clients.mrd import Mrd

    return Mrd(host, port, cine, patience)


def describe(summary: dict[str, Any]) -> str:
    """What came of it, in two lines, and what the server had to say."""
    times = "  ".join(f"{key} " + ("–" if v is None else f"{v:.1f}") for key, v in summary["sent_to_mask_ms"].items())
    lines = [f"{summary['frames']} frames sent, {summary['answered']} answered", f"last bytes of a frame sent to first byte of its mask (ms) {times}"]
    if unlike := len(summary["unlike"]):
        lines.append(f"{unlike} of {summary['compared']} masks are other ones than an earlier one of the same frame of the file")
    if without := summary["without_mask"]:
        lines.append(f"{len(without)} frames of the file have no mask, as they were not played, refused or dropped: {', '.join(map(str, without))}")
    return "\n".join(lines + summary["told"])


@contextlib.contextmanager
def own_server(arguments: Sequence[str]) -> Iterator[int]:
    """The port of a server in a process of its own, started with these flags of `serve`, for the block. Raises UserError."""
    command = [sys.executable, "-m", "ica_unet_jax.serve", *arguments, "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            for line in process.stdout:
                if found := LISTENING.search(line):
                    break
                print(line, end="", flush=True)  # where its page is
            else:
                raise UserError("the server did not start: what it said stands above.")
            yield int(found[2])
        finally:
            process.terminate()
