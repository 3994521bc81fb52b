"""How a worker tells the kernel that it lives, or has met somebody: by a datagram that our nft table notes.

What is not renewed the kernel forgets by itself, and lets SYNs pass by the gate: so mail goes on when every
process of ours is frozen, and nobody is left to take a queue out of the rules. A datagram, because it needs
no tool, no privilege that a worker has not anyway, and no memory of which rules stand; and because what it
says is so when the call returns.
Counterparts: the chains `beating`, `vouching` and `resting` in `iptables/*.nft`.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Final

from gateway.intercept.marks import MarkBits

PULSE_PORT: Final = 9
"""UDP, on loopback: discard. The mark says whose it is."""
_MET: Final = b"!"
"""Longer than a beat: that tells them apart."""
_MARK: Final = struct.Struct("=I")  # Python passes only signed integers


class Pulse:
    """Of the worker in one slot."""

    def __init__(self, marks: MarkBits, slot: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, _MARK.pack(marks.take(slot)))

    def beat(self) -> None:
        """Some ten microseconds. The kernel says EPERM where our rules have heard it."""
        with contextlib.suppress(OSError):
            self._socket.sendto(b"", ("127.0.0.1", PULSE_PORT))

    def met(self) -> None:
        """A gateway that was not known: no client rests at the gate from now on, for a while."""
        with contextlib.suppress(OSError):
            self._socket.sendto(_MET, ("127.0.0.1", PULSE_PORT))
