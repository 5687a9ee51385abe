"""The studies ask what they say: titles, labels, shared cells, matched controls."""

import itertools
import re

import pytest
from places import ROOT

from ablations.studies import STUDIES, choose
from ica_unet_jax.benchmarking import work
from ica_unet_jax.config import Config
from ica_unet_jax.errors import UserError
from ica_unet_jax.sweeps import titles
from ica_unet_jax.sweeps.plan import Sweep, cell_name
from ica_unet_jax.sweeps.study import Study, label

BASE = Config.make(crop=(8, 96, 96), contracting_blocks=3)
NAMES = (
    "loss_terms basis_dimension contracting_blocks projection_width bases_from ica_weight alpha neighbours correlation "
    "streams supervision"
).split()


def study(name):
    return choose(name)[0]


def configs(name):
    return study(name).configs(BASE)


def test_the_engine_is_handed_its_studies():
    """`ablations` is not in the wheel."""
    files = [*(ROOT / "ica_unet_jax").rglob("*.py")]
    assert files and not [path for path in files if re.search(r"^\s*(from|import) ablations\b", path.read_text(), re.MULTILINE)]


def test_the_eleven_studies_stand_in_their_order():
    assert [s.name for s in STUDIES] == NAMES
    assert choose("all") == list(STUDIES)
    assert [s.name for s in choose("alpha, streams,alpha")] == ["alpha", "streams"]
    for bad in ("alpha,colour", ""):
        with pytest.raises(UserError, match="loss_terms"):
            choose(bad)


@pytest.mark.parametrize("name", NAMES)
def test_every_cell_is_another_one_and_says_what_it_changes(name):
    found = configs(name)
    labels = [label(config, found[0]) for config in found]
    assert labels[0] == "reference" and len(set(labels)) == len(labels) > 1
    for text, config in zip(labels[1:], found[1:], strict=True):
        assert [part.split("=")[0] for part in text.split(", ")] == list(config.diff(found[0]))


def test_the_number_of_cells():
    # loss_terms: all combinations of three; basis_dimension: the reference stands for m = 32; neighbours: four kinds, two students.
    expected = dict(zip(NAMES, (8, 7, 3, 4, 4, 4, 3, 6, 4, 4, 2), strict=True))
    assert {name: len(configs(name)) for name in NAMES} == expected


def test_constant_width_keeps_the_number_of_channels():
    by_bases = {}
    for config in configs("basis_dimension"):
        by_bases.setdefault(config.model.bases, set()).add(config.model.stream_width)
    assert by_bases == {8: {8, 32}, 16: {8, 16}, 32: {8}, 64: {8, 4}}


def test_loss_terms_is_the_full_factorial_with_the_papers_loss_alone():
    found = configs("loss_terms")
    assert {config.loss.dice_weight for config in found} == {0}
    assert not any(config.loss.standardize_bases or config.loss.whiten_bases for config in found)
    counted = [tuple(bool(config.loss.ica_weight * getattr(config.loss, term)) for term in study("loss_terms").factors) for config in found]
    assert sorted(counted) == sorted(itertools.product((False, True), repeat=3))
    titles = list(study("loss_terms").titled(BASE))
    for title, levels in zip(titles, counted, strict=True):
        letters = {letter for letter, there in zip("SIR", levels, strict=True) if there}
        words = {"all three": set("SIR"), "none": set()}
        expected = words.get(title) if title in words else set("SIR") - {title[-1]} if title.startswith("without") else {title[0]}
        assert letters == expected


@pytest.mark.parametrize("name, expected", [
    ("basis_dimension", ["m = 32, p = 8", "m = 8", "m = 16", "m = 64", "m = 8, p = 32", "m = 16, p = 16", "m = 64, p = 4"]),
    ("streams", ["independent streams", "shared streams", "dense, equal work", "dense, equal parameters"]),
    ("ica_weight", ["beta = 0.2", "beta = 0", "beta = 0.05", "beta = 1"]),
])  # fmt: skip
def test_titles_are_for_a_reader(name, expected):
    assert list(study(name).titled(BASE)) == expected


def test_a_title_of_a_label_is_that_of_its_changes():
    assert titles.of_label("bases=8, stream_width=32") == titles.title(dict(bases=8, stream_width=32)) == "m = 8, p = 32"
    assert titles.of_label("whiten_bases=True") == titles.title(dict(whiten_bases=True)) == "whitened bases"
    assert titles.of_label("crop=4x96x96") == titles.title(dict(crop=(4, 96, 96))) == "crop = 4x96x96"
    assert titles.of_label("reference") == titles.title({}) == "reference"


def test_two_cells_of_one_title_are_refused():
    with pytest.raises(UserError, match="two cells have one title"):
        Study("a", "?", "", [("same", dict(bases=8)), ("same", dict(bases=4))]).configs(BASE)


def test_the_dense_controls_match_work_and_parameters():
    independent, _, by_work, by_size = (config.model for config in configs("streams"))
    assert by_work.streams == by_size.streams == "dense"

    assert abs(work.of_a_frame(by_work) / work.of_a_frame(independent) - 1) < 0.05
    assert abs(work.parameters(by_size) / work.parameters(independent) - 1) < 0.05


def test_contracting_blocks_share_a_grid_that_fits_all():
    assert {config.model.crop for config in configs("contracting_blocks")} == {(8, 128, 128)}
    assert {config.model.contracting_blocks for config in configs("contracting_blocks")} == {2, 3, 4}


def test_neighbours_are_compared_with_the_papers_whatever_the_flags():
    [study] = choose("neighbours")
    reference, *cells = study.configs(BASE.replace(neighbours="past", distillation_weight=1.0))
    assert (reference.model.neighbours, reference.loss.distillation_weight) == ("both", 0)
    assert [config.loss.distillation_weight for config in cells] == [0, 0, 0, 1, 1]


def sweep(tmp_path, **changes):
    options = dict(workdir=tmp_path, base=BASE, studies=choose("ica_weight,alpha"), folds=1, seeds=2)
    return Sweep(**options | changes)


def test_a_cell_of_several_studies_runs_once(tmp_path):
    cells = sweep(tmp_path).cells()
    assert len(cells) == 4 + 3 - 1  # the reference is shared
    assert next(iter(cells)).startswith("reference-")
    runs = list(sweep(tmp_path).runs())
    assert len(runs) == 6 * 2 == len({run.config.train.workdir for run in runs})
    assert {run.config.train.seed for run in runs[:6]} == {0}  # a whole block before the next


def test_a_changed_setting_never_meets_an_old_folder(tmp_path):
    names = {cell_name(BASE.replace(**changes), BASE) for changes in ({}, dict(steps=7), dict(alpha=0.5), dict(folds=4))}
    assert len(names) == 4
    # Where things lie, the seed and the fold are no part of the cell.
    assert cell_name(BASE.replace(workdir="x", cache_dir="y", seed=3, fold=1), BASE) == cell_name(BASE, BASE)
    for number in (1, 2):
        (tmp_path / f"{number}.json").write_text(f"{{{number}}}")
    one, other = (cell_name(BASE.replace(split_file=str(tmp_path / f"{n}.json")), BASE) for n in (1, 2))
    assert one != other


def test_folds_are_all_run_or_one_split_is(tmp_path):
    whole = sweep(tmp_path, folds=3)
    assert {(run.config.data.fold, run.config.data.folds) for run in whole.runs()} == {(0, 3), (1, 3), (2, 3)}
    assert {run.config.data.fold for run in sweep(tmp_path).runs()} == {0}
    with pytest.raises(UserError, match="--folds=3 with --split_file"):
        sweep(tmp_path, folds=3, base=BASE.replace(split_file="a.json"))
    with pytest.raises(UserError, match="--split_by=published: this is one split, and no 3 folds"):
        sweep(tmp_path, folds=3, base=BASE.replace(split_by="published"))
    for folds in (1, 3):
        with pytest.raises(UserError, match="--split_by=none: nobody validates, so nothing can be compared"):
            sweep(tmp_path, folds=folds, base=BASE.replace(split_by="none"))


def test_a_study_of_ones_own_is_a_few_lines(tmp_path):
    mine = Study("decoder", "How wide should a decoder be?", "3", [dict(decoder_width=width) for width in (8, 16)])
    described = sweep(tmp_path, studies=[mine]).description()["studies"][0]
    assert [cell["label"] for cell in described["cells"]] == ["reference", "decoder_width=8", "decoder_width=16"]
    assert described["reference"] == described["cells"][0]["cell"]
    assert described["cells"][1]["parameters"] < described["cells"][2]["parameters"] < described["cells"][0]["parameters"]
