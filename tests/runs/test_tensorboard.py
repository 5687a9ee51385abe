"""The figures of metrics.jsonl as TensorBoard events."""

import struct

import pytest

from ica_unet_jax.config import Config
from ica_unet_jax.errors import UserError
from ica_unet_jax.runs.log import Metrics
from ica_unet_jax.runtime import packages
from ica_unet_jax.training import loop


def read(folder):
    """[(step, session start, {name: value})] of all event files, by the framing of TFRecord: length, crc, data, crc."""
    proto = pytest.importorskip("tensorboardX.proto.event_pb2")
    found = []
    for path in sorted(folder.iterdir(), key=lambda path: int(path.suffix[1:])):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = proto.Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            values = {value.tag: value.simple_value for value in event.summary.value}
            if not event.file_version:
                found.append((event.step, event.session_log.status == proto.SessionLog.START, values))
    return found


def test_events_are_the_lines_of_the_log(tmp_path):
    pytest.importorskip("tensorboardX")
    with Metrics(tmp_path, 0, tensorboard=True) as log:
        log.write(step=1, loss=0.5, compiled=True)
        log.write(step=2, dice_mean=0.25)
        # What stands there is whole at any time.
        assert read(tmp_path / "tensorboard") == [(1, True, {}), (1, False, {"loss": 0.5}), (1, False, {"compiled": 1}), (2, False, {"dice_mean": 0.25})]
    with Metrics(tmp_path, 1, tensorboard=True) as log:
        log.write(step=2, loss=0.125)
    # TensorBoard drops the steps from 2 on when it meets the second start.
    assert read(tmp_path / "tensorboard")[-2:] == [(2, True, {}), (2, False, {"loss": 0.125})]


def test_without_tensorboardx_a_sentence_comes_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(packages, "missing", list)
    config = Config.make(tensorboard=True, workdir=str(tmp_path / "run"))
    with pytest.raises(UserError, match=r'--tensorboard needs tensorboardX: pip install "ica-unet-jax\[tensorboard\]", or leave the flag out'):
        loop.train(config)
    assert not (tmp_path / "run").exists()


def test_a_full_disk_is_a_sentence(tmp_path):
    pytest.importorskip("tensorboardX")
    log = Metrics(tmp_path, 0, tensorboard=True)
    log.events.writer._py_recordio_writer._writer.close()
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(UserError, match="No space left on device"):
        log.events.writer._py_recordio_writer._writer = full
        log.write(step=1, loss=0.5)
