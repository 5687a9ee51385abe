"""What results say to the paper's claims follows from decisions, and from nothing else."""

import csv

import pytest

from ablations import claims
from ablations.claims import CONFIRMED, NOT_TESTED, REFUTED, UNDECIDED, Claim, Contrast
from ablations.networks import settings
from ablations.studies import KNOWN
from ica_unet_jax.benchmarking import parallel as timed
from ica_unet_jax.config import Config
from ica_unet_jax.sweeps import titles

CONTRASTS = [contrast for claim in claims.CLAIMS if not callable(claim.test) for contrast in claim.test]


@pytest.mark.parametrize(
    "decision, alone, or_as_good",
    [
        ("worse", CONFIRMED, CONFIRMED),
        ("better", REFUTED, REFUTED),
        ("worse, within 0.01", CONFIRMED, CONFIRMED),
        ("better, within 0.01", REFUTED, CONFIRMED),
        ("as good within 0.01", REFUTED, CONFIRMED),
        ("no effect above 0.01", REFUTED, CONFIRMED),
        ("undecided", UNDECIDED, UNDECIDED),
        ("one block, no decision", UNDECIDED, UNDECIDED),
        ("", NOT_TESTED, NOT_TESTED),
    ],
)
def test_verdicts_follow_from_decisions(tmp_path, decision, alone, or_as_good):
    (tmp_path / "acdc_mini").mkdir()
    with (tmp_path / "acdc_mini" / "s.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["title", "kind", "difference", "low", "high", "decision"])
        writer.writerow(["r", "reference", "", "", "", ""])
        writer.writerow(["x", "cell", "-0.0212", "-0.04", "0.001", decision])
    for as_good, word in ((False, alone), (True, or_as_good)):
        found, text, source = Contrast("s", "x", "worse", as_good).verdict(tmp_path)
        assert found == word and (text == f"x beside r: -0.021 [-0.040, +0.001], {decision}" or word == NOT_TESTED)
    assert Contrast("s", "y", "worse").verdict(tmp_path)[0] == NOT_TESTED


def test_results_of_more_patients_come_first(tmp_path):
    for source, decision in (("acdc100", "better"), ("acdc_mini", "worse")):
        (tmp_path / source).mkdir()
        (tmp_path / source / "s.csv").write_text(f"title,kind,difference,low,high,decision\nx,effect,0.1,,,{decision}\n")
    assert Contrast("s", "x", "worse").verdict(tmp_path) == (REFUTED, "x: +0.100, better", "acdc100/s")


def test_simulated_hearts_answer_no_claim(tmp_path):
    head, simulated = "title,kind,difference,low,high,decision\n", (NOT_TESTED, "on simulated hearts alone, x: +0.100, better", "phantom_others/s")
    for source in ("phantom_others", "acdc_mini"):
        (tmp_path / source).mkdir()
    (tmp_path / "phantom_others" / "s.csv").write_text(f"{head}x,effect,0.1,,,better\n")
    assert Contrast("s", "x", "better").verdict(tmp_path) == simulated
    (tmp_path / "acdc_mini" / "s.csv").write_text(f"{head}x,effect,,,,\n")  # nothing decided
    assert Contrast("s", "x", "better").verdict(tmp_path) == simulated
    (tmp_path / "acdc_mini" / "s.csv").write_text(f"{head}x,effect,-0.1,,,worse\n")
    assert Contrast("s", "x", "better").verdict(tmp_path) == (REFUTED, "x: -0.100, worse", "acdc_mini/s")


def test_a_pair_at_full_size_stands_beside_its_claim(monkeypatch):
    alone = Contrast("loss_terms", "R", "better").verdict()[1].partition("; once")[0]
    monkeypatch.setattr(claims.acdc100_pairs, "judged", lambda *of: {("loss_terms", "R"): -0.0049}.get(of))
    assert Contrast("loss_terms", "R", "better").verdict() == (REFUTED, f"{alone}; once at full size: -0.005", "acdc100/loss_terms")


@pytest.mark.parametrize(
    "decisions, word",
    [
        (("worse", "worse"), CONFIRMED),
        (("worse", "undecided"), UNDECIDED),
        (("worse", ""), NOT_TESTED),
        (("", "better"), REFUTED),
        (("undecided", "better"), REFUTED),
    ],
)
def test_a_claim_of_two_needs_both_and_falls_with_one(tmp_path, decisions, word):
    (tmp_path / "acdc100").mkdir()
    lines = "".join(f"{title},cell,0.1,,,{decision}\n" for title, decision in zip("ab", decisions, strict=True))
    (tmp_path / "acdc100" / "s.csv").write_text(f"title,kind,difference,low,high,decision\n{lines}")
    claim = Claim("here", "both", (Contrast("s", "a", "worse"), Contrast("s", "b", "worse")))
    assert claim.verdict({}, {}, tmp_path)[0] == word


@pytest.mark.parametrize(
    "p50, p95, throughput, latency",
    [(20.0, 30.0, CONFIRMED, CONFIRMED), (30.0, 40.0, UNDECIDED, CONFIRMED), (50.0, 55.0, UNDECIDED, UNDECIDED), (70.0, 90.0, REFUTED, REFUTED)],
)
def test_times_close_to_a_limit_decide_nothing(p50, p95, throughput, latency):
    rows = {claims.JUDGED_BY: {"frame_ms": {"p50": p50, "p95": p95}}}
    assert claims.throughput(rows, {})[0] == throughput and claims.latency(rows, {})[0] == f"{latency} by the paper's clock"


@pytest.mark.parametrize("mapped, word", [(5.0, CONFIRMED), (9.0, REFUTED), (20.0, REFUTED)])
def test_streams_in_parallel_would_have_to_be_faster_than_each_other_form(mapped, word):
    forms = {timed.MAPPED: mapped, timed.IN_TURN: 15.0, timed.DENSE: 10.0}
    result = {"cores": {"2": {"32": {form: {"p50": spent} for form, spent in forms.items()}}}}
    assert claims.parallel({}, result)[0] == f"{word} on CPUs"


@pytest.mark.parametrize("contrast", CONTRASTS, ids=lambda contrast: f"{contrast.study}, {contrast.title}")
def test_each_claim_asks_for_a_line_that_its_study_has(contrast):
    streams = "dense" if contrast.study == "design" else "independent"  # the parts are those of the recommended network
    base = Config.make(**settings(("acdc",)) | dict(crop=(10, 128, 128), contracting_blocks=4, streams=streams))
    if contrast.study == "causal":  # by a launch file of its own
        assert contrast.title == titles.WORDS["neighbours"]["past"]
        return
    study = KNOWN[contrast.study]
    assert contrast.title in {*study.titled(base), *study.factors.values()} and contrast.expected in claims.OPPOSITE
