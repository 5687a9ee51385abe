"""Whole networks as rows of a study: what their launch files say, and nothing else, is theirs."""

import csv

import pytest
from places import ROOT

from ablations import acdc100, acdc100_pairs, networks
from ablations.studies import KNOWN, choose
from ica_unet_jax.benchmarking import work
from ica_unet_jax.config import Config, fields
from ica_unet_jax.runtime import launch_files

SWEEP = dict(crop=(6, 64, 64), spacing=2.0, steps=33, batch_size=2, evaluate_every=11, folds=3, data_dir="somewhere", rotation=7.0)
BASE = Config.make(**launch_files.read(networks.LAUNCH / "acdc.flags")).replace(**SWEEP)


def titled(name, base=BASE):
    return choose(name)[0].titled(base)


@pytest.mark.parametrize("study", [study.name for study in networks.NETWORKS if study.name not in ("lengths", "levers")])
def test_every_row_is_trained_on_the_sweeps_data_for_its_steps(study):
    shared = {field.name for _, field in fields()} - networks.OWN
    for title, config in titled(study).items():
        if title == "encoder trained by Eq. 1 alone":  # before the others, which then learn for as many steps as all do elsewhere
            assert config.train.steps - config.train.separate_ica_steps == SWEEP["steps"] and config.train.separate_ica_steps == 16
            config = config.replace(separate_ica_steps=0, steps=SWEEP["steps"])
        assert {name: config.flat()[name] for name in shared} == {name: BASE.flat()[name] for name in shared}
    assert {"crop", "spacing", "steps", "batch_size", "fold", "seed", "split_file", "workdir", "rotation"} <= shared


def test_the_rehearsal_has_ten_networks_as_their_files_say():
    rows = titled("rehearsal")
    assert len(rows) == 10 and next(iter(rows)) == "ICA-UNet"
    assert {rows[title].model.model for title in networks.RIVALS} == {"unet2d", "unet3d", "msu_net", "grid_net", "ensemble_unet", "omega_net"}
    assert rows["MSU-Net, span 2"].model.span == 2
    assert rows["paper, n = 4"].model.contracting_blocks == 4 and rows["paper, n = 3"].model.contracting_blocks == 3
    assert rows["no ICA"].model.mixing == "upsampled"
    for title, files in networks.TEN.items():
        own = launch_files.read(networks.LAUNCH / f"{files[-1]}.flags")
        assert all(rows[title].flat()[name] == value for name, value in own.items() if name in networks.OWN), title


def test_all_share_the_recipe_but_the_learning_rate():
    recipe = ("optimizer", "weight_decay", "schedule", "warmup_steps", "clip_norm", "ema_decay", "dice_weight", "flip", "depth_shift")
    rows = titled("rehearsal")
    for title in networks.RIVALS | networks.NO_ICA:
        assert [rows[title].flat()[name] for name in recipe] == [rows["ICA-UNet"].flat()[name] for name in recipe], title


def test_three_lengths_of_four_networks_of_which_two_are_in_the_loss_terms():
    rows = titled("lengths")
    assert [config.train.steps for config in rows.values()] == [33, *[16] * 4, *[33] * 3, *[66] * 4] and next(iter(rows)) == "ICA-UNet, 33 steps"
    for title, own in {"m = 8": dict(bases=8), "shared streams": dict(streams="shared"), "without R": dict(reconstruction_weight=0.0)}.items():
        for steps in (16, 33, 66):
            assert rows[f"{title}, {steps} steps"].diff(rows[f"ICA-UNet, {steps} steps"]) == own
    factorial = titled("loss_terms")
    assert rows["ICA-UNet, 33 steps"] == factorial["all three"] and rows["without R, 33 steps"] == factorial["without R"]


def test_the_page_lists_every_study():
    page = (ROOT / "docs" / "ablations.md").read_text(encoding="utf-8")
    assert [name for name in KNOWN if f"| {name} |" not in page] == []


def test_pairs_at_full_size_are_those_of_the_small_window():
    rows, main, terms = titled("full_size"), titled("main"), titled("loss_terms", BASE.replace(contracting_blocks=4))
    small, design = {"main": main, "loss_terms": terms}, acdc100.study("design")
    for (study, title), (titles, twins) in acdc100_pairs.PAIRS.items():
        assert title in [one.title for one in acdc100.study(study).decided]
        if study in small:
            assert [rows[name] for name in titles] == [small[study][name] for name in twins]
        else:
            assert set(twins) <= {line.title for line in design.lines}
    assert {name for titles, _ in acdc100_pairs.PAIRS.values() for name in titles} == set(rows) and next(iter(rows)) == "ICA-UNet"
    assert rows["recommended network"] == main["recommended network"]
    assert rows["bases from the frame alone"].diff(main["recommended network"]) == dict(bases_from="frame")


def test_three_learning_rates_each():
    rows = titled("learning_rate")
    assert len(rows) == 30
    rates = {title: config.train.learning_rate for title, config in rows.items() if title.startswith("U-Net 2D,")}
    assert sorted(rates.values()) == [1.3e-3, 4e-3, 1.2e-2]
    assert all(float(title.split()[-1]) == rate for title, rate in rates.items())
    assert [networks._short(rate) for rate in (1.3e-3, 4e-3, 0.012, 1.0)] == ["1.3e-3", "4e-3", "1.2e-2", "1e0"]


def test_launch_files_have_the_best_of_the_rates_that_were_tried():
    """By the committed search on the choosing fold."""
    with (ROOT / "ablations" / "results" / "choosing_learning_rate" / "learning_rate.csv").open() as file:
        tried = [(*line["title"].split(", learning rate "), line["dice_mean"]) for line in csv.DictReader(file) if line["dice_mean"]]
    own = {title: config.train.learning_rate for title, config in titled("rehearsal").items()}
    for title in own:
        found = {float(rate): float(dice) for name, rate, dice in tried if name == title}
        assert len(found) == 3 and own[title] == max(found, key=found.get), title


def test_published_rows_stand_beside_their_twins():
    rows = titled("published")
    marked = [title for title in rows if title.endswith(", published training")]
    assert marked and all(title.partition(",")[0] in rows for title in marked)
    for title in marked:
        ours, theirs = rows[title.partition(",")[0]], rows[title]
        assert theirs.model == ours.model and theirs != ours


def test_the_method_is_what_the_main_table_compares_with():
    rows = titled("main")
    assert [*rows][:2] == ["ICA-UNet", "recommended network"]
    ours, recommended = [*rows.values()][:2]
    assert (ours.model.streams, recommended.model.streams) == ("independent", "dense")
    assert recommended.data == ours.data and recommended.train.steps == ours.train.steps
    assert rows["no ICA"].diff(rows["ICA-UNet"]).keys() == {"mixing", "decoder_frame", "decoder_width", "ica_weight"}


def test_where_the_grid_does_not_take_n_4_the_main_table_has_the_sweeps_n():
    base = BASE.replace(crop=(6, 96, 96), contracting_blocks=3)
    rows = titled("main", base)
    assert len(rows) == 10 and next(iter(rows)) == "ICA-UNet"
    ours = [config for config in rows.values() if config.model.model == "ica_unet"]
    assert len(ours) == 4 and {config.model.contracting_blocks for config in ours} == {3}
    read = Config.make(**launch_files.read(networks.LAUNCH / "paper_n3.flags")).flat()
    assert {name: rows["paper, n = 3"].flat()[name] for name in networks.OWN} == {name: read[name] for name in networks.OWN}
    assert work.parameters(rows["no ICA"].model) == pytest.approx(work.parameters(rows["ICA-UNet"].model), rel=0.02)
    assert rows["ICA-UNet"] == choose("loss_terms")[0].titled(base)["all three"].replace(dice_weight=base.loss.dice_weight)
    assert titled("main", BASE.replace(contracting_blocks=3))["ICA-UNet"].model.contracting_blocks == 4


def test_the_recommended_network_and_the_weights_are_the_last_that_were_tried():
    read = {name: launch_files.read(networks.LAUNCH / f"{name}.flags") for name in ("acdc_causal", "recommended", "any_orientation")}
    tried = [Config.make(**read["acdc_causal"]).replace(crop=(10, 128, 128), **changes) for _, changes in networks.levers(Config.make(**read["acdc_causal"]))]
    assert tried[-2:] == [Config.make(**read["recommended"]), Config.make(**read["recommended"] | read["any_orientation"])]


@pytest.mark.parametrize("streams", ["independent", "dense"])
def test_design_changes_one_thing_each(streams):
    base = BASE.replace(streams=streams, stream_width=39 if streams == "dense" else 8)
    reference, *cells = titled("design", base).values()
    assert reference == base and len(cells) == (8 if streams == "dense" else 9) and next(iter(titled("design", base))) == "the whole network"
    assert len(titled("design", base.replace(contracting_blocks=3))) == len(cells)  # which has n = 3 already
    together = {"no ICA": {"mixing", "decoder_frame", "decoder_width", "ica_weight"}, "dense, equal work": {"streams", "stream_width"}}
    together |= {"independent streams, equal work": {"streams", "stream_width"}, "shared streams": {"streams", "stream_width"}}
    for title, config in titled("design", base).items():
        assert len(config.diff(base)) <= 1 or set(config.diff(base)) <= together[title], title
    rows = titled("design", base)
    assert work.parameters(rows["no ICA"].model) == pytest.approx(work.parameters(base.model), rel=0.02)
    other = rows["dense, equal work" if streams == "independent" else "independent streams, equal work"]
    assert work.of_a_frame(other.model) == pytest.approx(work.of_a_frame(base.model), rel=0.1)


def test_what_is_off_is_switched_on():
    rows = titled("design", BASE.replace(decoder_frame=True, concatenation_over="all", reconstruction_weight=0.0))
    assert not rows["without the frame in the decoders"].model.decoder_frame
    assert rows["concatenation over each stream"].model.concatenation_over == "stream"
    assert rows["with reconstruction"].loss.reconstruction_weight == 1
