"""The files of a report: what may stand in one table, the same bytes every time, LaTeX, HTML."""

import html.parser
import json
import re
import shutil

import pytest
from made_up import HALF, fail, fill, finish, fixture_pictures, fixture_quick, markdown, plan  # noqa: F401

from ica_unet_jax.errors import UserError
from ica_unet_jax.sweeps import tables


def outputs(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


DIFFERENT = {
    "splits": dict(split={"train": ["z"], "val": ["A"]}),
    "grids": dict(crop=[4, 96, 96]),
    "grids ": dict(spacing=2.0),
    "versions of the metrics": dict(version=2),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_what_must_not_share_a_table(tmp_path, what):
    plan(tmp_path, ["a=1", "b=1"], other=[0, 1])
    finish(tmp_path, "ref", {"A": [HALF]})
    finish(tmp_path, "c1", {"A": [HALF]})
    tables.write_all(tmp_path)
    before = (tmp_path / "other.md").read_text(), (tmp_path / "trial.md").read_text()
    finish(tmp_path, "c2", {"A": [HALF]}, **DIFFERENT[what])
    with pytest.raises(UserError, match=rf"trial: ref .* and c2 \(seed 0, fold 0\) have different {what.strip()}"):
        tables.write_all(tmp_path)
    assert before == ((tmp_path / "other.md").read_text(), (tmp_path / "trial.md").read_text())


@pytest.mark.parametrize("dice", [{"B": [HALF]}, {"A": [HALF, HALF]}])
def test_other_patients_or_frames_are_refused(tmp_path, dice):
    plan(tmp_path)
    split = {"train": ["x"], "val": ["A", "B"]}
    finish(tmp_path, "ref", {"A": [HALF]}, split=split)
    finish(tmp_path, "c1", dice, split=split)
    with pytest.raises(UserError, match="ref .* and c1 .* have different patients or frames"):
        tables.write_all(tmp_path)


def test_a_patient_of_two_folds_is_refused(tmp_path):
    plan(tmp_path, folds=(0, 1))
    for fold in (0, 1):
        finish(tmp_path, "ref", {"A": [HALF]}, fold=fold)
    with pytest.raises(UserError, match="patient A is judged in two folds"):
        tables.write_all(tmp_path)


def test_folds_have_one_grid(tmp_path):
    plan(tmp_path, folds=(0, 1))
    finish(tmp_path, "ref", {"A": [HALF]}, fold=0)
    finish(tmp_path, "c1", {"B": [HALF]}, fold=1, spacing=2.0)
    with pytest.raises(UserError, match=r"ref \(seed 0, fold 0\) and c1 \(seed 0, fold 1\) have different grids"):
        tables.write_all(tmp_path)


def test_folds_may_have_different_splits_and_studies_different_grids(tmp_path):
    plan(tmp_path, ["a=1", "crop=4x96x96"], folds=(0, 1), other=[0, 1])
    sweep = json.loads((tmp_path / "sweep.json").read_text())
    sweep["studies"][0] |= dict(reference="c2", cells=sweep["studies"][0]["cells"][2:])
    (tmp_path / "sweep.json").write_text(json.dumps(sweep))
    for fold in (0, 1):
        for cell, size in (("ref", 64), ("c1", 64), ("c2", 96)):
            finish(tmp_path, cell, {f"p{fold}": [HALF]}, fold=fold, crop=[4, size, size])
    tables.write_all(tmp_path)
    assert markdown(tmp_path, "other")["a = 1"]["Δ Dice [95 %]"] == "0.000 [0.000, 0.000]"


def test_the_same_bytes_in_whatever_order_the_cells_finished(tmp_path, pictures):
    once, again = fill(tmp_path / "a"), fill(tmp_path / "b", reverse=True)
    tables.write_all(once)
    shutil.rmtree(again / "cells" / "c3")
    tables.write_all(again)  # before the last has ended
    fail(again, "c3", "diverged", "the loss is nan", 120, seed=1, fold=1)
    tables.write_all(again)
    assert outputs(once) == outputs(again)
    pages = [f"{study}.{kind}" for study in ("trial", "second") for kind in ("md", "csv", "tex", "png")]
    assert set(outputs(once)) == {*pages, "timings.md", "timings.csv", "index.md", "report.html", "sweep.json"}
    picture = outputs(once)["trial.png"]
    assert picture.startswith(b"\x89PNG") and b"matplotlib" not in picture and b"tIME" not in picture


def test_seconds_of_training_stand_in_the_timings_alone(tmp_path):
    tables.write_all(fill(tmp_path))
    before = outputs(tmp_path)
    for path in tmp_path.glob("cells/*/*/timing.json"):
        path.write_text(path.read_text().replace("80.0", "81.0"))
    tables.write_all(tmp_path)
    after = outputs(tmp_path)
    assert {name for name in before if before[name] != after[name]} == {"timings.md", "timings.csv"}


def test_latex(tmp_path):
    tables.write_all(fill(tmp_path))
    text = (tmp_path / "trial.tex").read_text()
    assert text.count("\\begin{table}") == text.count("\\end{table}") == text.count("\\toprule") == 2
    assert "whitened bases" in text and "$\\Delta$ Dice [95 \\%]" in text and "$-$0.050" in text
    assert text.isascii() and not re.search(r"(?<!\\)_(?!terms)", text.replace("trial_2", ""))
    for block in re.findall(r"\\begin{tabular}{(\w+)}(.*?)\\end{tabular}", text, re.S):
        lines = [line for line in block[1].splitlines() if line.endswith("\\\\")]
        spans = [sum(int(n) - 1 for n in re.findall(r"\\multicolumn{(\d+)}", line)) for line in lines]
        assert {line.count(" & ") + 1 + span for line, span in zip(lines, spans, strict=True)} == {len(block[0])}


class Outline(html.parser.HTMLParser):
    """Counts tags, checks that they are closed, and collects what a page refers to."""

    def __init__(self, text):
        super().__init__()
        self.open, self.counts, self.references, self.texts = [], {}, [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.references += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_the_report_is_one_whole_file(tmp_path):
    fill(tmp_path)
    fail(tmp_path, "c3", "crashed", "<script>alert('&')</script>", 1)
    tables.write_all(tmp_path)
    text = (tmp_path / "report.html").read_text()
    page = Outline(text)
    assert page.counts["table"] == 4 and page.counts["img"] == 2 and page.counts["script"] == 1
    assert "http" not in text and "@import" not in text and "url(" not in text
    others = {reference.partition(",")[0] for reference in page.references}
    assert others == {"data:image/png;base64", "#trial", "#second", "timings.md"}
    for name, row in markdown(tmp_path).items():  # the same figures as on the pages
        assert name in page.texts and row["Dice mean"] in page.texts + ["–"]
    assert "prefers-color-scheme: dark" in text


def test_numbers_of_the_report_sort_as_numbers(tmp_path):
    tables.write_all(fill(tmp_path))
    text = (tmp_path / "report.html").read_text()
    assert re.search(r'<td class="n" data-v="-0\.05">-0\.050 \[', text)
    assert re.search(r'<td class="n" data-v="0\.8465">0\.84[67] ± ', text)  # 0.8 + 0.045, and 0.0015 from the seeds


def test_nothing_finished_yet(tmp_path, pictures):
    plan(tmp_path, seeds=(0, 1, 2))
    tables.write_all(tmp_path)
    assert {row["Decision"] for row in markdown(tmp_path).values()} == {"incomplete: 0 of 3 trainings"}
    index = (tmp_path / "index.md").read_text()
    assert "No answer yet, the reference has no figures: incomplete: 0 of 3 trainings." in index
    assert "python ablations/run_all.py" in index and "cores 2" in index
    assert Outline((tmp_path / "report.html").read_text()).counts["table"] == 1
    assert (tmp_path / "timings.csv").is_file() and (tmp_path / "trial.png").is_file()


def test_damaged_folders_are_named(tmp_path):
    with pytest.raises(UserError, match="sweep.json cannot be read"):
        tables.write_all(tmp_path)
    plan(tmp_path)
    finish(tmp_path, "ref", {"A": [HALF]})
    path = tmp_path / "cells" / "ref" / "seed0_fold0" / "cases.csv"
    whole = path.read_text()
    for text, what in (
        (whole.replace("dice_LV", "dice"), "KeyError.*dice_LV"),
        (whole + whole.splitlines()[1], "frame 1 of A twice"),
        (whole.replace("0.5", "much"), "ValueError.*much"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=f"cases.csv .*{what}"):
            tables.write_all(tmp_path)
    path.write_text(whole)
    (tmp_path / "cells" / "ref" / "seed0_fold0" / "done.json").write_text("{")
    with pytest.raises(UserError, match="done.json cannot be read"):
        tables.write_all(tmp_path)


def test_a_folder_without_its_done_file_is_not_there(tmp_path):
    plan(tmp_path)
    finish(tmp_path, "ref", {"A": [HALF]})
    (tmp_path / "cells" / "ref" / "seed0_fold0" / "done.json").unlink()  # being removed for another try
    tables.write_all(tmp_path)
    assert markdown(tmp_path)["reference"]["Decision"] == "incomplete: 0 of 1 training"
