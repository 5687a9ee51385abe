"""The page of 100 patients says what the statistics decide, of made-up sweeps that can be checked by hand."""

import json
import shutil

import pytest
from made_up import finish, planned, rows

from ablations import acdc100, acdc100_answers, acdc100_networks, acdc100_pairs, acdc100_tables, answers, committed
from ica_unet_jax.config import fields
from ica_unet_jax.labels import STRUCTURES
from ica_unet_jax.sweeps import setting

FROM_FRAME, DICTIONARY = "bases from the frame alone", "dictionary alone"
RECORDS = {"U-Net 2D": 0.05, "U-Net 3D": 0.0, "no ICA": 0.0005, "paper, n = 3": -0.3}  # more than ICA-UNet's


@pytest.fixture
def main(tmp_path, monkeypatch):
    """Two folds of two patients; A0 is worst, by its RV at the apex in frame 2."""
    monkeypatch.setattr(acdc100, "FOLDERS", [tmp_path / "small", tmp_path / "design", tmp_path / "full"])
    monkeypatch.setattr(acdc100, "KNOWN", {})  # titles are those of the plan
    folder = tmp_path / "small"
    planned(folder, "main", ["ICA-UNet", *RECORDS])
    places = {"dice_base_RV": 0.9, "dice_apex_RV": 0.3, "dice_base_LV": 0.1}
    for number, more in enumerate([0.0, *RECORDS.values()]):
        cell = f"c{number}" if number else "ref"
        for fold in (0, 1):
            noise = 0.001 * (-1) ** (number + fold)  # cells and folds do not explain it
            dice = {f"A{fold}": [(0.6, 0.6, 0.6), (0.4 + 0.4 * fold, 0.6, 0.6)], f"B{fold}": [(0.8,) * 3]}
            dice = {patient: [tuple(value + more + noise for value in frame) for frame in frames] for patient, frames in dice.items()}
            where = {patient: [places] * len(frames) for patient, frames in dice.items()}
            finish(folder, cell, dice, seed=fold, fold=fold, places=where, bases=4 if not number else number + 1, steps=2, frame_ms=20.0)
            curve = [dict(step=step, dice_mean=0.5 + (more + noise) * step / 200) for step in (100, 200)]
            run = folder / "cells" / cell / f"seed{fold}_fold{fold}"
            (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in curve))
    return folder


@pytest.fixture
def design(main):
    """Beside it a study of the recommended network's parts, in a folder of its own."""
    folder = main.parent / "design"
    parts = {"the whole network": 0.8, "no ICA": 0.801, "independent streams, equal work": 0.8, "shared streams": 0.7, FROM_FRAME: 0.75, DICTIONARY: 0.76}
    planned(folder, "design", list(parts))
    for number, value in enumerate(parts.values()):
        for fold in (0, 1):
            dice = {f"A{fold}": [(value + 0.001 * (-1) ** (number // 2 + fold),) * 3]}
            shape = dict(crop=[4, 64, 64], batch_size=4, spacing=1.5, steps=2, bases=4 if not number else number + 1)
            finish(folder, f"c{number}" if number else "ref", dice, seed=fold, fold=fold, **shape)
    described = json.loads((folder / "sweep.json").read_text())
    described["hardware"]["machine"] = "ACME"
    (folder / "sweep.json").write_text(json.dumps(described))
    return folder


def test_sentences_follow_from_decisions(main):
    said = rows(acdc100_answers.answers())
    [plain] = said["What would a plain U-Net have given?"]
    assert plain.startswith("Beside ICA-UNet (mean Dice 0.700): ") and "**better**: U-Net 2D (+0.050 [" in plain
    assert "**as good within 0.01**: U-Net 3D" in plain
    [without] = next(value for question, value in said.items() if question.startswith("Is ICA needed at all?"))
    assert without.startswith("**No.** ") and "as good within 0.01" in without
    assert "**worse**: paper, n = 3 (-0.300 [" in said["And the paper, read literally?"][0]
    far, near = (said[question][0].split("decided: ")[1].split()[0].rstrip(".") for question in ("And the paper, read literally?", "What would a plain U-Net have given?"))
    assert f"{near} for a cell against the reference; {far} for a cell more than 0.1 from it" in acdc100_networks.networks()
    assert said["What does the recommended network gain?"] == said["What does each ICA term of the loss do?"] == [acdc100.NOT_FINISHED]


@pytest.mark.parametrize(
    "titles, lead",
    [(["U-Net 2D"], "More."), (["paper, n = 3"], "Less."), (["no ICA", "U-Net 3D"], "As much."), (["U-Net 2D", "no ICA"], "")],
)
def test_a_lead_stands_where_all_are_decided_alike(main, titles, lead):
    said = acdc100.beside("main", titles, better="More.", worse="Less.", as_good="As much.")
    assert said.startswith(f"**{lead}** Beside" if lead else "Beside")


@pytest.mark.parametrize(
    "titles, words",
    [
        (["U-Net 2D", "paper, n = 3"], "**It is ahead of 1 of 2, and behind 1.**"), (["U-Net 2D", "no ICA"], "**No: 1 of 2 are ahead.**"),
        (["paper, n = 3", "no ICA"], "**Yes, than 1 of 2.**"), (["no ICA", "U-Net 3D"], "**As good.**"), (["GridNet"], ""),
    ],
)  # fmt: skip
def test_how_many_are_ahead(main, titles, words):
    assert acdc100.ranked("main", titles) == words


def test_what_is_said_of_the_rivals(main):
    said = answers.rivals(intervals=False)
    few = "**better**: U-Net 2D (+0.050); **as good within 0.01**: U-Net 3D (0.000), no ICA (0.000). (All trained alike: 2 steps, 2 folds, 4 patients.)"
    assert said == f"**No: 1 of 2 are ahead.** Beside ICA-UNet (mean Dice 0.700): {few}"
    assert "is more accurate" in answers.headline()


def test_the_screen_counts_what_is_decided_by_a_rule_that_was_not_planned():
    others = acdc100.decided_otherwise("main")
    assert others and answers.rivals().endswith(f"({len(others)} of these decisions need a rule that was not planned.)")


def test_parts_of_the_recommended_network(design):
    said = rows(acdc100_answers.answers())
    [streams] = said["Are independent streams worth their time?"]
    whole = "Beside the whole network (mean Dice 0.800): "
    assert streams.startswith(f"{whole}**as good within 0.01**: independent streams, equal work (0.000 [") and "; **worse**: shared streams (-0.100 [" in streams
    assert "On the 21 patients of ACDC-mini, beside independent streams: shared streams (" in streams and "A frame takes" not in streams  # no times were taken
    [needed] = said["Which bases are needed, learned ones or those computed from the frame?"]
    assert needed.startswith(f"{whole}**worse**: {FROM_FRAME} (-0.050 [")
    [without] = next(value for question, value in said.items() if question.startswith("Is ICA needed at all?"))
    assert without.count("**No.**") == 2 and "Beside ICA-UNet (" in without and whole in without
    assert acdc100_tables.design().startswith(whole)
    table = rows(acdc100_tables.design())
    assert table["the whole network"][-1] == "reference" and table["shared streams"][-2:] == ["-0.102, -0.098", "worse"]
    assert acdc100.made("design").startswith("12 trainings of 2 steps of 4 frames, on a window of 4x64x64 voxels")
    assert acdc100.study("main") and acdc100.study("doses") is None


def test_a_comparison_that_was_not_planned_has_the_error_of_its_study():
    """By hand from the committed table: the difference, and an interval as wide as those of the planned ones."""
    found = acdc100.study("design")
    one, other = (next(line for line in found.lines if line.title == title) for title in acdc100.STREAMS)
    contrast, half = one.dice["mean"].mean - other.dice["mean"].mean, (one.finding.contrast.high - one.finding.contrast.low) / 2
    interval = f"{contrast:+.3f} [{contrast - half:.3f}, {contrast + half:.3f}]"
    assert acdc100.between("design", *acdc100.STREAMS) == f"A comparison that was not planned: {one.title} minus {other.title} {interval}."
    assert acdc100.between("design", one.title, "no such network") == acdc100.between("doses", *acdc100.STREAMS) == ""


def test_the_recommended_network_stands_there_twice_with_other_augmentation_alone():
    """As the page says of the two committed studies."""

    def config(name, title):
        [line] = [line for line in acdc100.study(name).lines if line.title == title]
        return setting.recorded(next(acdc100.sweep_of(name).of(acdc100.study(name).study, line.cell.name)).config)

    other = setting.turned(config("design", "the whole network"), config("main", acdc100.RECOMMENDED))
    assert other["noise"] == 0.4 and other["elastic"] == 3.0
    assert other.keys() < {field.name for _, field in fields() if field.metadata["help"].startswith("Augmentation: ")}
    lower, higher = committed.named("acdc100_design/design", "the whole network"), committed.named("acdc100/main", acdc100.RECOMMENDED)
    assert float(lower["dice_mean"]) < float(higher["dice_mean"])


def test_what_the_page_says_of_end_systole_is_so():
    """Of the committed networks: the sentence above the table of phases."""
    table = acdc100_networks.phases().splitlines()
    heads = [head.strip() for head in table[0].strip("|").split("|")]
    of = {}
    for line in table[2:]:
        cells = dict(zip(heads, (cell.strip() for cell in line.strip("|").split("|")), strict=True))
        of.setdefault(cells["Network"], {}).update({(cells["Phase"], name): float(cells[f"Dice {name}"]) for name in STRUCTURES})
    assert len(of) == 10 and all(min(dice, key=dice.get) == ("ES", "RV") for dice in of.values())


def test_what_the_page_says_of_the_parts_is_so():
    """Of the committed study: the sentences above the table of the parts."""
    found = acdc100.study("design")
    assert [line.title for line in found.lines if line.finding and line.finding.decision != "undecided"] == [FROM_FRAME]
    for name in ("main", "design"):
        [without] = [line.cell for line in acdc100.study(name).lines if line.title == "no ICA"]
        assert without.parameters == pytest.approx(acdc100.study(name).reference.cell.parameters, rel=0.02)
        assert without.gflop > acdc100.study(name).reference.cell.gflop
    for title in ("without the frame in the decoders", "independent streams, equal work"):
        [line] = [line for line in found.lines if line.title == title]
        assert all(value > found.reference.trainings[training] for training, value in line.trainings.items())


def test_what_the_pages_say_of_streams_is_so():
    """Of the committed studies: docs/results/ablations.md, launch/recommended.flags."""
    dense, independent = (
        committed.named("acdc_mini/streams", "dense, equal work"), committed.named("acdc100_design/design", "independent streams, equal work"),
    )  # fmt: skip
    assert float(dense["difference"]) > 0 < float(independent["difference"])  # each beside the other: the sign is not the same
    others = [committed.named("acdc100_design/design", title) for title in ("without the frame in the decoders", "with reconstruction")]
    assert {line["decision"] for line in (dense, independent, *others)} == {"undecided"}


def test_a_network_that_diverged_is_told(main):
    folder = main / "cells" / "c1" / "seed1_fold1"
    (folder / "done.json").write_text(json.dumps(dict(status="diverged", message="the loss is nan", step=7, metrics_version=1)))
    assert "U-Net 2D: incomplete: 1 of 2 trainings; diverged at step 7" in acdc100.beside("main", ["U-Net 2D", "U-Net 3D"])
    assert "diverged at step 7" in rows(acdc100_networks.networks())["U-Net 2D"][-2]


def test_while_the_reference_is_alone_nothing_is_compared(main):
    for cell in ("c1", "c2", "c3", "c4"):
        shutil.rmtree(main / "cells" / cell)
    assert acdc100_tables.by_step("main") == acdc100.NOT_FINISHED
    assert "U-Net 2D: incomplete: 0 of 2 trainings" in acdc100.beside("main", ["U-Net 2D"])


def test_without_a_sweep_nothing_is_finished(tmp_path, monkeypatch):
    monkeypatch.setattr(acdc100, "FOLDERS", [tmp_path, tmp_path / "no"])
    for name, part in (acdc100_tables.PARTS | acdc100_networks.PARTS | acdc100_pairs.PARTS).items():
        assert part() == acdc100.NOT_FINISHED, name
    assert acdc100_pairs.said("main") == ""
    acdc100_networks.latency(tmp_path / "a.png")
    acdc100_networks.by_place(tmp_path / "b.png")
    assert not list(tmp_path.iterdir())


def test_the_worst_patients_by_hand(main):
    found = acdc100_networks.worst().splitlines()[2:]
    assert len(found) == 4  # fewer than five there are
    patient, _, dice, words, best = (cell.strip() for cell in found[0].strip("|").split("|"))
    assert patient == "A0" and dice == "0.568"  # (0.6 + (0.4 + 0.6 + 0.6) / 3) / 2 + 0.001
    assert words.startswith("RV at ") and "(0.401), lowest at the apex (0.300); 0 mL of 0 true" in words
    assert best == "U-Net 2D: 0.616"  # + 0.05 - 0.002


def test_networks_and_their_places(main):
    found = rows(acdc100_networks.networks())
    assert found["paper, n = 3"][-1] == "0.900 / 0.869 / 0.934 (Table 1)" and found["U-Net 2D"][-1] == "–"
    assert found["ICA-UNet"][-2] == "reference" and found["U-Net 2D"][-3:-1] == ["+0.048, +0.052", "better"]
    assert "Smallest effect that could have been decided" in acdc100_networks.networks()
    assert "With paper, n = 3 in the error of all, the decisions would be the same." in acdc100_networks.networks()
    assert "took the rivals 1.0 to 1.0 times as long as ICA-UNet (U-Net 2D longest)." in acdc100_networks.networks()
    assert rows(acdc100_networks.clinical())["ICA-UNet"] == ["– [–, –]"] * 7  # there are no phases here
    assert rows(acdc100_networks.places())["no ICA"][:3] == ["0.900", "–", "0.100"]


def test_differences_while_they_learn(main):
    found = rows(acdc100_tables.by_step("main"))
    assert [cell.split()[0] for cell in found["paper, n = 3"]] == ["-0.150", "-0.300"]


def test_pictures(main):
    acdc100_networks.latency(main / "a.png")
    acdc100_networks.by_place(main / "b.png")
    assert (main / "a.png").stat().st_size > 5000 < (main / "b.png").stat().st_size


def test_what_the_page_says_of_the_bases_is_so():
    """Of the committed study: the sentences below the table of bases."""
    lines = {line["title"]: line for line in committed.lines("acdc100/loss_terms") if line["hoyer"]}
    fast = lines.pop(next(title for title in lines if title.startswith("FastICA")))

    def of(title, column):
        return float(lines[title][column])

    pairs = [("all three", "without R"), ("without S", "I alone"), ("without I", "S alone"), ("R alone", "none")]  # with and without R
    assert all(of(a, "correlation") > 1.8 * of(b, "correlation") and of(a, "explained_variance") > 0.7 > 0.1 > of(b, "explained_variance") for a, b in pairs)
    pairs = [("all three", "without S"), ("without I", "R alone"), ("without R", "I alone"), ("S alone", "none")]
    assert all(of(a, "hoyer") > of(b, "hoyer") for a, b in pairs)
    pairs = [("all three", "without I"), ("without S", "R alone"), ("without R", "S alone"), ("I alone", "none")]
    assert all(abs(of(a, column) - of(b, column)) < 0.02 for a, b in pairs for column in ("correlation", "mutual_information"))
    for title in lines:
        assert float(fast["hoyer"]) > of(title, "hoyer") and float(fast["explained_variance"]) > of(title, "explained_variance")
    assert float(fast["correlation"]) < 0.005
    information = {title: of(title, "mutual_information") for title in lines}
    without = {"without R", "S alone", "I alone", "none"}
    assert max(information[title] for title in without) < float(fast["mutual_information"]) < min(information[title] for title in information.keys() - without)
