"""The paper's tables from run folders: two clocks, and rows that say what is not known."""

import json
import math

import pytest
from timings import MACHINE, timing

from ica_unet_jax.config import Config
from ica_unet_jax.labels import STRUCTURES
from ica_unet_jax.metrics import cases
from ica_unet_jax.runs import status
from ica_unet_jax.runtime.files import write_json, write_text
from ica_unet_jax.sweeps import paper_tables
from ica_unet_jax.sweeps.paper_tables import ratios, table_1, table_2
from ica_unet_jax.sweeps.system_results import read, training_hours


def test_hours_are_over_all_steps_and_leave_compilation_out(tmp_path):
    lines = [
        dict(step=1, seconds_per_step=60.0, compiled=True), dict(step=51, seconds_per_step=2.0, compiled=False), dict(step=51, dice_RV=0.5),
        dict(step=52, seconds_per_step=70.0, compiled=True), dict(step=100, seconds_per_step=1.0, compiled=False),
    ]  # fmt: skip
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert training_hours(tmp_path) == pytest.approx((50 * 2 + 48 * 1) / 3600)


def test_a_phase_is_averaged_over_what_is_finite_and_measured(tmp_path):
    frames = [("a", "ED", 0, 0.8, 4.0), ("b", "ED", 1, 0.6, 9.0), ("c", "ED", 0, 0.0, math.inf), ("a", "ES", 0, 0.1, 1.0)]
    rows = []
    for patient, phase, nominal, dice, distance in frames:
        row = dict.fromkeys(cases.COLUMNS, 0.0) | dict(patient=patient, group="", phase=phase, frame=1, nominal_spacing=nominal)
        rows.append(row | dict(labelled_voxels=1, labelled_outside=0, dice_RV=dice, hd_mm_RV=distance))
    run = tmp_path / "unet2d" / "evaluation_val"
    run.mkdir(parents=True)
    cases.write_cases_csv(run / "cases.csv", rows)
    write_json(run / "summary.json", cases.summarize(rows) | dict(metrics_version=1))
    write_text(tmp_path / "unet2d" / "config.json", Config.make(model="unet2d").to_json())
    write_json(tmp_path / "unet2d" / "split.json", dict(train=["x"], val=["a", "b", "c"]))
    table = table_2(read(tmp_path, "val"))
    row = next(dict(zip((column.head for column in table.columns), row.items, strict=True)) for row in table.rows if row.items[0].text == "U-Net 2D")
    assert row["Dice ED RV"].value == pytest.approx(1.4 / 3) and row["HD ED RV"].value == 4.0
    assert row["Dice ES RV"].value == pytest.approx(0.1) and row["HD ES RV"].value == 1.0
    assert row["HD RV"].value == pytest.approx(2.5)  # of the one patient that has one: his two frames first


@pytest.fixture
def folder(tmp_path):
    """Timings of ICA-UNet and of two spans of MSU-Net, and a training that diverged."""
    for name, *values in (("ica_unet_n4_independent", 20, 20, 1), ("msu_net_span2", 40, 80, 1), ("msu_net_span10", 10, 100, 9)):
        write_json(tmp_path / name / "timing.json", timing(name, *values))
        write_text(tmp_path / name / "config.json", Config.make(steps=7).to_json())
    status.note(tmp_path / "msu_net_span2", status.DIVERGED, "loss not finite", 3)
    return tmp_path


def test_rows_say_what_is_known(folder):
    results = read(folder, "val")
    rows = {row.items[0].text: [item.text for item in row.items[1:]] for row in table_1(results).rows}
    assert list(rows) == [
        "MSU-Net, span 2: diverged at step 3 (loss not finite)", "MSU-Net, span 2 (paper)", "MSU-Net, span 3 (paper)", "MSU-Net, span 5 (paper)",
        "MSU-Net, span 10: not trained yet", "MSU-Net, span 10 (paper)", "ICA-UNet, n = 3 (paper)",
        "ICA-UNet, n = 4, independent: not trained yet", "ICA-UNet, n = 4 (paper)",
    ]  # fmt: skip
    ours = rows["ICA-UNet, n = 4, independent: not trained yet"]
    assert ours == ["2.50", "1.50", *"––––", "50.0", "20.0", "1", "65", "53", "yes", "no", "–", "–"]
    slow = rows["MSU-Net, span 2: diverged at step 3 (loss not finite)"]
    assert slow[6:13] == ["25.0", "80.0", "1", "125", "–", "yes", "no"]
    printed = ["0.921 ± 0.017", "0.888 ± 0.034", "0.952 ± 0.015", "0.920 ± 0.019", "28.3"]
    assert rows["ICA-UNet, n = 4 (paper)"] == ["–", "–", *printed, *"–––––––", "39"]


def test_table_2_has_the_papers_rows():
    """In our columns over both phases, as it prints one figure a structure; what it leaves out says so."""
    table = table_2([])
    heads = [column.head for column in table.columns]
    rows = {row.items[0].text: dict(zip(heads, (item.text for item in row.items), strict=True)) for row in table.rows}
    assert list(rows) == ["ICA-UNet, n = 4 (paper)", "GridNet (paper)", "Ensemble U-Net (paper)", "Ω-Net (paper)"]
    ours, omega = rows["ICA-UNet, n = 4 (paper)"], rows["Ω-Net (paper)"]
    assert [ours[f"Dice {s}"] for s in STRUCTURES] == ["0.920", "0.890", "0.940"]
    assert [ours[f"HD {s}"] for s in STRUCTURES] == ["11.91", "7.93", "6.85"]
    assert omega["Dice LV"] == "0.954" and [omega[f"HD {s}"] for s in STRUCTURES] == ["not available"] * 3
    assert {ours[head] for head in ("Dice ED RV", "HD ES LV", "Missed", "Compute (ms)", "Training (h)")} == {"–"}


def ratio_rows(folder):
    return {(row.items[0].text, row.items[1].text): [item.text for item in row.items[2:]] for row in ratios(read(folder, "val")).rows}


def test_ratios_stand_beside_the_papers(folder):
    """Against both n, the paper's from what it prints: FPS by FPS; 92 and 142 ms without the wait for a snippet, 125 and 442
    with it, by 39 ms or 35 ms, with the wait for frame t+1 33.3 ms more, and as printed without."""
    two, ten = "MSU-Net, span 2: diverged at step 3 (loss not finite)", "MSU-Net, span 10: not trained yet"
    rows = ratio_rows(folder)
    systems = [two, "MSU-Net, span 3", "MSU-Net, span 5", ten]
    assert list(rows) == [(system, f"ICA-UNet, n = {n}") for n in (3, 4) for system in systems]
    assert rows[two, "ICA-UNet, n = 4"] == ["0.50", "4.00", "–", "0.77", "2.35", "1.73", "3.21"]
    assert rows[ten, "ICA-UNet, n = 4"] == ["2.00", "5.00", "7.50", "2.48", "3.64", "6.11", "11.33"]
    assert rows[ten, "ICA-UNet, n = 3"] == ["–", "–", "–", "2.22", "4.06", "6.47", "12.63"]  # 12.6 x faster, as its text has it
    assert rows["MSU-Net, span 3", "ICA-UNet, n = 3"] == ["–", "–", "–", "0.93", "2.92", "2.47", "4.83"]


def test_times_of_two_machines_make_no_ratio(folder):
    other = timing("msu_net_span2", 20, 40, 1) | {"machine": MACHINE | {"machine": "arm64"}}
    write_json(folder / "msu_net_span2" / "timing.json", other)
    two, *_, ten = (figures for (_, reference), figures in ratio_rows(folder).items() if reference == "ICA-UNet, n = 4")
    assert two[:4] == ["–", "–", "–", "0.77"] and ten[0] == "2.00"


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
    """Accuracy and speed of a row are of one network; what the paper prints is a row beside them."""
    for name, trained in (("msu_net_span2", 0.25), ("ica_unet_n4_independent", 0.25)):  # which ICA-UNet's channels know nothing of
        kind = name.partition("_span")[0] if "msu" in name else "ica_unet"
        write_text(folder / name / "config.json", Config.make(model=kind, width_multiplier=trained).to_json())
    timed = json.loads((folder / "msu_net_span2" / "timing.json").read_text())
    timed["rows"] |= timing("msu_net_span2/0.25", 5, 10, 1)["rows"]
    write_json(folder / "msu_net_span2" / "timing.json", timed)
    results = read(folder, "val")
    titles = ["MSU-Net, span 2", "MSU-Net, span 2, at 0.25 of its width: diverged at step 3 (loss not finite)"]
    full, narrow, paper, *_, ours, _ = ([item.text for item in row.items] for row in table_1(results).rows)
    assert [full[0], narrow[0]] == titles and ours[0] == "ICA-UNet, n = 4, independent: not trained yet"
    assert [row[8] for row in (full, narrow, ours)] == ["80.0", "10.0", "20.0"]
    assert [row[-1] for row in (full, narrow, paper, ours)] == ["–", "–", "125", "–"]
    printed = {name: figures[3] for (name, reference), figures in ratio_rows(folder).items() if reference == "ICA-UNet, n = 4"}
    assert list(printed)[:2] == titles and [printed[title] for title in titles] == ["0.77", "–"]
