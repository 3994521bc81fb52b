"""`nightmail ping`: a session to an address as far as the channel, without mail, and what there was to see.

Drives the sending gateway's own machine with a throw-away identity, in place of a mail server that greets and
goes: EHLO with the address of this machine for a name, QUIT as the first command. Reads what is remembered,
remembers nothing. Counterparts: `session.sending`, `operator.ping_told` (the words).
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import time
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final

from gateway.config import Config, Placement
from gateway.crypto.keys import Ephemerals, IdentityKey, StaticKey, endorse
from gateway.crypto.messages import DialledAddress
from gateway.crypto.records import VerifiedPeer
from gateway.errors import EnvironmentFailureError
from gateway.intercept.marks import MarkBits
from gateway.peers.looks import Look, look_of
from gateway.peers.pins import Destination, Pin
from gateway.peers.store import PinStore
from gateway.policy import limits
from gateway.session import commands as c
from gateway.session.context import GatewayKeys, SendingContext
from gateway.session.events import (
    DeadlineReached,
    EndReceived,
    Event,
    OctetsReceived,
    RedialFailed,
    Redialled,
    ResetReceived,
    Side,
)
from gateway.session.sending import SendingSession, State
from gateway.smtp.capability import OfferSize, host_name, offer_fits, split_offer

_QUIT: Final = b"QUIT\r\n"
_SEED_OCTETS: Final = 32
_BEHIND_THE_VERB: Final = frozenset({State.CONFIRMING, State.AWAITING_STATEMENT, State.CHANNEL})


@dataclass
class Ping:
    """What was seen. Times are seconds, each from the end of the one before; what did not come has none."""

    destination: Destination
    memory_trouble: str = ""
    """Why what is remembered there is not known; empty: `pin` is all of it."""
    pin: Pin | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    """By step: connected, greeting, reply, channel, quit; in this order."""
    trouble: str = ""
    """Why there was no session, or why it broke off: words of ours or the kernel's."""
    look: Look | None = None
    """The server's own name and its keywords, without parameters."""
    offer: OfferSize | None = None
    fits: OfferSize | None = None
    """The largest offer that has room behind this reply."""
    decision: c.NoteDecision | None = None
    failures: list[c.NoteFact] = field(default_factory=list)
    peer: VerifiedPeer | None = None
    sent: int = 0
    """Octets on the wire from the verb on, and what came back for them, up to the answer to QUIT."""
    received: int = 0

    @property
    def protected(self) -> bool:
        return self.decision is not None and self.decision.upgraded and "quit" in self.seconds


def ping(config: Config, destination: Destination, seconds: float = limits.PING_SECONDS) -> Ping:
    """The whole of it, within so many seconds. What goes wrong there is in the answer, and never raised.

    Raises EnvironmentFailureError where the gateway of this machine itself would take the connection.
    """
    found = Ping(destination)
    _remembered(config, found)
    _Session(found, time.monotonic() + seconds, _mark(config, destination)).run()
    return found


def _mark(config: Config, destination: Destination) -> int:
    """What the socket bears, so that the gateway on this machine lets it be; 0 where none would take it."""
    if config.placement is not Placement.HOST or destination.port not in config.ports:
        return 0
    return MarkBits(config.marks.mask).dialled


def _remembered(config: Config, found: Ping) -> None:
    try:
        if config.pins_file.exists():
            with PinStore.read_only(config.pins_file) as store:
                found.pin = store.lookup(found.destination)
    except (PermissionError, EnvironmentFailureError) as error:
        found.memory_trouble = getattr(error, "strerror", None) or str(error)


class _LateError(Exception):
    """The time is over."""


class _Session:
    """One ping: a socket, the machine, and the mailer that speaks to it."""

    def __init__(self, found: Ping, until: float, mark: int) -> None:
        self._found = found
        self._until = until
        self._mark = mark
        self._at = time.monotonic()
        self._heard = b""
        """What the mailer has heard, less the replies that are complete."""
        self._replies = 0
        self._greeted = False
        self._to_say = b""
        """What the mailer says once the machine has done what it does now."""
        self._clear = b""
        """What the far side has said before the machine let anything of it be believed or relayed."""
        self._relayed = False
        self._ended = False
        self._verb_sent = False
        self._far: socket.socket | None = None

    def run(self) -> None:
        try:
            self._far = self._dialled()
            self._step("connected")
            self._machine = SendingSession(self._context())
            while not self._ended:
                self._turn()
                self._speak()
            self._part()
        except _LateError:
            self._found.trouble = f"no answer in time, {self._waits_for()}"
        except OSError as error:
            self._found.trouble = error.strerror or str(error)
        finally:
            if self._far is not None:
                self._far.close()

    def _dialled(self) -> socket.socket:
        destination = self._found.destination
        family = socket.AF_INET6 if ip_address(destination.address).version == 6 else socket.AF_INET
        made = socket.socket(family, socket.SOCK_STREAM)
        try:
            made.settimeout(self._left())
            self._set_apart(made)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.connect((destination.address, destination.port))
        except TimeoutError:
            made.close()
            raise _LateError from None
        except BaseException:
            made.close()
            raise
        return made

    def _set_apart(self, made: socket.socket) -> None:
        if not self._mark:
            return
        try:
            # Python passes only signed integers, and a mark may have its highest bit set.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", self._mark))
        except PermissionError:
            raise EnvironmentFailureError(
                "ping on the mail server itself needs root: else the gateway here takes the connection"
            ) from None

    def _context(self) -> SendingContext:
        assert self._far is not None
        today = int(time.time()) // limits.DAY_SECONDS
        identity = IdentityKey.from_seed(os.urandom(_SEED_OCTETS))
        endorsed = endorse(identity, StaticKey.draw(os.urandom, today), today)
        destination = self._found.destination
        return SendingContext(
            keys=GatewayKeys(identity.public, endorsed),
            dialled=DialledAddress.from_text(destination.address, destination.port),
            pin=self._found.pin,
            today=today,
            entropy=os.urandom,
            draw_ephemerals=lambda: Ephemerals.draw_for_answer(os.urandom),
        )

    # --- Turns ------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Wait for the far side, or for the machine's own time, and let the machine go on."""
        assert self._far is not None
        now, deadline = time.monotonic(), self._machine.deadline
        wait = self._left() if deadline is None else min(self._left(), max(deadline - now, 0))
        if not select.select([self._far], [], [], wait)[0]:
            if deadline is not None and time.monotonic() >= deadline:
                self._handle(DeadlineReached())
            return
        try:
            octets = self._far.recv(limits.READ_OCTETS)
        except ConnectionError as error:
            self._found.trouble = error.strerror or str(error)
            self._far_gone(ResetReceived(Side.FAR))
            return
        if not octets:
            self._far_gone(EndReceived(Side.FAR))
            return
        if self._verb_sent and "quit" not in self._found.seconds:
            self._found.received += len(octets)
        if self._relayed:
            self._hear(octets)
        else:
            self._clear += octets if not self._verb_sent else b""
            self._handle(OctetsReceived(Side.FAR, octets))

    def _far_gone(self, event: EndReceived | ResetReceived) -> None:
        if self._relayed or not self._verb_sent:
            self._ended = True
            if "quit" not in self._found.seconds:
                self._found.trouble = self._found.trouble or f"closed by the other end, {self._waits_for()}"
            return
        self._handle(event)

    def _handle(self, event: Event) -> None:
        for command in self._machine.handle(event, time.monotonic()):
            self._execute(command)

    def _execute(self, command: c.Command) -> None:
        if isinstance(command, c.SendOctets):
            if command.side is Side.NEAR:
                self._hear(command.octets)
            else:
                self._say(command.octets)
        elif isinstance(command, c.NoteDecision):
            self._found.decision = command
            if command.upgraded:
                self._step("channel")
        elif isinstance(command, c.NoteFact):
            self._found.failures.append(command)
        elif isinstance(command, c.RememberPeer):
            self._found.peer = command.peer  # shown, and forgotten with this process
        elif isinstance(command, c.RelayInClear):
            self._relayed = True
        elif isinstance(command, c.Redial):
            self._redial()
        elif isinstance(command, c.SendReset | c.CloseBoth) or command == c.SendEnd(Side.NEAR):
            self._ended = True

    def _redial(self) -> None:
        assert self._far is not None
        self._far.close()
        self._verb_sent = False
        self._clear = b""
        try:
            self._far = self._dialled()
        except OSError:
            self._handle(RedialFailed())
        else:
            self._handle(Redialled())

    # --- The mailer -------------------------------------------------------------------------------------

    def _hear(self, octets: bytes | bytearray) -> None:
        """What a mail server of this site would hear; answers each complete reply as that would."""
        self._heard += octets
        while not self._ended and (end := _reply_end(self._heard)):
            reply, self._heard = self._heard[:end], self._heard[end:]
            self._replies += 1
            self._answer(reply)

    def _answer(self, reply: bytes) -> None:
        if self._replies == 1:
            self._step("greeting")
            self._greeted = reply.startswith(b"220")
            self._found.look = look_of(host_name(reply), b"")
            self._to_say = b"EHLO %b\r\n" % self._own_name() if self._greeted else _QUIT
        elif self._replies == 2 and self._greeted:
            self._step("reply")
            if reply.startswith(b"250"):
                self._learn(reply)
            self._to_say = _QUIT
        else:
            self._step("quit")
            self._leave()
            self._ended = True

    def _learn(self, reply: bytes) -> None:
        """The reply as the mail server gets it, and what stood in front of it on the wire."""
        assert self._found.look is not None
        self._found.look = look_of(self._found.look.host, reply)
        self._found.fits = offer_fits(reply)
        raw = self._clear[_reply_end(self._clear) :]
        offer = split_offer(raw[: _reply_end(raw)]).offer
        self._found.offer = OfferSize(len(offer)) if offer is not None else None

    def _speak(self) -> None:
        octets, self._to_say = self._to_say, b""
        if not octets or self._ended:
            return
        if self._relayed:
            self._say(octets)
        else:
            self._handle(OctetsReceived(Side.NEAR, octets))

    def _say(self, octets: bytes | bytearray) -> None:
        assert self._far is not None
        self._far.settimeout(self._left())
        if self._machine.state in _BEHIND_THE_VERB:
            self._verb_sent = True
            self._found.sent += len(octets)
        try:
            self._far.sendall(octets)
        except TimeoutError:
            raise _LateError from None

    def _leave(self) -> None:
        """In a channel the end is a record: the other gateway sees an orderly one."""
        if self._machine.state is State.CHANNEL:
            self._handle(EndReceived(Side.NEAR))

    def _part(self) -> None:
        """Our FIN, and then theirs: a socket closed with octets unread would be a reset over there."""
        assert self._far is not None
        with contextlib.suppress(OSError):
            self._far.shutdown(socket.SHUT_WR)
            until = min(time.monotonic() + limits.PING_PART_SECONDS, self._until)
            while (left := until - time.monotonic()) > 0:
                self._far.settimeout(left)
                if not self._far.recv(limits.READ_OCTETS):
                    return

    def _own_name(self) -> bytes:
        """An address literal (RFC 5321 4.1.3): true, and says nothing that the connection does not."""
        assert self._far is not None
        address = str(self._far.getsockname()[0]).partition("%")[0]
        return (f"[IPv6:{address}]" if ":" in address else f"[{address}]").encode("ascii")

    def _step(self, name: str) -> None:
        now = time.monotonic()
        self._found.seconds.setdefault(name, now - self._at)
        self._at = now

    def _left(self) -> float:
        left = self._until - time.monotonic()
        if left <= 0:
            raise _LateError
        return left

    def _waits_for(self) -> str:
        waited = "greeting" if not self._replies else "answer to QUIT"
        if self._replies == 1 and self._greeted:
            waited = "reply to EHLO"
        return f"waiting for the {waited if self._far is not None else 'connection'}"


def _reply_end(octets: bytes) -> int:
    """Where the first complete reply ends; 0: it is not complete."""
    at = 0
    while end := octets.find(b"\n", at) + 1:
        if octets[at + 3 : at + 4] != b"-":
            return end
        at = end
    return 0
