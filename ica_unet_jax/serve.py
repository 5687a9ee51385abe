"""Segments what a scanner, a navigation screen or a program sends over a network, and plays a cine to such a server.

  python -m ica_unet_jax.serve --workdir=RUN --protocol=mrd --port=9002
  python -m ica_unet_jax.serve --replay=cine_4d.nii.gz --port=9002 --output=masks.nii.gz
  python -m ica_unet_jax.serve --workdir=RUN --replay=cine_4d.nii.gz --seconds=60 --json=latency.json
"""

from __future__ import annotations

from absl import flags

from ica_unet_jax import launcher
from ica_unet_jax.errors import UserError
from ica_unet_jax.inference import options
from ica_unet_jax.runtime import packages
from ica_unet_jax.viewing import flags as view

PORTS = {"mrd": 9002, "openigtlink": 18944, "http": 8000}
NEEDED = {"mrd": ("ismrmrd",), "openigtlink": ("pyigtl",), "http": ("starlette", "uvicorn")}  # packages

options.define_network()
_PROTOCOL = flags.DEFINE_enum("protocol", "mrd", list(PORTS), "MRD, as scanners and OpenRecon talk; OpenIGTLink, as 3D Slicer does; HTTP.")
_PORT = flags.DEFINE_integer(
    "port", None, f"By default {', '.join(f'{port} for {name}' for name, port in PORTS.items())}; 0: a free one.", lower_bound=0, upper_bound=65535
)
_BIND = flags.DEFINE_string("bind", "127.0.0.1", "Address to listen on, or with --replay to connect to; by default this machine alone.")
_SLICES = flags.DEFINE_integer("slices", None, "Slices of a frame; by default as the header says.", lower_bound=1, upper_bound=1024)
_REORDER = flags.DEFINE_integer("reorder", 2, "So many whole frames wait for an earlier one that lacks a slice.", lower_bound=0)
_QUEUE = flags.DEFINE_integer("queue", 0, "Frames that may wait; the oldest is dropped for one more. 0: none is, the sender waits.", lower_bound=0)
_WAITING = flags.DEFINE_integer("waiting", 8, "HTTP: requests that may wait; one more is told to come later.", lower_bound=0)
_PATIENCE = flags.DEFINE_float("patience", 60.0, "Seconds after which what stalls is closed.", lower_bound=0.1)
_LIMIT = flags.DEFINE_integer("limit_mb", 256, "Megabytes of the longest message or upload, and of what waits.", lower_bound=1, upper_bound=16384)
options.define(options.STREAM, **options.REAL_TIME)
view.define()
_LIKE = flags.DEFINE_string("like", "", "A NIfTI file as the images that will come, so that the first is not waited for.")
_REPLAY = flags.DEFINE_string(
    "replay", "", "NIfTI file to play to the server on --port; where a network is named, to one that is started for it alone."
)
_RATE = flags.DEFINE_float("rate", 22.0, "Replay: frames a second; 0: as fast as the server takes them.", lower_bound=0.0, upper_bound=1000.0)
_SECONDS = flags.DEFINE_float("seconds", 0.0, "Replay: for so long, from the start again; 0: once.", lower_bound=0.0)
_OUTPUT = flags.DEFINE_string("output", "", "Replay: file for the masks.")
_OPENRECON = flags.DEFINE_string("openrecon", "", "Instead of serving: folder for a Dockerfile and OpenReconLabel.json of the network.")
_JSON = flags.DEFINE_string("json", "", "Replay: file for the counts and latencies.")


_PLAYED, _PLAYED_ALONE, _PLAYED_HTTP = "--replay", "--replay to a server of its own", "--replay with --protocol=http"
_SERVERS = [f"--protocol={name}" for name in PORTS]
_LIVE = ["--protocol=mrd", "--protocol=openigtlink"]
# What reads a flag, where not all do.
_READ_BY = {
    "token": ["--protocol=http", "--view", _PLAYED_HTTP],
    "view": _LIVE,
    "slices": _LIVE,
    "reorder": ["--protocol=mrd"],
    "queue": _LIVE,
    "waiting": ["--protocol=http"],
    "patience": [*_SERVERS, _PLAYED],
    "limit_mb": [*_SERVERS, _PLAYED_ALONE],
    **dict.fromkeys(("rate", "seconds", "output", "json"), [_PLAYED]),
}


def main() -> None:
    check()
    if _OPENRECON.value:
        from ica_unet_jax.serving import openrecon

        openrecon.write(_OPENRECON.value, options.network())
    elif _REPLAY.value:
        _replay()
    else:
        _serve()


def check() -> None:
    """Raises UserError for flags that what was asked for does not read: who gives --token must not believe that it is asked for."""
    given, server = flags.FLAGS, f"--protocol={_PROTOCOL.value}"
    if _OPENRECON.value:
        asked, reads = "--openrecon", {"--openrecon"}
    elif not _REPLAY.value:
        asked, reads = server, {server}
    elif given.workdir or given.weights:
        asked, reads = f"{_PLAYED_ALONE} with {server}", {_PLAYED, _PLAYED_ALONE, server}
    else:
        asked, reads = f"{_PLAYED} with {server}", {_PLAYED, f"{_PLAYED} with {server}"}
    reads |= {"--view"} if given.view else set()
    for name, readers in _READ_BY.items():
        if given[name].value != given[name].default and not reads.intersection(readers):
            raise UserError(f"--{name} would change nothing with {asked}: it is for {', '.join(readers)}. Leave it out.")
    if _SECONDS.value and not _RATE.value:
        raise UserError(f"--seconds={_SECONDS.value:g} would change nothing with --rate=0, which plays once: leave one of them out.")


def _replay() -> None:
    _require(_PROTOCOL.value)
    from ica_unet_jax.serving.clients import replay

    wanted = dict(
        protocol=_PROTOCOL.value,
        rate=_RATE.value,
        seconds=_SECONDS.value,
        output=_OUTPUT.value,
        json_file=_JSON.value,
        patience=_PATIENCE.value,
        token=flags.FLAGS.token if _PROTOCOL.value == "http" else "",
    )
    network = {name: flags.FLAGS[name].value for name in ("workdir", "weights")}
    if not any(network.values()):
        print(replay.describe(replay.replay(_REPLAY.value, _BIND.value, PORTS[_PROTOCOL.value] if _PORT.value is None else _PORT.value, **wanted)))
        return
    of_server = ("protocol", "queue", "waiting", "reorder", "slices", "patience", "limit_mb", "view", "view_port", "view_bind", "token")
    passed_on = {name: flags.FLAGS[name].value for name in of_server}
    given = {**network, "like": _REPLAY.value, **passed_on, **options.given(options.STREAM)}
    with replay.own_server([f"--{name}={value}" for name, value in given.items() if value not in (None, "")]) as port:
        print(replay.describe(replay.replay(_REPLAY.value, "127.0.0.1", port, **wanted)))


def _require(protocol: str) -> None:
    packages.require(f"--protocol={protocol}", "scanner", NEEDED[protocol])


def _serve() -> None:
    _require(_PROTOCOL.value)
    from ica_unet_jax.serving import serving

    with view.page() as show:
        serving.serve(
            options.network(),
            protocol=_PROTOCOL.value,
            bind=_BIND.value,
            port=PORTS[_PROTOCOL.value] if _PORT.value is None else _PORT.value,
            token=flags.FLAGS.token,
            slices=_SLICES.value,
            reorder=_REORDER.value,
            queue=_QUEUE.value,
            waiting=_WAITING.value,
            patience=_PATIENCE.value,
            limit=_LIMIT.value * 2**20,
            like=_LIKE.value,
            show=show,
            **options.given(options.STREAM),
        )


if __name__ == "__main__":
    launcher.run(main)
