"""Pairs at full size are told beside what the committed studies of the small window decide."""

import json

import pytest
from made_up import finish, planned, rows

from ablations import acdc100, acdc100_answers, acdc100_pairs, answers


@pytest.fixture
def full_size(tmp_path, monkeypatch):
    """Made-up trainings of these mean Dices, at steps 1 and 2 and in the end, beside the committed decisions."""
    monkeypatch.setattr(acdc100, "FOLDERS", [*acdc100.FOLDERS[:2], tmp_path / "full"])
    monkeypatch.setattr(acdc100, "KNOWN", {name: known for name, known in acdc100.KNOWN.items() if name != "full_size"})  # titles are those of the plan

    def train(dice):
        planned(tmp_path / "full", "full_size", list(dice), runs=[(0, 0)])
        for number, values in enumerate(dice.values()):
            if values:
                cell = f"c{number}" if number else "ref"
                finish(tmp_path / "full", cell, {"A0": [values[-1:] * 3]}, bases=4 if not number else number + 1, steps=2)
                curve = "".join(json.dumps(dict(step=step, dice_mean=value)) + "\n" for step, value in enumerate(values[:-1], start=1))
                (tmp_path / "full" / "cells" / cell / "seed0_fold0" / "metrics.jsonl").write_text(curve)

    return train


U_NET, WITH_R, LEARNED = (" minus ".join(titles) for titles, _ in acdc100_pairs.PAIRS.values())
ALL_SIX = {
    "ICA-UNet": (0.4, 0.5, 0.80), "U-Net 2D": (0.3, 0.6, 0.82), "Eq. 2 alone": (0.3, 0.4, 0.7), "Eq. 2 alone, without R": (0.4, 0.5, 0.75),
    "bases from the frame alone": (0.3, 0.3, 0.7), acdc100.RECOMMENDED: (0.5, 0.5, 0.8),
}  # fmt: skip


def test_pairs_at_full_size(full_size):
    full_size(ALL_SIX)
    [*table, _, told] = acdc100_pairs.table().splitlines()
    found = rows("\n".join(table[2:]))
    assert found[U_NET] == ["+0.023 [0.013, 0.033], better", "+0.031", "-0.100", "+0.100", "+0.020", "0.820, 0.800"]
    assert found[WITH_R] == ["-0.015 [-0.017, -0.014], worse", "-0.017", "-0.100", "-0.100", "-0.050", "0.700, 0.750"]
    assert found[LEARNED] == ["-0.061 [-0.069, -0.054], worse", "-0.061", "-0.200", "-0.200", "-0.100", "0.700, 0.800"] and len(found) == 3
    left = f"{U_NET} 65%; {WITH_R} 303%; {LEARNED} 164%"
    kept, of = "As judged, no sign is another one than on the small window.", "Judged at full size, of the same fold's difference on the small window:"
    assert told == f"{kept} {of} {left}. The sign changes during training of: {U_NET}."
    said = rows(acdc100_answers.answers())
    once = "Once more at full size, one training each on fold 0: "
    assert f"{once}{U_NET} +0.020 (this fold on the small window: +0.031)." in said["What would a plain U-Net have given?"][0]
    assert f"{once}{WITH_R} -0.050 (" in said["What does each ICA term of the loss do?"][0]
    assert f"{once}{LEARNED} -0.100 (" in said["Which bases are needed, learned ones or those computed from the frame?"][0]
    assert "is more accurate than the paper's method on a small window (+0.023 of Dice); in one pair at full size, undecided: +0.020." in answers.headline()
    screen = answers.answers()
    assert "Eq. 2 alone (-0.015 [-0.017, -0.014]; full size, once: -0.050)" in screen and "(+0.061 [0.054, 0.069]; full size, once: +0.100)" in screen


def test_the_fold_of_a_pair_is_of_the_same_two_networks(full_size):
    """Of R the small window decides upon the mean over four pairs, which is another figure in the fourth place."""
    full_size(ALL_SIX)
    lines = {line.title: line.trainings[0, 0] for line in acdc100.study("loss_terms").lines}
    [pair] = (pair for pair in acdc100_pairs.pairs() if pair.study == "loss_terms")
    assert pair.same_fold == lines["all three"] - lines["without R"]


def test_a_pair_that_turned_or_is_not_there_is_told(full_size):
    full_size(ALL_SIX | {"U-Net 2D": (0.3, 0.4, 0.79), "bases from the frame alone": (), acdc100.RECOMMENDED: ()})
    told = acdc100_pairs.table().splitlines()[-1]
    other = f"As judged, the sign is another one than on the small window for: {U_NET}."
    left = f"bases from the frame alone: incomplete: 0 of 1 training, {acdc100.RECOMMENDED}: incomplete: 0 of 1 training"
    assert told.startswith(other) and told.endswith(f" No figures of {LEARNED} ({left}).")
    assert acdc100_pairs.said("design") == "" and "; in one pair at full size, undecided: -0.010." in answers.headline()
    assert "(+0.061 [0.054, 0.069])" in answers.answers()
