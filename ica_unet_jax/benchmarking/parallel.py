"""Do m streams in parallel take less time than m streams one after the other? The U-Net over the coefficients alone, in its forms."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ica_unet_jax.benchmarking.timing import Timing, laps
from ica_unet_jax.benchmarking.values import with_norms
from ica_unet_jax.benchmarking.work import dense_twin
from ica_unet_jax.config import ModelConfig
from ica_unet_jax.models.backbone import Backbone
from ica_unet_jax.portable import runtimes
from ica_unet_jax.portable.runtimes import JAX
from ica_unet_jax.runs import provenance
from ica_unet_jax.runtime import compilation
from ica_unet_jax.runtime.files import write_json
from ica_unet_jax.runtime.progress import Progress

MAPPED, IN_TURN, GROUPED, DENSE = "mapped", "one after the other", "grouped convolutions", "dense, equal work"
ROUNDS = 5

Call = Callable[[], Any]


def parallel(config: ModelConfig, streams: Sequence[int], *, seconds: float = 3.0, json_file: str | Path = "") -> dict[str, Any]:
    """Times the forms on one core and on all that the process may use, each in a process of its own; the JSON-safe result.

    Args:
      config: of ICA-UNet; its grid, blocks and widths are taken, its bases are as many as `streams` says.
      seconds: for each form at each number of streams.
      json_file: where the result goes too.
    """
    cores = sorted({1, compilation.threads()})
    result = {"machine": provenance.this_process(), "model": dataclasses.asdict(config), "seconds": seconds, "cores": {}}
    for count in cores:
        with tempfile.TemporaryDirectory() as folder:
            asked, answer = Path(folder) / "asked.json", Path(folder) / "answer.json"
            write_json(asked, {"config": dataclasses.asdict(config), "seconds": seconds, "streams": list(streams), "cores": count})
            subprocess.run([sys.executable, "-m", __name__, str(asked), str(answer)], check=True)
            result["cores"][str(count)] = json.loads(answer.read_text(encoding="utf-8"))
    result = json.loads(json.dumps(result))
    if json_file:
        write_json(json_file, result)
    return result


def time_forms(config: ModelConfig, seconds: float, streams: Sequence[int]) -> dict[str, dict[str, Any]]:
    """{m: {form: `Timing`}}, the forms of an m in turn."""
    compilation.keep_on_disk()
    found: dict[str, dict[str, Any]] = {}
    with Progress(len(streams), unit="number of streams") as progress:
        for done, count in enumerate(streams, start=1):
            calls, rounds = forms(dataclasses.replace(config, streams="independent", bases=count)), defaultdict(list)
            for _ in range(ROUNDS):
                for name, call in calls.items():
                    rounds[name].append(laps(call, seconds / ROUNDS, least=1))
            found[str(count)] = {name: dataclasses.asdict(Timing.of(*times)) for name, times in rounds.items()}
            progress.update(done)
    return found


def forms(config: ModelConfig) -> dict[str, Call]:
    """Each form of the U-Net, as a call on made-up coefficients; those of independent streams give the same values.

    Raises ValueError where one does not.
    """
    d, h, w = config.crop
    rng = np.random.default_rng(0)
    coefficients = rng.standard_normal((1, d // 2, h // 4, w // 4, config.bases), np.float32)
    blocks = config.contracting_blocks
    shapes = {k: ((2 * config.correlation_radius + 1) ** 2, 1, d // 2, h >> (blocks - k + 2), w >> (blocks - k + 2)) for k in range(1, blocks + 1)}
    correlations = {k: jnp.asarray(rng.standard_normal(shape, np.float32)) for k, shape in shapes.items()}

    twin = dataclasses.replace(config, **dense_twin(config))
    known = {
        network: jax.jit(lambda key, network=network: with_norms(Backbone(network).init(key, jnp.asarray(coefficients), correlations, method=_finest), key))(jax.random.key(0))
        for network in (config, twin)
    }

    def unet(network: ModelConfig, a: jax.Array) -> jax.Array:
        return Backbone(network).apply(known[network], a, correlations, method=_finest)

    def in_turn(a: jax.Array) -> jax.Array:
        single = dataclasses.replace(config, bases=1)
        each = jax.tree.map(lambda x: x[:, None], known[config])
        results = jax.lax.map(
            lambda x: Backbone(single).apply(x[0], x[1], correlations, method=_finest), (each, jnp.moveaxis(a, -1, 0)[..., None])
        )
        return jnp.moveaxis(results[..., 0], 0, -1)

    calls = {MAPPED: _in_jax(lambda a: unet(config, a), coefficients), IN_TURN: _in_jax(in_turn, coefficients)}
    with compilation.plain():
        calls[GROUPED] = _in_jax(lambda a: unet(config, a), coefficients)
    calls[DENSE] = _in_jax(lambda a: unet(twin, a), coefficients)
    for runtime in runtimes.at_hand():
        if runtime != JAX:
            calls[f"{GROUPED}, {runtime}"] = _elsewhere(lambda a: unet(config, a), coefficients, runtime)
            calls[f"{DENSE}, {runtime}"] = _elsewhere(lambda a: unet(twin, a), coefficients, runtime)
    expected = np.asarray(calls[MAPPED]())
    for name, call in calls.items():
        if not name.startswith(DENSE) and not np.allclose(call(), expected, atol=1e-3 * np.abs(expected).max()):
            raise ValueError(f"The form {name!r} gives other values than {MAPPED!r}.")
    return calls


def _finest(unet: Backbone, coefficients: jax.Array, correlations: dict[int, jax.Array]) -> jax.Array:
    """A_n -> A'_{c,n}, (B, d/2, h/4, w/4, m), of a stream's frame."""
    return unet.expanding_path(unet.contracting_path(coefficients, False), correlations, False)[-1]


def _in_jax(function: Callable[[jax.Array], jax.Array], a: np.ndarray) -> Call:
    there = jnp.asarray(a)
    compiled = jax.jit(function).lower(there).compile(compilation.one_window_options())
    return lambda: jax.block_until_ready(compiled(there))


def _elsewhere(function: Callable[[jax.Array], jax.Array], a: np.ndarray, runtime: str) -> Call:
    from ica_unet_jax.portable import network  # needs onnx

    run = runtimes.compiled(network.one(function, jax.ShapeDtypeStruct(a.shape, a.dtype)).SerializeToString(), runtime)
    return lambda: run({"image0": a})[0]


def table(result: dict[str, Any]) -> tuple[tuple[str, ...], list[list[str]]]:
    """(heads, rows): milliseconds of each form for each m, by cores."""
    counts = list(next(iter(result["cores"].values())))
    rows = [
        [form, cores, *(f"{found[count][form]['p50']:.3g}" for count in counts)]
        for cores, found in result["cores"].items()
        for form in found[counts[0]]
    ]
    return ("form", "cores", *(f"m = {count}" for count in counts)), rows


def panels(result: dict[str, Any]) -> dict[str, dict[str, dict[int, float]]]:
    """For `figures.parallel_streams`."""
    return {
        f"{cores} core{'s' * (cores != '1')}": {form: {int(count): forms[form]["p50"] for count, forms in found.items()} for form in next(iter(found.values()))}
        for cores, found in result["cores"].items()
    }


if __name__ == "__main__":
    asked = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: asked["cores"]])
    model = ModelConfig(**asked["config"] | {"crop": tuple(asked["config"]["crop"])})
    write_json(sys.argv[2], time_forms(model, asked["seconds"], asked["streams"]))
