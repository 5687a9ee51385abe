"""The paper's tables from run folders: two clocks, and rows that say what is not known."""

import json

import pytest
from timings import MACHINE, timing

from ica_unet_jax import paper_tables
from ica_unet_jax.config import Config
from ica_unet_jax.files import write_json, write_text
from ica_unet_jax.paper_tables import phase_mean, ratios, table_1
from ica_unet_jax.system_results import DIVERGED, read, training_hours


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
