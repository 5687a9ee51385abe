"""metrics.jsonl and training.log: whole lines, none twice, and the time that they tell."""

from pathlib import Path

import pytest

from ica_unet_jax.errors import UserError
from ica_unet_jax.runs.log import Log, Metrics, Span, read_metrics, spans, training_minutes


def test_metrics_beyond_the_step_that_goes_on_are_dropped(tmp_path):
    log = Metrics(tmp_path, 0)
    for step in (1, 2, 3):
        log.write(step=step, loss=1 / step)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # killed while writing
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3]
    Metrics(tmp_path, 2).write(step=3, loss=9.0)
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}, {"step": 3, "loss": 9.0}]
    assert read_metrics(tmp_path / "nowhere") == []


def test_a_damaged_line_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n\0\0\0\n{"step": 3}\n')
    with pytest.raises(UserError, match="metrics.jsonl, line 2, is no JSON: remove the line."):
        read_metrics(tmp_path)


def test_a_pending_validation_is_written_anew(tmp_path):
    log = Metrics(tmp_path, 0)
    log.write(step=2, loss=0.5)
    log.write(step=2, dice_mean=0.5)
    Metrics(tmp_path, 2)
    assert len(read_metrics(tmp_path)) == 2
    Metrics(tmp_path, 2, pending=True)
    assert read_metrics(tmp_path) == [{"step": 2, "loss": 0.5}]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_a_sentence(tmp_path):
    log, diary = Metrics(tmp_path, 0), Log(tmp_path, lambda text: None)
    log.path = diary.path = Path("/dev/full")
    for write in (lambda: log.write(step=1, loss=1.0), lambda: diary("something happened")):
        with pytest.raises(UserError, match=r"/dev/full cannot be written \(No space left on device\): .* make room\."):
            write()


def test_training_time_leaves_out_compilation_and_validation():
    lines = [
        {"step": 1, "seconds_per_step": 50.0, "compiled": True},
        {"step": 31, "seconds_per_step": 2.0, "compiled": False},
        {"step": 31, "dice_mean": 0.5},
        {"step": 61, "seconds_per_step": 4.0, "compiled": False},
    ]
    assert spans(lines) == [Span(1, 50.0, True), Span(30, 2.0, False), None, Span(30, 4.0, False)]
    assert training_minutes(lines) == [0, 1, 1, 3]
    assert training_minutes([]) == []
