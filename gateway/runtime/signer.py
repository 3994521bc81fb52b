"""The process that holds the identity, and signs offers with it: nothing else, for nobody else.

Started by the supervisor; each worker has a socket pair to it. It reads one packet of a fixed length and
form, and answers with a signature, so that a worker taken over by its peers cannot take the identity along.
Must never sign what is not an offer of this identity and of these days. Imports no event loop: it has less to
hold, and less to go wrong.
Counterparts: `signing` (asks), `signer_process` (starts it, and tells it the key).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Final, cast

from gateway import LIBRARY_TROUBLE
from gateway.crypto.keys import IdentityKey, Label
from gateway.crypto.messages import OFFER_SIGNED
from gateway.policy import limits
from gateway.runtime import hardening, system_calls
from gateway.runtime.hardening import Confinement

NUMBER: Final = struct.Struct("!Q")
"""Of a request; its answer begins with the same. Behind it stands what is to be signed, or the signature, or
nothing where the signer refuses."""
_ENDED: Final = select.POLLHUP | select.POLLRDHUP
_ASKED_OCTETS: Final = NUMBER.size + OFFER_SIGNED.octets + 1
"""So that a longer packet is seen to be longer."""


class Keys:
    """The identity in use, and for a while the one before it, by their public keys."""

    def __init__(
        self, clock: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic
    ) -> None:
        """`steady`: one that nobody sets."""
        self._clock = clock
        self._steady = steady
        self._keys: dict[bytes, IdentityKey] = {}
        self._in_use = b""
        self._old_until = 0.0

    def use(self, seed: bytes) -> None:
        key = IdentityKey.from_seed(seed)
        octets = key.public.octets
        if octets == self._in_use:
            return
        kept = {self._in_use: self._keys[self._in_use]} if self._in_use in self._keys else {}
        self._keys = {**kept, octets: key}
        self._in_use = octets
        self._old_until = self._steady() + limits.SIGNER_KEEPS_SECONDS

    def forget_old(self) -> None:
        if len(self._keys) > 1 and self._steady() > self._old_until:
            self._keys = {self._in_use: self._keys[self._in_use]}

    def sign(self, to_sign: bytes) -> bytes:
        """The signature; empty if this is no offer of ours that is made now."""
        if len(to_sign) != OFFER_SIGNED.octets:
            return b""
        values = OFFER_SIGNED.decode(to_sign)
        key, epoch = self._keys.get(cast("bytes", values["identity"])), cast("int", values["epoch"])
        today = int(self._clock()) // limits.DAY_SECONDS
        # An offer of a day to come could be kept until then.
        if key is None or not today - 1 <= epoch <= today + 1:
            return b""
        return key.sign(Label.OFFER, to_sign)


class Allowance:
    """How much one worker may have signed now."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left = float(limits.SIGNATURES_PER_SECOND)
        self._at = clock()

    def spend(self) -> bool:
        now = self._clock()
        most = float(limits.SIGNATURES_PER_SECOND)
        self._left = min(most, self._left + (now - self._at) * most)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Signer:
    """`serve` returns when nobody is left who could ask."""

    def __init__(self, link: socket.socket, workers: list[socket.socket]) -> None:
        self._link: socket.socket | None = link
        self._workers = {sock.fileno(): (sock, Allowance()) for sock in workers}
        self._keys = Keys()
        self._signed = self._refused = 0
        self._poll = select.poll()
        for sock in (link, *workers):
            sock.setblocking(False)
            self._poll.register(sock, select.POLLIN | select.POLLRDHUP)

    def serve(self) -> None:
        report_at = 0.0
        while self._link is not None or self._workers:
            ready = dict(self._poll.poll(limits.COUNTERS_EVERY_SECONDS * 1000))
            # First what the supervisor says: a worker may know of a new identity already.
            if self._link is not None and self._link.fileno() in ready:
                self._told(self._link)
            for descriptor in ready.keys() & self._workers.keys():
                self._asked(descriptor, ended=bool(ready[descriptor] & _ENDED))
            now = time.monotonic()
            if now >= report_at:
                report_at = now + limits.COUNTERS_EVERY_SECONDS
                self._keys.forget_old()
                self._report()

    def _told(self, link: socket.socket) -> None:
        packet = _received(link, limits.LINK_MESSAGE_OCTETS)
        if packet is None:
            return
        if packet:
            self._keys.use(bytes.fromhex(json.loads(packet)["seed"]))
            return
        # The supervisor is gone. Workers that still have sessions to finish are served.
        self._poll.unregister(link)
        link.close()
        self._link = None

    def _asked(self, descriptor: int, *, ended: bool) -> None:
        """One packet a turn, so that no worker keeps the others waiting. `ended`: its other end says no more.

        A packet may be empty, and one who sends such a one is not to be the last of its slot who is heard.
        """
        sock, allowance = self._workers[descriptor]
        packet = _received(sock, _ASKED_OCTETS)
        if packet is None or (not packet and not ended):
            return
        if not packet:
            self._poll.unregister(sock)
            del self._workers[descriptor]
            sock.close()
            return
        number, to_sign = packet[: NUMBER.size], packet[NUMBER.size :]
        signature = self._keys.sign(to_sign) if allowance.spend() else b""
        self._signed += bool(signature)
        self._refused += not signature
        try:
            sock.send(number + signature)
        except OSError:
            return  # the worker does not read: its sessions go on without an offer

    def _report(self) -> None:
        """Also what it has told before: it is a proof of life."""
        if self._link is not None:
            with contextlib.suppress(OSError):  # the supervisor does not read, or is gone
                self._link.send(json.dumps({"signed": self._signed, "refused": self._refused}).encode())


def _received(sock: socket.socket, octets: int) -> bytes | None:
    """One packet; empty at the end, None if there is none."""
    try:
        return sock.recv(octets)
    except (BlockingIOError, InterruptedError):
        return None
    except OSError:
        return b""


def main() -> int:
    """`python -m gateway.runtime.signer CONFINEMENT LINK_FD WORKER_FD...`, as the supervisor calls it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends when its last worker has
    link, *workers = (socket.socket(fileno=int(word)) for word in sys.argv[2:])
    signer = Signer(link, workers)
    # Before the supervisor's first message brings the secret.
    layers = hardening.confine(Confinement.from_json(json.loads(sys.argv[1])))
    layers += hardening.filter_calls(system_calls.SIGNER_CALLS)
    link.send(json.dumps({"ready": os.getpid(), "layers": layers, "trouble": LIBRARY_TROUBLE}).encode())
    signer.serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
