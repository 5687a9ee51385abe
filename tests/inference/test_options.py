"""Options of the commands that use a trained network: flags and keywords are one."""

import pytest
from absl import flags

from ica_unet_jax.config import DataConfig
from ica_unet_jax.errors import UserError
from ica_unet_jax.inference import options
from ica_unet_jax.inference.options import Options

KINDS = {name: getattr(options, name) for name in ("LOAD", "EXPORT", "STREAM", "PREDICT", "DECOMPOSE", "JUDGE")}


@pytest.mark.parametrize("names", KINDS.values(), ids=KINDS)
def test_flags_become_the_keywords_of_their_function(names, monkeypatch):
    values = flags.FlagValues()
    for kind in ("bool", "enum", "string"):
        define = getattr(flags, f"DEFINE_{kind}")
        monkeypatch.setattr(options.flags, f"DEFINE_{kind}", lambda *a, define=define: define(*a, flag_values=values))
    monkeypatch.setattr(options.flags, "FLAGS", values)
    options.define(names)
    values(["program"])
    assert options.choose(names, options.given(names)) == Options()
    told = dict(checkpoint="best", window="follow", mirror=True, largest_component=True, neighbour_frames="itself", data_dir="a", reader="mms", cohort_csv="b", label_map="1:3", reorient=True, runtime="openvino", compute_dtype="bfloat16")
    told = {name: value for name, value in told.items() if name in names}
    values(["program", *(f"--{name}={str(value).lower() if value is True else value}" for name, value in told.items())])
    assert options.given(names) == told and options.choose(names, told) == Options(**told)


def test_what_is_no_option_of_a_function_is_refused():
    with pytest.raises(TypeError, match="mirror is no option here: there are checkpoint, window"):
        options.choose(options.STREAM, dict(mirror=True))
    with pytest.raises(UserError, match="--checkpoint=first is not known: choose one of latest, best"):
        options.choose(options.STREAM, dict(checkpoint="first"))
    with pytest.raises(UserError, match="--window=oracle needs a ground truth"):
        options.choose(options.PREDICT, dict(window="oracle"))
    assert options.choose(options.JUDGE, dict(window="oracle")).window == "oracle"


def test_without_being_told_it_is_as_in_training():
    trained = DataConfig(train_window="heart", data_dir="there", label_map="1:3,3:1")
    assert Options().seen_through(trained) == "follow" and Options(window="centre").seen_through(trained) == "centre"
    assert Options().cohort(trained) == trained
    other = Options(data_dir="here", label_map="").cohort(trained)
    assert (other.data_dir, other.label_map, other.train_window) == ("here", "", "heart")


def test_another_cohort_inherits_nothing_that_is_of_the_trainings_own():
    trained = DataConfig(data_dir="there", label_map="1:3,3:1", labelled_frames="1,4", reader="folder", cohort_csv="t.csv")
    with pytest.raises(UserError, match="--label_map=1:3,3:1 was given in the training; for --data_dir=here give it again, another one, or --label_map= for"):
        Options(data_dir="here").cohort(trained)
    for given in ("", "1:3,3:1"):
        other = Options(data_dir="here", label_map=given).cohort(trained)
        assert (other.label_map, other.labelled_frames, other.reader, other.cohort_csv) == (given, "", "auto", "")
