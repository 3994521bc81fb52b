"""Two ends of one SMTP connection, driven step by step from one place, with every octet written down.

Sender and receiver are sockets of this process that live in two namespaces; what is between them (nothing,
one gateway, two) is the test's business. Nothing here understands SMTP, but for the place of an offer in a
reply. Counterparts: `steps`, what the parties can do; `dialogues`, the scripts.
"""

from __future__ import annotations

import enum
import itertools
import re
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.config import Placement
from gateway.eyes.wire import WireSession
from gateway.lab.lab import Lab
from gateway.lab.network import inside
from gateway.lab.topology import SMTP_PORT, Family
from tests.lab.steps import Close, End, Hear, HearEnd, HearReset, Party, Pause, Reset, Say, Step, Tls
from tests.lab.tls_ends import TlsContexts, TlsEnd

PATIENCE = 15.0
READ = 256 * 1024
FIRST_PORT = 20_000
KEYWORD = b"XNIGHTMAIL"
OFFER = re.compile(
    rb"250-([^\r\n]*\r\n)(?:250-XNIGHTMAIL 1 \d/\d [\w-]+\r\n)*250 XNIGHTMAIL 1 (\d)/\2 [\w-]+\r\n"
)
"""With the line before it, which was the last one before the offer came behind it."""
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
KINDS = {Family.V4: socket.AF_INET, Family.V6: socket.AF_INET6}


# --- What came of it ------------------------------------------------------------------------------------


class Over(enum.Enum):
    """How a party learned that the other says no more."""

    OPEN = "open"
    END = "end"
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class Heard:
    """All that one party saw of the other."""

    octets: bytes
    over: Over
    plain: bytes = b""
    """What came out of TLS."""

    def __str__(self) -> str:
        return f"{len(self.octets)} octets, {self.over.value}, last {self.octets[-60:]!r}"


@dataclass(frozen=True, slots=True)
class Outcome:
    sender: Heard
    receiver: Heard
    said_by_sender: bytes
    said_by_receiver: bytes
    source: tuple[str, int]
    """Where the sender's socket is bound."""
    seen_source: tuple[str, int]
    """Where the receiver sees it come from."""
    destination: tuple[str, int]
    offer: bytes = b""
    """What was cut out of what the sender heard."""
    began: float = 0.0
    """time.time() before the connection was made."""

    def __repr__(self) -> str:
        return f"<sender heard {self.sender}; receiver heard {self.receiver}>"


@dataclass(slots=True)
class _Side:
    socket: socket.socket
    heard: bytearray = field(default_factory=bytearray)
    said: bytearray = field(default_factory=bytearray)
    pending: deque[bytes] = field(default_factory=deque)
    over: Over = Over.OPEN
    reset_behind_end: bool = False
    plain: bytearray = field(default_factory=bytearray)
    offer: bytes = b""
    """What a receiving gateway added for a sending one; cut out of `heard`."""

    @property
    def closed(self) -> bool:
        return self.socket.fileno() < 0


class Exchange:
    """One connection. `run` answers what each party saw; both sockets are closed in any case."""

    def __init__(
        self, sender: socket.socket, receiver: socket.socket, tls: TlsContexts | None, *, cut_offer: bool
    ) -> None:
        self._sides = {Party.SENDER: _Side(sender), Party.RECEIVER: _Side(receiver)}
        self._cut_offer = cut_offer
        self._tls = tls
        for side in self._sides.values():
            side.socket.setblocking(False)
            side.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def run(self, steps: tuple[Step, ...], patience: float = PATIENCE) -> tuple[_Side, _Side]:
        try:
            for number, step in enumerate(steps):
                try:
                    self._STEPS[type(step)](self, step, patience)
                except TimeoutError:
                    raise AssertionError(f"step {number}, {str(step)[:200]}: {self._state()}") from None
        finally:
            for side in self._sides.values():
                side.socket.close()
        return self._sides[Party.SENDER], self._sides[Party.RECEIVER]

    def _state(self) -> str:
        told = []
        for party, side in self._sides.items():
            unheard = len(side.said) - len(self._sides[party.other].heard)
            told.append(
                f"{party.value} said {len(side.said)} ({unheard} unheard, {len(side.pending)} unsent), "
                f"heard {len(side.heard)} {bytes(side.heard[-80:])!r}, {side.over.value}"
            )
        return f"not within {PATIENCE:g} s; " + "; ".join(told)

    # --- Steps --------------------------------------------------------------------------------------

    def _say(self, step: Say, patience: float) -> None:
        self._give(step.party, step.octets, step.pieces)
        if step.heard:
            self._hear(Hear(step.party.other), patience)
        else:
            self._until(lambda: not self._sides[step.party].pending, patience)

    def _give(self, party: Party, octets: bytes, pieces: tuple[int, ...] = ()) -> None:
        side = self._sides[party]
        side.said += octets
        rest = memoryview(octets)
        for size in itertools.cycle(pieces or (max(1, len(octets)),)):
            if not rest:
                break
            side.pending.append(bytes(rest[:size]))
            rest = rest[size:]

    def _hear(self, step: Hear, patience: float) -> None:
        side, other = self._sides[step.party], self._sides[step.party.other]
        wanted = len(other.said) if step.octets is None else step.octets
        self._until(lambda: len(side.heard) >= wanted and not self._amid_offer(step.party), patience)

    def _amid_offer(self, party: Party) -> bool:
        """Whether what the sender heard has an offer in it that is not complete yet."""
        side, other = self._sides[party], self._sides[party.other]
        return self._cuts(side) and KEYWORD in side.heard and KEYWORD not in other.said

    def _cuts(self, side: _Side) -> bool:
        return self._cut_offer and side is self._sides[Party.SENDER] and not side.offer

    def _end(self, step: End, patience: float) -> None:
        side = self._sides[step.party]
        self._until(lambda: not side.pending, patience)
        side.socket.shutdown(socket.SHUT_WR)

    def _hear_end(self, step: HearEnd, patience: float) -> None:
        side = self._sides[step.party]
        self._until(lambda: side.over is not Over.OPEN, patience)
        assert side.over is Over.END, f"{step.party.value} met a reset in place of an end"

    def _close(self, step: Close, patience: float) -> None:
        side = self._sides[step.party]
        self._until(lambda: not side.pending, patience)
        side.socket.close()

    def _reset(self, step: Reset, patience: float) -> None:
        side = self._sides[step.party]
        side.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        side.socket.close()

    def _hear_reset(self, step: HearReset, patience: float) -> None:
        side = self._sides[step.party]
        ended = side.over is Over.END
        self._until(
            lambda: side.reset_behind_end if ended else side.over is not Over.OPEN, patience, errors=True
        )
        assert ended or side.over is Over.RESET, f"{step.party.value} met an end in place of a reset"

    def _pause(self, step: Pause, patience: float) -> None:
        until = time.monotonic() + step.seconds
        while (rest := until - time.monotonic()) > 0:
            self._turn(rest)

    def _talk_tls(self, step: Tls, patience: float) -> None:
        assert self._tls is not None
        ends = {party: TlsEnd(self._tls, party, len(self._sides[party].heard)) for party in Party}

        def carry() -> None:
            for party, end in ends.items():
                self._give(party, end.turn(self._sides[party].heard))

        def all_ready() -> bool:
            carry()
            return all(end.ready for end in ends.values())

        self._until(all_ready, patience)
        for party, octets in step.talk:
            ends[party].object.write(octets)
            listener = ends[party.other]
            wanted = len(listener.plain) + len(octets)

            def has_come(listener: TlsEnd = listener, wanted: int = wanted) -> bool:
                carry()
                return len(listener.plain) >= wanted

            self._until(has_come, patience)
        self._hear(Hear(Party.SENDER), patience)
        self._hear(Hear(Party.RECEIVER), patience)
        for party, end in ends.items():
            self._sides[party].plain += end.plain

    _STEPS: dict[type, Callable[..., None]] = {  # noqa: RUF012
        Say: _say,
        Hear: _hear,
        End: _end,
        HearEnd: _hear_end,
        Close: _close,
        Reset: _reset,
        HearReset: _hear_reset,
        Pause: _pause,
        Tls: _talk_tls,
    }

    # --- Sockets ------------------------------------------------------------------------------------

    def _until(self, done: Callable[[], bool], patience: float, *, errors: bool = False) -> None:
        deadline = time.monotonic() + patience
        while not done():
            rest = deadline - time.monotonic()
            if rest <= 0:
                raise TimeoutError
            self._turn(rest, errors=errors)

    def _turn(self, seconds: float, *, errors: bool = False) -> None:
        """Wait for something to happen at either socket, and take what there is."""
        poll = select.poll()
        by_descriptor = {}
        for side in self._sides.values():
            if side.closed:
                continue
            wanted = select.POLLIN if side.over is Over.OPEN else 0
            if side.pending:
                wanted |= select.POLLOUT
            # Errors show without being asked for: a socket that has ended and been reset would spin.
            if wanted or (errors and not side.reset_behind_end):
                by_descriptor[side.socket.fileno()] = side
                poll.register(side.socket, wanted)
        for descriptor, events in poll.poll(seconds * 1000):
            side = by_descriptor[descriptor]
            if side.over is Over.OPEN and events & ~select.POLLOUT:
                self._read(side)
            elif events & (select.POLLERR | select.POLLHUP):
                side.reset_behind_end = True
                side.pending.clear()
            if side.pending and events & select.POLLOUT:
                self._write(side)

    def _read(self, side: _Side) -> None:
        try:
            octets = side.socket.recv(READ)
        except BlockingIOError:
            return
        except ConnectionResetError:
            side.over = Over.RESET
            side.pending.clear()
            return
        side.heard += octets
        if not octets:
            side.over = Over.END
        if self._cuts(side) and (found := OFFER.search(side.heard)):
            side.offer = found[0]
            side.heard[found.start() : found.end()] = b"250 " + found[1]

    def _write(self, side: _Side) -> None:
        try:
            # A bound for each turn: with both ends in one process somebody has to read as well.
            for _ in range(64):
                if not side.pending:
                    return
                sent = side.socket.send(side.pending[0])
                if sent < len(side.pending[0]):
                    side.pending[0] = side.pending[0][sent:]
                else:
                    side.pending.popleft()
        except BlockingIOError:
            return
        except (BrokenPipeError, ConnectionResetError):
            side.pending.clear()


# --- In the lab -----------------------------------------------------------------------------------------


class MailSites:
    """The mail servers' ends of a lab in which no Postfix runs: our own sockets on port 25."""

    def __init__(self, lab: Lab, tls: TlsContexts | None = None) -> None:
        self.lab = lab
        self._tls = tls
        self._listeners: dict[tuple[str, Family], socket.socket] = {}
        self._ports = itertools.count(FIRST_PORT)
        self._one_at_a_time = threading.Lock()

    def close(self) -> None:
        for listener in self._listeners.values():
            listener.close()

    def address(self, letter: str, family: Family) -> str:
        return self.lab.mail_server(letter).node.home.of(family)

    def connect(
        self, sender: str, receiver: str, family: Family, port: int = 0
    ) -> tuple[socket.socket, socket.socket]:
        """A connection from one mail server's namespace to the other's: both ends.

        One at a time, so that what the listener accepts next is the other end of it.
        """
        with self._one_at_a_time:
            return self._connect(sender, receiver, family, port)

    def _connect(
        self, sender: str, receiver: str, family: Family, port: int
    ) -> tuple[socket.socket, socket.socket]:
        listener = self._listener(receiver, family)
        made = inside(
            self.lab.mail_server(sender).namespace,
            lambda: socket.socket(KINDS[family], socket.SOCK_STREAM),
        )
        try:
            made.settimeout(PATIENCE)
            # Each port once: the logs of the gateways know a session by its addresses and ports.
            made.bind((self.address(sender, family), port or next(self._ports)))
            made.connect((self.address(receiver, family), SMTP_PORT))
            accepted, _ = listener.accept()
        except BaseException:
            made.close()
            raise
        return made, accepted

    def run(
        self,
        steps: tuple[Step, ...],
        sender: str,
        receiver: str,
        family: Family = Family.V4,
        patience: float = PATIENCE,
        *,
        cut_offer: bool = False,
    ) -> Outcome:
        """One dialogue from one mail server to another. Raises AssertionError where it gets stuck.

        `cut_offer`: the sender has no gateway, so the receiving one's offer reaches it: look behind it.
        """
        began = time.time()
        made, accepted = self.connect(sender, receiver, family)
        source, seen = made.getsockname()[:2], accepted.getpeername()[:2]
        says, hears = Exchange(made, accepted, self._tls, cut_offer=cut_offer).run(steps, patience)
        return Outcome(
            sender=Heard(bytes(says.heard), says.over, bytes(says.plain)),
            receiver=Heard(bytes(hears.heard), hears.over, bytes(hears.plain)),
            said_by_sender=bytes(says.said),
            said_by_receiver=bytes(hears.said),
            source=source,
            seen_source=seen,
            destination=(self.address(receiver, family), SMTP_PORT),
            offer=says.offer,
            began=began,
        )

    def on_the_wire(self, outcome: Outcome) -> WireSession:
        """What the listener has of this dialogue: gateways keep the sender's address, routers its port."""
        keeps_port = self.lab.gateways_stand is not Placement.HOST
        found = [
            session
            for session in self.lab.wire_sessions(outcome.began)
            if session.client.address == outcome.source[0]
            and (session.client.port == outcome.source[1] or not keeps_port)
            and session.server.address == outcome.destination[0]
        ]
        assert len(found) == 1, f"{len(found)} connections of {outcome.source} in the capture"
        assert found[0].complete, "the capture has a hole"
        return found[0]

    def _listener(self, letter: str, family: Family) -> socket.socket:
        if (letter, family) not in self._listeners:
            listener = inside(
                self.lab.mail_server(letter).namespace,
                lambda: socket.socket(KINDS[family], socket.SOCK_STREAM),
            )
            self._listeners[letter, family] = listener
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self.address(letter, family), SMTP_PORT))
            listener.listen(16)
            listener.settimeout(PATIENCE)
        return self._listeners[letter, family]
