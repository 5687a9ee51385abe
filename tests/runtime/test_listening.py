"""Sockets that listen."""

import pytest

from ica_unet_jax.errors import UserError
from ica_unet_jax.runtime.listening import is_local, listening


def test_a_port_that_is_taken_is_told():
    with listening("127.0.0.1", 0) as taken, pytest.raises(UserError, match="cannot be listened on.*change --port"):
        listening("127.0.0.1", taken.getsockname()[1], "--port")


@pytest.mark.parametrize("bind", ("a..b", "x" * 70, "no.such.machine.invalid"))
def test_a_name_that_is_none_is_told(bind):
    with pytest.raises(UserError, match="cannot be listened on"):
        listening(bind, 0)


def test_only_this_machine_is_local():
    for bind, local in (("127.0.0.1", True), ("localhost", True), ("0.0.0.0", False)):
        with listening(bind, 0) as listener:
            assert is_local(listener) == local
