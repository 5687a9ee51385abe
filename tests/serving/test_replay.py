"""The scanner to try a server on: it says what came of it, and never more."""

import socket
import struct
import threading

import nibabel as nib
import numpy as np
import pytest
from ismrmrd import ImageHeader
from ismrmrd.meta import Meta
from wires import answer, cine, serving

from ica_unet_jax.errors import UserError
from ica_unet_jax.serving import mrd, replay


@pytest.fixture
def source(tmp_path):
    image = nib.Nifti1Image(cine(4).T, np.diag([-1.25, -1.5, 10.0, 1.0]))
    nib.save(image, tmp_path / "cine.nii.gz")
    return tmp_path / "cine.nii.gz"


def test_frames_without_a_mask_are_named(source, tmp_path):
    with serving(mrd.Talk, mrd.refusal) as port:
        whole = replay.replay(source, "127.0.0.1", port, rate=0)
        part = replay.replay(source, "127.0.0.1", port, rate=100, seconds=0.02, output=tmp_path / "masks.nii.gz")
    assert whole["without_mask"] == [] and "no mask" not in replay.describe(whole)
    assert part["without_mask"] == [3, 4] and "2 frames of the file have no mask" in replay.describe(part)
    masks = np.asarray(nib.load(tmp_path / "masks.nii.gz").dataobj).T
    assert (masks[:2] == answer(cine(4)[:2])).all() and not masks[2:].any()


@pytest.mark.parametrize("name", ["output", "json_file"])
def test_what_is_played_is_not_overwritten(source, name):
    before = source.read_bytes()
    with serving(mrd.Talk, mrd.refusal) as port, pytest.raises(UserError, match="is the file that is played"):
        replay.replay(source, "127.0.0.1", port, **{name: source.parent / "." / source.name})
    assert source.read_bytes() == before


@pytest.mark.parametrize("odd", [dict(slice=99), dict(phase=99), dict(matrix_size=(5, 5, 1))])
def test_an_answer_to_nothing_that_was_played_ends_it(source, odd):
    header = ImageHeader(version=1, data_type=1, channels=1)
    header.matrix_size = (6, 8, 1)
    for name, value in odd.items():
        setattr(header, name, value)
    columns, rows, _ = header.matrix_size

    def serve():
        connection, _ = listener.accept()
        with connection:
            connection.sendall(mrd.image_message(header, Meta(), np.zeros((rows, columns), "<u2")) + struct.pack("<H", mrd.CLOSE))
            while connection.recv(2**16):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with pytest.raises(UserError, match="ended the session: it sent an answer to nothing"):
            replay.replay(source, "127.0.0.1", listener.getsockname()[1], rate=0)
        thread.join(5)
