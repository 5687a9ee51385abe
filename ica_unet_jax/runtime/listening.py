"""Sockets that listen, and who can reach them."""

from __future__ import annotations

import ipaddress
import secrets
import socket

from ica_unet_jax.errors import UserError


def listening(bind: str, port: int, names: str = "--bind or --port") -> socket.socket:
    """A socket that listens; port 0 takes a free one. Raises UserError, with the `names` of the flags, where that cannot be."""
    try:
        family, *_, address = socket.getaddrinfo(bind, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address, family=family, backlog=16)
    except (OSError, OverflowError, UnicodeError) as error:  # the last: no name of a machine
        raise UserError(f"{bind}:{port} cannot be listened on ({error}): change {names}.") from error


def is_local(listener: socket.socket) -> bool:
    """Whether this machine alone can reach it."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def make_token() -> str:
    """A password for whoever comes from elsewhere."""
    return secrets.token_urlsafe(24)
