"""A worker's way to the signer: offers go out to be signed, signatures come back, and nobody waits between.

What does not come back in time costs an offer, never a mail. Counterpart: `signer`, the process that holds
the identity.
"""

from __future__ import annotations

import os
import socket
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from gateway.crypto.primitives import ED25519_SIGNATURE_OCTETS
from gateway.policy import limits
from gateway.runtime.loop import Loop
from gateway.runtime.signer import NUMBER

Signed = Callable[[bytes | None], object]
_ANSWER_OCTETS: Final = NUMBER.size + ED25519_SIGNATURE_OCTETS + 1
"""So that a longer one is seen to be longer."""


class Signing:
    """`silent` is told once for each time that the signer stops answering."""

    def __init__(self, loop: Loop, sock: socket.socket, silent: Callable[[str], object]) -> None:
        self._loop = loop
        self._socket = sock
        self._silent = silent
        self._told = self._looking = self._closed = False
        self._waiting: OrderedDict[int, tuple[float, Signed]] = OrderedDict()
        # A worker before this one may have left answers behind: its numbers must not be ours.
        (self._number,) = NUMBER.unpack(os.urandom(NUMBER.size))
        sock.setblocking(False)
        loop.add_reader(sock.fileno(), self._readable)

    def sign(self, to_sign: bytes, signed: Signed) -> None:
        """`signed` is called later, in the loop, with the signature or None; not at all once it is late."""
        if self._closed or self._is_late():
            self._loop.call_soon(signed, None)
            return
        self._number = (self._number + 1) % (1 << 8 * NUMBER.size)
        try:
            self._socket.send(NUMBER.pack(self._number) + to_sign)
        except OSError as error:
            self._tell(error.strerror or "cannot be asked")
            self._loop.call_soon(signed, None)
            return
        self._waiting[self._number] = self._loop.time(), signed
        self._look_later()

    def close(self) -> None:
        """Ask no more: another process has this end now, and would get our answers. None for what waits."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._socket.fileno())
        for _, signed in self._waiting.values():
            self._loop.call_soon(signed, None)
        self._waiting.clear()

    def _look_later(self) -> None:
        """One timer for all that wait: what never comes is told though nobody asks again."""
        if not self._looking:
            self._looking = True
            self._loop.call_later(limits.SIGN_SECONDS, self._look)

    def _look(self) -> None:
        self._looking = False
        self._is_late()
        if self._waiting:
            self._look_later()

    def _is_late(self) -> bool:
        """Whether the oldest question has waited too long. What is lost for good is forgotten."""
        now = self._loop.time()
        while self._waiting:
            number, (asked_at, _) = next(iter(self._waiting.items()))
            if now - asked_at < limits.SIGNATURES_LOST_SECONDS:
                if now - asked_at < limits.SIGN_SECONDS:
                    return False
                self._tell(f"no answer for {now - asked_at:.1f} s")
                return True
            del self._waiting[number]
        return False

    def _readable(self) -> None:
        for _ in range(limits.LINK_MESSAGES_PER_TURN):
            try:
                packet = self._socket.recv(_ANSWER_OCTETS)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                packet = b""
            if not packet:
                self._loop.remove_reader(self._socket.fileno())
                return
            self._answered(packet)
            if not self._waiting:
                return  # there is hardly anything else to read; if there is, the loop tells it again

    def _answered(self, packet: bytes) -> None:
        if len(packet) < NUMBER.size:
            return
        waiting = self._waiting.pop(NUMBER.unpack_from(packet)[0], None)
        if waiting is None:
            return
        signature = packet[NUMBER.size :]
        if len(signature) != ED25519_SIGNATURE_OCTETS:
            self._tell("refuses to sign")
            waiting[1](None)
            return
        self._told = False
        waiting[1](signature)

    def _tell(self, detail: str) -> None:
        if not self._told:
            self._told = True
            self._silent(detail)
