"""The paper's tables: what is there is kept, two clocks, and rows that say what is not known."""

import csv
import dataclasses
import json
from pathlib import Path

import pytest
import tiny

from ica_unet_jax import benchmarking, comparing, paper_tables, system_results
from ica_unet_jax.benchmarking import arrival_to_mask
from ica_unet_jax.config import Config
from ica_unet_jax.errors import Diverged, UserError
from ica_unet_jax.files import write_json, write_text
from ica_unet_jax.paper_tables import phase_mean, ratios, table_1
from ica_unet_jax.system_results import DIVERGED, read, training_hours
from ica_unet_jax.systems import PUBLISHED, SYSTEMS, Paper, System
from ica_unet_jax.timing import Ceilings

ROOT = Path(__file__).parent.parent
MACHINE = dict(device="cpu", machine="x86_64", cores=2, versions=dict(jax="1.0"), commit="abc")


@pytest.mark.parametrize("name", PUBLISHED)
def test_launch_files_say_what_was_published(name):
    lines = (ROOT / "launch" / "baselines" / f"{name}.flags").read_text().splitlines()
    flags = dict(line[2:].split("=") for line in lines if line.startswith("--"))
    defaults = Config().flat()

    def typed(key, text):
        return text == "true" if isinstance(defaults[key], bool) else type(defaults[key])(text)

    assert {key: typed(key, text) for key, text in flags.items()} == PUBLISHED[name]


def test_every_system_of_the_papers_tables_is_there():
    names = {system.name for system in SYSTEMS}
    assert len(names) == len(SYSTEMS)
    assert {f"msu_net_span{span}" for span in (2, 3, 5, 10)} | set(PUBLISHED) - {"msu_net"} <= names
    causal = next(system for system in SYSTEMS if system.name == "ica_unet_n4_independent_past")
    assert causal.title == "ICA-UNet, n = 4, independent, past frame alone" and causal.config(Config()).model.frames == (-1,)
    for system in SYSTEMS:
        assert system.config(Config()).data == dataclasses.replace(Config().data, flip=system.name == "ensemble_unet")


# --- figures ---


def timing(name, frame_ms, compute_ms, waits):
    """What a benchmark tells of a system."""
    arrivals = {str(rate): {"p50": arrival_to_mask(compute_ms, frame_ms, rate, waits)} for rate in (22, 30)}
    row = dict(frames_per_second=1e3 / frame_ms, compute_ms={"p50": compute_ms}, arrival_to_mask_ms=arrivals, waits=waits, parameters=2_500_000, gflop=1.5, grid=[2, 32, 32])
    return {"machine": MACHINE, "rows": {name: row}}


def test_hours_are_over_all_steps_and_leave_compilation_out(tmp_path):
    lines = [
        dict(step=1, seconds_per_step=60.0, compiled=True), dict(step=51, seconds_per_step=2.0, compiled=False), dict(step=51, dice_RV=0.5),
        dict(step=52, seconds_per_step=70.0, compiled=True), dict(step=100, seconds_per_step=1.0, compiled=False),
    ]  # fmt: skip
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert training_hours(tmp_path) == pytest.approx((50 * 2 + 48 * 1) / 3600)


def test_a_phase_is_averaged_over_what_is_finite_and_measured():
    rows = [
        dict(phase="ED", nominal_spacing="0", dice_RV="0.8", hd_mm_RV="4.0"), dict(phase="ED", nominal_spacing="1", dice_RV="0.6", hd_mm_RV="9.0"),
        dict(phase="ED", nominal_spacing="0", dice_RV="0.0", hd_mm_RV="inf"), dict(phase="ES", nominal_spacing="0", dice_RV="0.1", hd_mm_RV="1.0"),
    ]  # fmt: skip
    assert phase_mean(rows, "ED", "dice_RV") == pytest.approx(1.4 / 3)
    assert phase_mean(rows, "ED", "hd_mm_RV", millimetres=True) == 4.0
    assert phase_mean(rows, "ES", "hd_mm_RV", millimetres=True) == 1.0
    assert phase_mean([], "ES", "dice_RV") is None


@pytest.fixture
def folder(tmp_path):
    """Timings of ICA-UNet and of two spans of MSU-Net, and a training that diverged."""
    for name, *values in (("ica_unet_n4_independent", 20, 20, 1), ("msu_net_span2", 40, 80, 1), ("msu_net_span10", 10, 100, 9)):
        write_json(tmp_path / name / "timing.json", timing(name, *values))
        write_text(tmp_path / name / "config.json", Config.make(steps=7).to_json())
    write_text(tmp_path / "msu_net_span2" / DIVERGED, "diverged at step 3 (loss not finite)\n")
    return tmp_path


def test_rows_say_what_is_known(folder):
    results = read(folder, "val")
    rows = {row.items[0].text: [item.text for item in row.items[1:]] for row in table_1(results).rows}
    assert list(rows) == [
        "MSU-Net, span 2: diverged at step 3 (loss not finite)", "MSU-Net, span 10: not trained yet", "ICA-UNet, n = 4, independent: not trained yet",
    ]  # fmt: skip
    ours = rows["ICA-UNet, n = 4, independent: not trained yet"]
    assert ours == ["2.50", "1.50", *"––––", "50.0", "20.0", "1", "65", "53", "yes", "no", "–", "–", "–", "39"]
    slow = rows["MSU-Net, span 2: diverged at step 3 (loss not finite)"]
    assert slow[6:13] == ["25.0", "80.0", "1", "125", "–", "yes", "no"]


def test_ratios_stand_beside_the_papers(folder):
    """The paper's: 92 and 142 ms for a snippet and 39 ms for a frame, 125 and 442 to 39 + 33.3, and as printed to 39 alone."""
    table = ratios(read(folder, "val"))
    assert table.title == "MSU-Net in units of ICA-UNet, n = 4, independent"
    assert [[item.text for item in row.items] for row in table.rows] == [
        ["MSU-Net, span 2: diverged at step 3 (loss not finite)", "0.50", "4.00", "–", "0.85", "2.36", "1.73", "3.21"],
        ["MSU-Net, span 10: not trained yet", "2.00", "5.00", "7.50", "2.74", "3.65", "6.11", "11.33"],
    ]


def test_times_of_two_machines_make_no_ratio(folder):
    other = timing("msu_net_span2", 20, 40, 1) | {"machine": MACHINE | {"machine": "arm64"}}
    write_json(folder / "msu_net_span2" / "timing.json", other)
    two, ten = ([item.text for item in row.items] for row in ratios(read(folder, "val")).rows)
    assert two[1:5] == ["–", "–", "–", "0.85"] and ten[1] == "2.00"


def test_a_page_tells_where_and_how_it_was_made(folder):
    commands = (["python", "-m", "ica_unet_jax.tables", *flags, "--steps=7"] for flags in (["--only=msu_net", "--notimed"], ["--only=ica"], []))
    for name, command in zip(("msu_net_span2", "msu_net_span10", "ica_unet_n4_independent"), commands, strict=True):
        write_json(folder / name / "provenance.json", MACHINE | dict(command=command, commit="def"))
    paper_tables.write(folder, "val", {})
    text = (folder / "tables.md").read_text()
    assert "Trained on cpu (x86_64), 2 cores, JAX 1.0, commit def. Timed on cpu (x86_64), 2 cores, JAX 1.0, commit abc." in text
    assert text.count("    python -m ica_unet_jax.tables --steps=7\n") == text.count("ica_unet_jax.tables") == 1
    assert "decide nothing" not in text and not (folder / "tables.png").exists()  # nobody has been judged


def test_a_narrow_training_has_a_row_of_its_own(folder):
    """Accuracy and speed of a row are of one network; the paper's figures stand at the full width."""
    for name, trained in (("msu_net_span2", 0.25), ("ica_unet_n4_independent", 0.25)):  # which ICA-UNet's channels know nothing of
        kind = name.partition("_span")[0] if "msu" in name else "ica_unet"
        write_text(folder / name / "config.json", Config.make(model=kind, width_multiplier=trained).to_json())
    timed = json.loads((folder / "msu_net_span2" / "timing.json").read_text())
    timed["rows"] |= timing("msu_net_span2/0.25", 5, 10, 1)["rows"]
    write_json(folder / "msu_net_span2" / "timing.json", timed)
    results = read(folder, "val")
    titles = ["MSU-Net, span 2", "MSU-Net, span 2, at 0.25 of its width: diverged at step 3 (loss not finite)"]
    full, narrow, *_, ours = ([item.text for item in row.items] for row in table_1(results).rows)
    assert [full[0], narrow[0]] == titles and ours[0] == "ICA-UNet, n = 4, independent: not trained yet"
    assert [row[8] for row in (full, narrow, ours)] == ["80.0", "10.0", "20.0"]
    assert [row[-1] for row in (full, narrow, ours)] == ["125", "–", "39"]
    assert [row.items[0].text for row in ratios(results).rows] == [*titles, "MSU-Net, span 10: not trained yet"]


def test_a_system_is_timed_at_both_widths(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(benchmarking, "benchmark", lambda rows, seconds, json_file: asked.append([(row.name, row.config.model.width_multiplier) for row in rows]))
    for model in ("grid_net", "ica_unet"):
        comparing.time_system(Config.make(model=model, width_multiplier=0.25), tmp_path / model, 0.0)
    assert asked == [[("grid_net", 1.0), ("grid_net/0.25", 0.25)], [("ica_unet", 1.0)]]


# --- the loop ---


@pytest.fixture
def reference(cohort, tmp_path, monkeypatch):
    """Two cheap systems and one that does not fit the grid."""
    some = (
        System("narrow", "Narrow", (1, 2), dict(model="unet2d"), Paper(0.5, 30.0, 20.0)),
        System("large", "Large", (1,), dict(model="ica_unet")),
        System("steady", "Steady", (2,), dict(model="unet2d", flip=True), cleaned=True),
    )
    for module in (comparing, system_results):
        monkeypatch.setattr(module, "SYSTEMS", some)
    monkeypatch.setattr(benchmarking, "ceilings", lambda seconds: Ceilings(1e11, 4e11, 1e10))
    return Config.make(**tiny.LOOP, data_dir=str(cohort), cache_dir=str(tmp_path / "cache"), workdir=str(tmp_path / "tables"))


def test_tables_are_made_and_what_is_there_is_kept(reference, monkeypatch, capsys):
    monkeypatch.setattr(comparing.training, "train", lambda config, pictures: tiny.write_run(config))
    timed = []

    def benchmark(rows, seconds, json_file):
        (row,) = rows
        result = timing(row.name, 20, 20, 1)
        result["rows"][row.name] |= dict(model=benchmarking.described_model(row))
        timed.append(row.name)
        write_json(json_file, result)

    monkeypatch.setattr(comparing.benchmarking, "benchmark", benchmark)
    folder = comparing.compare(reference)
    text = (folder / "tables.md").read_text()
    for told in (capsys.readouterr().out, text):
        assert "Large is left out: --crop=2,32,32: height and width" in told
    with (folder / "table_2.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["System"] for row in rows] == ["Narrow", "Steady"]
    assert all(0 <= float(row["Dice ED LV"]) <= 1 for row in rows)
    summaries = [json.loads((folder / name / "evaluation_val" / "summary.json").read_text()) for name in ("narrow", "steady")]
    assert [row["Dice mean"] for row in rows] == [f"{summary['dice']['mean']:.3f}" for summary in summaries]
    assert [(summary["mirror"], summary["largest_component"]) for summary in summaries] == [(False, False), (True, True)]
    assert (folder / "tables.png").read_bytes().startswith(b"\x89PNG")
    assert rows[0]["Parameters (M)"] == rows[1]["Parameters (M)"] == "2.50"
    assert "2 patients, 2 of known voxel size, 4 steps" in text and "One seed and 2 patients decide nothing" in text and "\\begin{tabular}" in (folder / "table_1.tex").read_text()
    monkeypatch.setattr(comparing.training, "train", None)
    comparing.compare(reference)
    assert (folder / "tables.md").read_text() == text and timed == ["narrow", "steady"]
    with pytest.raises(UserError, match="holds a run with other settings"):
        comparing.compare(reference.replace(learning_rate=1.0))
    split = json.loads((folder / "steady" / "split.json").read_text())
    write_json(folder / "steady" / "split.json", split | {"val": split["train"]})
    with pytest.raises(UserError, match=r"cannot stand in one table \(narrow and steady differ in split\)"):
        comparing.compare(reference)


def test_times_of_other_networks_and_other_judgements_are_not_kept(reference, monkeypatch):
    monkeypatch.setattr(comparing.training, "train", lambda config, pictures: tiny.write_run(config))
    folder = comparing.compare(reference, only=["steady"], seconds=0.0)
    timed, summary = folder / "steady" / "timing.json", folder / "steady" / "evaluation_val" / "summary.json"
    before = json.loads(timed.read_text())["rows"]["steady"]["parameters"]
    comparing.evaluation.evaluate(folder / "steady", split="val", cines=0, pictures=False)  # as `evaluate` does, into the same folder
    assert not json.loads(summary.read_text())["mirror"]
    comparing.compare(reference, only=["steady"], seconds=0.0)
    assert json.loads(summary.read_text())["mirror"]
    comparing.time_system(reference.replace(model="unet2d", unet_width=2), folder / "steady", 0.0)
    assert json.loads(timed.read_text())["rows"]["steady"]["parameters"] > before


def test_a_divergence_is_a_row_and_not_repeated(reference, monkeypatch):
    def diverge(config, pictures):
        raise Diverged(1, "loss not finite", ".")

    monkeypatch.setattr(comparing.training, "train", diverge)
    folder = comparing.compare(reference, only=["steady"], timed=False)
    assert "| Steady: diverged at step 1 (loss not finite) |" in (folder / "tables.md").read_text()
    monkeypatch.setattr(comparing.training, "train", None)
    comparing.compare(reference, only=["steady"], timed=False)
    write_text(folder / "steady" / "config.json", reference.replace(flip=True, learning_rate=1.0).to_json())
    with pytest.raises(UserError, match="learning_rate 1.0 -> "):  # perhaps it would not with other settings
        comparing.compare(reference, only=["steady"], timed=False)


def test_a_kill_costs_what_was_not_finished(reference, monkeypatch):
    """Timed, trained to the last step, and killed before it was judged: it is judged."""
    evaluate = comparing.evaluation.evaluate

    def kill(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(comparing.evaluation, "evaluate", kill)
    with pytest.raises(KeyboardInterrupt):
        comparing.compare(reference, only=["narrow"], seconds=0.0)
    monkeypatch.setattr(comparing.evaluation, "evaluate", evaluate)
    monkeypatch.setattr(comparing.benchmarking, "benchmark", None)
    monkeypatch.setattr(comparing.training, "make_step", lambda config: None)  # no step is made
    folder = comparing.compare(reference, only=["narrow"])
    with (folder / "table_1.csv").open() as file:
        [row] = csv.DictReader(file)
    assert row["System"] == "Narrow" and 0 <= float(row["Dice mean"]) <= 1 and float(row["FPS"]) > 0


def test_all_are_timed_before_one_is_trained(reference, monkeypatch):
    """Their ratios are of one machine in one state; bad data are refused before."""
    order = []
    monkeypatch.setattr(comparing, "time_system", lambda config, run, seconds: order.append(f"time {run.name}"))
    monkeypatch.setattr(comparing, "train_system", lambda config, run, system, split: order.append(f"train {run.name}"))
    with pytest.raises(UserError, match="nowhere"):
        comparing.compare(reference.replace(data_dir="nowhere"))
    assert order == []
    comparing.compare(reference)
    assert order == ["time narrow", "time steady", "train narrow", "train steady"]


def test_a_word_that_fits_no_system(reference):
    with pytest.raises(UserError, match="--only=foo fits no system: give parts of narrow, large, steady"):
        comparing.compare(reference, only=["foo"])
