"""Where the time of a compiled call goes, by parts of the network, from JAX's own profiler."""

from __future__ import annotations

import dataclasses
import re
import tempfile
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax

from ica_unet_jax.config import ModelConfig
from ica_unet_jax.models.networks import build_model

CALLS = 3
OTHER = "other"  # what XLA names after nothing that the network knows
PRODUCTS = ("dot_general", "conv_general_dilated")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*)$", re.MULTILINE)
_OPERAND = re.compile(r"%([\w.\-]+)")


@dataclasses.dataclass(frozen=True)
class Part:
    """Milliseconds a call in a part of the network, the times of XLA's operations on all threads added."""

    name: str
    forward: float
    backward: float
    products: float  # of both, in matrix products and convolutions

    @property
    def total(self) -> float:
        return self.forward + self.backward


def profile(call: Callable[[], Any], config: ModelConfig, frames: int = 1) -> list[Part]:
    """Calls `CALLS` times and says where the time went, the dearest part first; a first call, which compiles, does not count.

    Args:
      call: what it returns is waited for.
      config: of the network that it calls.
      frames: of a call; the times are of one.

    The parts are the modules and methods of the network, and the `jax.named_scope`s of what is no module. What XLA fuses into
    one loop counts for the part that the loop is named after. A library that XLA calls for a product is timed on the thread that
    calls it. Work outside of XLA is not in it.
    """
    jax.block_until_ready(call())
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(CALLS):
                jax.block_until_ready(call())
        [file] = Path(folder).rglob("*.xplane.pb")
        names = _names()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of jaxlib's types, made on first use: where it is an error the process ends
            spans = [(names.get(key, ""), nanoseconds) for key, nanoseconds in _spans(jax.profiler.ProfileData.from_file(str(file)))]
    return parts(spans, type(build_model(config)).__name__, calls=CALLS * frames)


def parts(spans: Iterable[tuple[str, float]], network: str, calls: int = 1) -> list[Part]:
    """(name of an operation as XLA's metadata have it, nanoseconds) -> the parts, the dearest first."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for name, nanoseconds in spans:
        times = found[part_of(name, network)]
        times["backward" if "transpose(jvp" in name else "forward"] += nanoseconds
        times["products"] += nanoseconds * name.endswith(PRODUCTS)
    rows = [Part(name, *(1e-6 * times[kind] / calls for kind in ("forward", "backward", "products"))) for name, times in found.items()]
    return sorted(rows, key=lambda part: -part.total)


def part_of(name: str, network: str) -> str:
    """`jit(step)/jvp(Net)/Net.decode/decoders_0/Conv_0/conv_general_dilated` -> `decoders_0`, where Net is the network.

    The first module below the network, or its method where there is none; outside it the scope, or the compiled function.
    """
    function, *path, _ = name.split("/") if "/" in name else ("", "")
    scopes = [scope for step in path if "jit(" not in step and (scope := step.rpartition("(")[2].rstrip(")"))]
    inside = [scope for scope in scopes if scope != network]
    modules = [scope for scope in inside if not scope.startswith(f"{network}.")]
    if modules:
        return modules[0]
    if inside:
        return inside[-1].partition(".")[2]
    return network if scopes else function.removeprefix("jit(").rstrip(")") or OTHER


def _spans(data: Any) -> Iterator[tuple[tuple[str, str], float]]:
    """((module, operation), nanoseconds in it but in no operation inside it), over all of XLA's threads."""
    for plane in data.planes:
        for line in plane.lines:
            if not line.name.startswith("tf_XLA"):
                continue
            open_: list[list[Any]] = []  # [end, key, own time], the innermost last
            events = [(event.start_ns, -event.duration_ns, dict(event.stats)) for event in line.events]
            for start, minus, stats in sorted((e for e in events if "hlo_op" in e[2]), key=lambda e: e[:2]):
                while open_ and open_[-1][0] <= start:
                    yield tuple(open_.pop()[1:])
                if open_:
                    open_[-1][2] += minus
                open_.append([start - minus, (stats["hlo_module"], stats["hlo_op"]), -minus])
            yield from (tuple(event[1:]) for event in open_)


def _names() -> dict[tuple[str, str], str]:
    """{(module, instruction): name of the operation that it was made for}, of all that is compiled in this process."""
    found = {}
    for executable in jax.devices()[0].client.live_executables():
        for module in executable.hlo_modules():
            instructions = _INSTRUCTION.findall(module.to_string())
            named = {name: match[1] for name, text in instructions if (match := re.search(r'op_name="([^"]*)"', text))}
            # XLA's own rewritings have no name: that of what reads them, or of what they read.
            for name, text in instructions:
                for operand in _OPERAND.findall(text.partition("metadata=")[0]):
                    if name in named:
                        named.setdefault(operand, named[name])
            for name, text in instructions:
                if name not in named:
                    read = (named[operand] for operand in _OPERAND.findall(text) if operand in named)
                    named[name] = next(read, "")
            found |= {(module.name, name): given for name, given in named.items()}
    return found
