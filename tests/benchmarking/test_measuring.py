"""What a benchmark reports; never how long anything takes."""

import dataclasses
import itertools
import json
import shutil

import numpy as np
import pytest
from snippets import SMALL as MSU_NET
from tiny import SMALL

from ica_unet_jax.benchmarking import measuring, report, work
from ica_unet_jax.benchmarking import rows as rows_module
from ica_unet_jax.benchmarking.measuring import arrival_to_mask, time_answers
from ica_unet_jax.benchmarking.rows import Row, choose, paper_rows, run_rows, under
from ica_unet_jax.benchmarking.timing import LEAST, Ceilings
from ica_unet_jax.config import Config
from ica_unet_jax.errors import UserError
from ica_unet_jax.models.registry import NETWORKS
from ica_unet_jax.runs import provenance
from ica_unet_jax.streaming.segmenter import StreamingSegmenter

BEST = Ceilings(float32=1e11, bfloat16=4e11, copy=1e10)


def test_the_papers_rows():
    rows = {row.name: row for row in paper_rows()}
    assert len(rows) == len(paper_rows())
    for grid, n, streams, kind in itertools.product(("roi", "full"), (3, 4), ("independent", "dense", "shared"), ("past", "both")):
        row = rows[f"{grid}/n{n}/{streams}/{kind}"]
        model = row.config.model
        assert (model.contracting_blocks, model.streams, model.neighbours) == (n, streams, kind)
        assert row.frame == model.crop == {"roi": (8, 128, 128), "full": (10, 256, 256)}[grid]
        for rival in ("unet2d", "unet3d", "ensemble_unet", "grid_net", "omega_net", "msu_net_span2", "msu_net_span10"):
            assert rival.startswith(rows[f"{grid}/{rival}"].config.model.model)
    assert rows["roi/msu_net_span10"].config.model.span == 10
    rivals = [row.config.model.model for row in rows.values() if row.frame is None and row.config.model.model != "ica_unet"]
    assert sorted(rivals) == sorted({*NETWORKS} - {"ica_unet"})  # a training step of each
    window = rows["window/n4/independent/past"]
    assert window.frame == (10, 256, 256) and window.config.model.crop == (8, 128, 128)
    training = rows["train/n3/independent"]
    assert training.frame is None and training.config.model.crop == (8, 96, 96) and training.config.train.batch_size == 4


def test_rows_are_chosen_by_parts_of_their_names():
    rows = paper_rows()
    assert choose(rows, []) == rows
    assert [row.name for row in choose(rows, ["roi/n4/shared", "train/unet2d"])] == [
        "roi/n4/shared/past", "roi/n4/shared/both", "train/unet2d"
    ]  # fmt: skip
    with pytest.raises(UserError, match="--only=n7 fits no row: give parts of roi/n4/independent/past, "):
        choose(rows, ["train", "n7"])


def test_streams_run_under_each_runtime_that_can(monkeypatch):
    monkeypatch.setattr(rows_module.runtimes, "at_hand", lambda: ["jax", "openvino"])
    monkeypatch.setattr(rows_module.runtimes, "choose", lambda name, dtype: name)
    rows = under(choose(paper_rows(), ["roi/n4/dense/past", "roi/msu_net_span3", "train/unet2d"]), [], ["float32", "bfloat16"])
    names = [row.name for row in rows]
    assert names == [
        "roi/n4/dense/past", "roi/n4/dense/past@bfloat16", "roi/n4/dense/past@openvino", "roi/n4/dense/past@openvino@bfloat16",
        "roi/msu_net_span3", "roi/msu_net_span3@bfloat16", "train/unet2d", "train/unet2d@bfloat16",
    ]  # fmt: skip
    assert [row.runtime for row in rows[:4]] == ["jax", "jax", "openvino", "openvino"]
    assert [row.config.model.compute_dtype for row in rows[:4]] == ["float32", "bfloat16"] * 2


def test_a_runtime_that_can_do_none_of_it_is_told(monkeypatch):
    def choose_none(name, dtype):
        raise UserError(f"no {name} in {dtype}")

    monkeypatch.setattr(rows_module.runtimes, "choose", choose_none)
    with pytest.raises(UserError, match="no openvino in bfloat16"):
        under(paper_rows(), ["openvino"], ["bfloat16"])


def test_the_rows_of_a_group_take_turns(monkeypatch):
    turns = []

    class Timed:
        def __init__(self, row):
            self.row = row
            turns.append(("begin", row.name))

        def round(self, seconds):
            turns.append((seconds, self.row.name))

        def described(self, best, profiled):
            return {}

    monkeypatch.setattr(measuring, "Streamed", Timed)
    config = Config.make(**SMALL)
    rows = [Row(name, config, config.model.crop) for name in ("roi/a", "full/c", "roi/b")]
    measuring.benchmark(rows, seconds=3.0, best=BEST, rounds=2)
    roi = [("begin", "roi/a"), ("begin", "roi/b"), *[(1.5, "roi/a"), (1.5, "roi/b")] * 2]
    assert turns == [*roi, ("begin", "full/c"), *[(1.5, "full/c")] * 2]


def test_ratios_are_of_the_same_round():
    streams = {"a": [2.0, 4.0, 8.0], "a@openvino": [1.0, 1.0, 6.0], "b@openvino": [1.0, 1.0, 1.0]}
    streams = {name: {"frame_ms": {"p50": float(np.median(rounds)), "rounds": rounds}} for name, rounds in streams.items()}
    assert report.ratios(streams) == [["a", "openvino", "1", "0.50 (0.25, 0.75)"]]


@pytest.mark.slow
@pytest.mark.skipif("openvino" not in rows_module.runtimes.at_hand(), reason="needs openvino")
def test_another_runtime_is_timed_by_kinds_of_nodes():
    config = Config.make(**SMALL)
    rows = [Row(f"both@{name}", config, config.model.crop, runtime=name) for name in ("openvino", "onnxruntime")]
    found = measuring.benchmark(rows, seconds=0.0, best=BEST, rounds=1, profiled=True)["rows"]
    for name, row in found.items():
        kinds = {part["kind"] for part in row["profile"] if part["ms"] > 0}
        assert row["runtime"] in name and kinds & {"Conv", "Convolution", "FusedConv"} and {"encode", "decode"} == {part["part"] for part in row["profile"]}
    assert "**both@openvino: milliseconds by kind of node**" in report.report({"machine": provenance.this_process(), "ceilings": dataclasses.asdict(BEST), "rows": found})


def test_arrival_to_mask_waits_for_later_frames_and_says_nothing_of_what_cannot_keep_up():
    assert arrival_to_mask(20, 20, 22, waits=0) == 20
    assert arrival_to_mask(20, 20, 22, waits=1) == pytest.approx(20 + 1000 / 22)
    assert arrival_to_mask(39, 39, 30, waits=1) is None  # a frame comes every 33 ms
    assert arrival_to_mask(39, 39, 22, waits=1) == pytest.approx(39 + 1000 / 22)
    assert arrival_to_mask(100, 20, 30, waits=0) == 100  # one that was slow
    # MSU-Net as the paper counts: span - 1 frames at 30 FPS, and span frames at its throughput.
    for span, fps, latency in ((2, 21.7, 125), (3, 29.4, 169), (5, 43.2, 249), (10, 70.2, 442)):
        wait = (span - 1) * 1e3 / 30
        assert wait + span * 1e3 / fps == pytest.approx(latency, abs=1)
        kept = arrival_to_mask(span * 1e3 / fps, 1e3 / fps, 30, waits=Config.make(model="msu_net", span=span).model.waits)
        assert kept is None if fps < 30 else kept == pytest.approx(latency, abs=1)


def test_a_snippet_is_timed_from_answer_to_answer():
    """A stream that answers every third frame: two quick calls, then a slow one."""

    class Stream(StreamingSegmenter):
        def __init__(self):
            self.count = 0

        def push(self, frame, time_stamp=None, number=None):
            self.count += 1
            now[0] += 0.5 if self.count % 3 == 0 else 0.1

    now = [0.0]
    frame, answering = time_answers(Stream(), itertools.repeat(None), 3, 0.0, clock=lambda: now[0])
    assert frame == pytest.approx([700 / 3] * LEAST) and answering == pytest.approx([500] * LEAST)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """Of small networks: a stream that waits, one whose frames are larger than its window, a U-Net, a training step."""
    tiny, unet = Config.make(**SMALL), Config.make(model="unet2d", crop=(2, 64, 64), unet_width=2)
    rows = [
        Row("both", tiny, tiny.model.crop),
        Row("window", tiny.replace(neighbours="past"), (3, 80, 90)),
        Row("unet2d", unet, unet.model.crop),
        Row("train", unet.replace(batch_size=2, steps=10)),
    ]
    path = tmp_path_factory.mktemp("benchmark") / "out" / "benchmark.json"
    found = measuring.benchmark(rows, seconds=0.0, json_file=path, best=BEST, rounds=2)
    assert json.loads(path.read_text()) == found
    return found


def test_each_row_stands_against_the_ceilings(result):
    assert result["ceilings"] == dataclasses.asdict(BEST) and result["machine"]["cores"] > 0
    rows = result["rows"]
    for row in rows.values():
        time = row.get("frame_ms", row.get("step_ms"))["p50"]
        assert row["floor_ms"] == pytest.approx(max(row["gflop"] * 1e12 / 1e11, row["mbyte"] * 1e9 / 1e10))
        assert row["times_floor"] == pytest.approx(time / row["floor_ms"])
        assert row["share_of_matmul"] == pytest.approx(row["gflop"] * 1e9 / (time / 1e3) / 1e11)
        assert row["share_of_copy"] == pytest.approx(row["mbyte"] * 1e6 / (time / 1e3) / 1e10)
    config = Config.make(**SMALL).model
    assert rows["both"]["parameters"] == work.parameters(config)
    assert rows["both"]["gflop"] == pytest.approx(work.total(work.streamed(config)).flops / 1e9)
    one = work.total(work.streamed(dataclasses.replace(config, neighbours="past"))).flops
    assert (rows["window"]["windows"], rows["window"]["gflop"]) == (2, pytest.approx(2 * one / 1e9))  # two depth windows
    unet = work.total(work.training_sample(Config.make(model="unet2d", crop=(2, 64, 64), unet_width=2).model)).flops
    assert rows["train"]["gflop"] == pytest.approx(2 * unet / 1e9)  # a batch of two


def test_a_stream_has_two_latencies(result):
    rows = result["rows"]
    for name in ("both", "window", "unet2d"):
        row = rows[name]
        assert set(row["arrival_to_mask_ms"]) == {"22", "30"}
        for figure in ("encode_ms", "decode_ms", "frame_ms", "compute_ms"):
            assert len(row[figure]["rounds"]) == 2 and row[figure]["calls"] >= 2
            assert row[figure]["p50"] == pytest.approx(np.median(row[figure]["rounds"]))
        assert row["waits"] == (name == "both")
        assert_arrivals(row)


def assert_arrivals(row):
    """Wait and compute, or nothing."""
    for rate, found in row["arrival_to_mask_ms"].items():
        assert found["p50"] is None or found["p50"] == pytest.approx(row["compute_ms"]["p50"] + row["waits"] * 1000 / int(rate))


@pytest.mark.slow
def test_snippets_are_timed_as_frames_are():
    config = Config.make(**MSU_NET)  # of three frames
    row = measuring.benchmark([Row("snippets", config, config.model.crop)], seconds=0.0, best=BEST, rounds=1)["rows"]["snippets"]
    assert row["waits"] == 2
    assert_arrivals(row)
    assert row["gflop"] == pytest.approx(work.total(work.triple(config.model)).flops / 3e9, rel=1e-3)  # of one frame
    assert row["frames_per_second"] == pytest.approx(1e3 / row["frame_ms"]["mean"])


def test_the_report_shows_every_row(result):
    text = report.report(result)
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert [sum(line.startswith(f"| {name} |") for line in lines) for name in result["rows"]] == [2, 2, 2, 1]
    assert "2x64x64 (3x80x90)" in text and "100 GFLOP/s in float32, 400 in bfloat16" in text
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("| ")]
    assert len(tables) == 3 and all(len({line.count("|") for line in block}) == 1 for block in tables)


def test_what_cannot_keep_up_has_no_number(result):
    row = dict(result["rows"]["both"], arrival_to_mask_ms={"22": dict.fromkeys(("p50", "p95", "p99"))})
    text = report.report(result | {"rows": {"slow": row}})
    assert "| cannot keep up |" in text


def test_an_old_result_beside_a_new_one(result):
    old = json.loads(json.dumps(result))
    for row in old["rows"].values():
        timing = row.get("frame_ms", row.get("step_ms"))
        timing["p50"] *= 2
        row["times_floor"] *= 4
    old["ceilings"]["copy"] *= 2
    del old["rows"]["unet2d"]
    text = report.compare(old, result)
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")][2:]
    assert [row[0] for row in rows] == ["| both", "| window", "| train"] and {row[3] for row in rows} == {"0.50"}
    assert "copy 0.50" in text and "Not the same machine" not in text
    old["machine"]["cores"] += 1
    assert f"cores {old['machine']['cores']} -> {result['machine']['cores']}" in report.compare(old, result)
    assert "No row is in both" in report.compare(old | {"rows": {}}, result)


def test_what_is_no_result_is_refused(tmp_path):
    (tmp_path / "a.json").write_text("[1]")
    (tmp_path / "b.json").write_text("no json")
    for name in ("a.json", "b.json", "c.json"):
        with pytest.raises(UserError, match=f"{name} is no result of a benchmark"):
            report.read(tmp_path / name)


def test_several_networks_are_timed_in_turn(tiny_run, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(tiny_run, other, ignore=shutil.ignore_patterns("evaluation*"))
    rows = rows_module.of_runs([tiny_run, other])
    assert {row.name: row.group for row in rows if row.name.endswith("own")} == {f"{tiny_run.name}/own": "own (2, 64, 64)", "other/own": "own (2, 64, 64)"}
    assert [row.group for row in rows_module.of_runs([tiny_run])] == [""] * 5
    with pytest.raises(UserError, match=f"two folders are called {tiny_run.name}"):
        rows_module.of_runs([tiny_run, tiny_run])


def test_a_trained_network_has_its_dice_on_its_own_grid_alone(tiny_run, tmp_path, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run, ignore=shutil.ignore_patterns("evaluation*"))
    assert rows_module.dice_of(run) is None
    (run / "evaluation_val").mkdir()
    (run / "evaluation_val" / "summary.json").write_text(json.dumps({"dice": {"mean": 0.9}}))
    rows = {row.name: row for row in run_rows(run)}
    assert set(rows) == {"run/own", "run/window", "run/roi", "run/full", "run/train"}
    assert {name: row.dice for name, row in rows.items() if row.dice is not None} == {"run/own": 0.9}
    assert rows["run/own"].frame == (2, 64, 64) and rows["run/window"].frame == (2, 256, 256)
    assert rows["run/full"].config.model.crop == (10, 256, 256) and rows["run/full"].run == ""
    loaded, load = [], measuring.segmenters.load
    monkeypatch.setattr(measuring.segmenters, "load", lambda *a, **k: loaded.append(k) or load(*a, **k))
    in_bfloat16 = dataclasses.replace(rows["run/own"], config=rows["run/own"].config.replace(compute_dtype="bfloat16"))
    assert measuring.Streamed(in_bfloat16).segmenter.config.model.compute_dtype == "bfloat16"
    assert loaded == [dict(runtime="jax", compute_dtype="bfloat16")]
    found = measuring.benchmark([rows["run/own"]], seconds=0.0, best=BEST, rounds=1)
    assert found["rows"]["run/own"]["dice"] == 0.9 and "| 0.900 |" in report.report(found)
