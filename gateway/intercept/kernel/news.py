"""What the kernel tells of changes that others make, by netlink."""

from __future__ import annotations

import socket

from gateway.errors import EnvironmentFailureError


def heard_of(subsystem: int, groups: int) -> socket.socket:
    """A socket that is readable when these groups are told something. Raises EnvironmentFailureError."""
    heard = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, subsystem)
    try:
        heard.bind((0, groups))
    except OSError as error:
        heard.close()
        raise EnvironmentFailureError(f"changes are not told: {error.strerror}") from error
    return heard
