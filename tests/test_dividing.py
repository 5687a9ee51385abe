"""A frame divided among two devices gives what one device gives, each computing its own slices alone."""

import json
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import SMALL, tiny, variables, write_run

from ica_unet_jax import dividing, inference
from ica_unet_jax.compilation import Compilations, threads
from ica_unet_jax.config import Config
from ica_unet_jax.data.beating_heart import simulate
from ica_unet_jax.inference import Segmenter, segmenter_of
from ica_unet_jax.models.slabs import AXIS, own
from ica_unet_jax.streaming import StreamingSegmenter

SPACING = (10.0, 1.7, 1.4)
CINE = simulate(0, 0, (5, 56, 70), 4, SPACING).frames  # five slices: two windows of the model's four
FOUR = SMALL | dict(crop=(4, 64, 64))


def both(**changes):
    """The same network on one device and on two."""
    config = Config.make(**FOUR | changes)
    values = {"batch_stats": {}} | variables(config.model)
    return Segmenter(config, values), Segmenter(config, values, slabs=2)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        dict(neighbours="two_past", bases_from="frame_with_coordinates", norm="group"),
        dict(neighbours="past", bases_from="dictionary", streams="dense", mixing_scale=False, crop=(8, 64, 64)),
    ],
    ids=str,
)
def test_two_devices_give_the_logits_of_one(changes):
    one, two = both(**changes)
    reach = one.config.model.reach
    times = [tuple(min(t, len(CINE) - 1) for t in range(2 - reach, 3 + reach))]
    placement = one.place(CINE.shape[1:], SPACING)
    expected, found = (next(segmenter.logits(CINE, placement, times)) for segmenter in (one, two))
    inside = expected[np.broadcast_to(placement.inside, expected.shape[:3])]
    assert np.abs(inside).max() > 0.1  # something is compared
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(inside).max())


def test_each_device_works_on_its_own_slices_and_waits_at_the_mixing_alone(monkeypatch):
    compiled, compile_ = [], jax.stages.Lowered.compile
    monkeypatch.setattr(jax.stages.Lowered, "compile", lambda *args: compiled.append(compile_(*args)) or compiled[-1])
    _, two = both()
    _ = two._network
    encoder, decoder = (program.as_text() for program in compiled[-2:])
    assert re.findall(r" all-[a-z]+|collective-[a-z]+", encoder) == []
    assert re.findall(r" all-[a-z]+|collective-[a-z]+", decoder) == [" all-gather"] * 2  # bases, coefficients
    [features, _] = two.encode(two.place(CINE.shape[1:], SPACING), two.put(CINE[0]))
    for array, axis, size in [(features.bases, 1, 2), (features.valid, 1, 2), *((a, 3, 1) for a in features.pyramid)]:
        assert [shard.data.shape[axis] for shard in array.addressable_shards] == [size, size]


@pytest.mark.parametrize("neighbours", ["both", "past"])
def test_a_divided_stream_gives_the_offline_labels_and_compiles_nothing(neighbours):
    one, two = both(neighbours=neighbours)
    stream = StreamingSegmenter(two, CINE.shape[1:], SPACING)
    traces = two.traces
    with Compilations() as found:
        results = [stream.push(frame) for frame in CINE] + [stream.flush()]
    assert (found.count, two.traces) == (0, traces)
    labels = np.stack([result.labels for result in results if result])
    np.testing.assert_array_equal(labels, one.segment_cine(CINE, SPACING))


def test_other_values_are_used_from_then_on():
    one, two = both()
    before = two.segment_cine(CINE, SPACING)
    one.variables = two.variables = variables(one.config.model, seed=1)
    after = two.segment_cine(CINE, SPACING)
    np.testing.assert_array_equal(after, one.segment_cine(CINE, SPACING))
    assert (before != after).any()


@pytest.mark.parametrize(
    "changes, expected",
    [(dict(crop=(2, 64, 64)), 1), (dict(crop=(4, 64, 64)), 2), (dict(crop=(6, 64, 64)), 1), (dict(crop=(8, 64, 64)), 2)],
    ids=str,
)
def test_pairs_of_slices_are_divided_evenly(changes, expected):
    assert jax.local_device_count() == 2
    assert dividing.slabs(tiny(**changes)) == expected


def test_rivals_and_what_was_not_asked_for_stay_on_one_device():
    assert dividing.slabs(Config.make(model="unet2d", crop=(4, 64, 64)).model) == 1
    assert [segmenter_of(Config.make(**FOUR), divided=divided).slabs for divided in (False, True)] == [1, 2]
    assert segmenter_of(Config.make(model="msu_net", crop=(4, 64, 64)), divided=True).slabs == 1


@pytest.mark.parametrize("changes, slabs", [({}, 3), (dict(crop=(6, 64, 64)), 2), (dict(model="unet2d"), 2)], ids=str)
def test_what_cannot_be_divided_is_refused(changes, slabs):
    with pytest.raises(ValueError, match=f"cannot be divided into {slabs} on 2 devices"):
        Segmenter(Config.make(**FOUR | changes), slabs=slabs)


def test_a_slab_and_what_lies_behind_it():
    found = jax.vmap(lambda _: own(jnp.arange(14), 4, beyond=2), axis_name=AXIS, axis_size=3)(jnp.zeros(3))
    np.testing.assert_array_equal(found, [[0, 1, 2, 3, 4, 5], [4, 5, 6, 7, 8, 9], [8, 9, 10, 11, 12, 13]])


def test_a_gpu_is_not_divided(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert dividing.slabs(tiny(crop=(4, 64, 64))) == 1


def test_a_run_is_loaded_divided(tmp_path):
    config = Config.make(**FOUR, workdir=str(tmp_path / "run"), steps=2)
    write_run(config)
    assert [inference.load(config.train.workdir, divided=divided).slabs for divided in (False, True)] == [1, 2]


COUNT = """
import sys
from ica_unet_jax import dividing
if sys.argv[1] == "late":
    import jax.numpy as jnp
    jnp.zeros(3)
dividing.one_device_a_core()
import jax
print(jax.local_device_count())
"""


@pytest.mark.parametrize(
    "told, environment, expected",
    [
        ("", {}, str(min(dividing.MOST, threads()))),
        ("", {"JAX_NUM_CPU_DEVICES": "1"}, "1"),
        ("", {"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}, "3"),
        ("late", {}, "before anything is computed"),
    ],
    ids=str,
)
def test_cores_become_devices_unless_told_otherwise(told, environment, expected):
    clean = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")}
    command = [sys.executable, "-c", COUNT, told or "early"]
    done = subprocess.run(command, env=clean | {"JAX_PLATFORMS": "cpu"} | environment, capture_output=True, text=True)
    assert expected in (done.stdout or done.stderr.splitlines()[-1])


def test_launchers_divide(tmp_path):
    config = Config.make(**FOUR, workdir=str(tmp_path / "run"), steps=2)
    write_run(config)
    summary = tmp_path / "stream.json"
    arguments = [f"--workdir={config.train.workdir}", "--input=phantom", "--seconds=0.2", "--rate=10", f"--json={summary}"]
    clean = {name: value for name, value in os.environ.items() if name != "JAX_NUM_CPU_DEVICES"}
    subprocess.run([sys.executable, "-m", "ica_unet_jax.stream", *arguments], check=True, env=clean, capture_output=True)
    assert json.loads(summary.read_text())["slabs"] == min(2, threads())
