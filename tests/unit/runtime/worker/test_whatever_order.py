"""Two gateways over real sockets, in one loop, and a kernel that takes and gives what it likes.

Whatever comes first, wherever octets are cut, whoever ends or resets: what arrives is what was said, an end
is told behind all of it alone, and nothing is left of a session. Counterpart: `tests.pair`, without sockets.
"""

from __future__ import annotations

import random
import socket
import time
from typing import Any, cast

import pytest

from gateway.intercept.syn import Flow
from gateway.runtime.worker.connection import Connection
from gateway.runtime.worker.pressure import Bank
from gateway.runtime.worker.turns import Turns
from gateway.session import commands as c
from gateway.session.sending import TRY_AGAIN
from tests.pair import Receiver, Sender
from tests.playbook import receiving, sending
from tests.unit.runtime.sockets import send_reset, tcp_pair

PATIENCE = 30.0
FLOW = Flow("192.0.2.1", 40_000, "198.51.100.1", 25)
WAYS_OUT = {"sender": ("close", "reset"), "receiver": ("end", "close", "reset"), "nobody": ("",)}
"""A sender that only ends before its reply, and still reads it, gets it with R's offer: S no longer looks."""
SEEDS = (*range(36), 218, 879, 934, 1242)
"""In the last ones a receiver's last words were lost behind an end of the sender's."""
BODY = b"x" * 70 + b"\r\n"


class Moody:
    """A socket of a gateway's: now and then it takes nothing, or a part, and gives less than there is."""

    def __init__(self, sock: socket.socket, chance: random.Random, often: float) -> None:
        self._sock, self._chance, self._often = sock, chance, often

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def _is_moody(self) -> bool:
        return self._chance.random() < self._often

    def _part(self, octets: Any) -> memoryview:
        if self._chance.random() < 0.3:
            raise BlockingIOError
        return memoryview(octets)[: self._chance.choice((1, 3, 100, 1000))]

    def send(self, octets: Any, flags: int = 0) -> int:
        return self._sock.send(self._part(octets) if self._is_moody() else octets, flags)

    def recv_into(self, buffer: Any) -> int:
        return self._sock.recv_into(self._part(buffer) if self._is_moody() else buffer)


class Party:
    """A mail server at its socket. `leaves`: how it goes away once it has said so many octets."""

    def __init__(self, sock: socket.socket, leaves: tuple[str, int] | None) -> None:
        self._sock = sock
        self._leaves = leaves
        self._unsaid = b""
        self._ends = self._broken = False
        self.said, self.heard = b"", b""
        self.heard_end = self.has_ended = self.is_gone = False

    def wants(self, said: bytes, ends: bool) -> None:
        self._unsaid += said
        self._ends = self._ends or ends

    def step(self, chance: random.Random) -> bytes:
        """Says what there is room for, and answers what it has heard."""
        if self.is_gone:
            return b""
        if self._leaves is not None and len(self.said) >= self._leaves[1]:
            self._leave(self._leaves[0])
        elif self._unsaid:
            self._say(self._unsaid[: chance.choice((1, 30, 1 << 16))])
        elif (self._ends or self.heard_end) and not self.has_ended:
            self._end()
        return self._hear() if not self.is_gone and chance.random() < 0.7 else b""

    def _leave(self, how: str) -> None:
        self._leaves, self._unsaid = None, b""
        if how == "end":
            self._ends = True
        elif how == "reset":
            self._broken = True
            self._go()
        else:
            self.has_ended = True
            self._go()

    def _say(self, octets: bytes) -> None:
        try:
            sent = self._sock.send(octets)
        except BlockingIOError:
            return
        except OSError:
            self._broken, self._unsaid = True, b""
            return
        self.said += octets[:sent]
        self._unsaid = self._unsaid[sent:]

    def _end(self) -> None:
        self.has_ended = True
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._broken = True
        if self.heard_end:
            self._go()

    def _hear(self) -> bytes:
        try:
            octets = self._sock.recv(1 << 16)
        except BlockingIOError:
            return b""
        except OSError:
            self._broken, octets = True, b""
        if octets:
            self.heard += octets
            return octets
        self.heard_end = not self._broken  # a send that failed has taken the reset off the socket
        if self._broken or self.has_ended:
            self._go()
        return b""

    def _go(self) -> None:
        self.is_gone = True
        if self._broken:
            send_reset(self._sock)
        else:
            self._sock.close()


class Session:
    """sender - S - R - receiver; the surroundings of both connections."""

    def __init__(self, turns: Turns, bank: Bank, chance: random.Random, *, offers: bool) -> None:
        self._chance = chance
        self._bank = bank
        self.over = 0
        self.decisions: list[c.NoteDecision] = []
        self.errors: list[Exception] = []
        pairs = [tcp_pair(small=chance.random() < 0.5) for _ in range(3)]
        (s_near, sender), (s_far, r_far), (r_near, receiver) = pairs
        leaves = chance.choice(tuple(WAYS_OUT))
        how = chance.choice(WAYS_OUT[leaves]), chance.choice((0, 1, 21, 30, 90, 300, 30_000))
        self.is_left_alone = leaves == "nobody"
        self.sender = Party(sender, how if leaves == "sender" else None)
        self.receiver = Party(receiver, how if leaves == "receiver" else None)
        self.s_server, self.r_server = Sender(_steps(chance)), Receiver()
        often = chance.choice((0.0, 0.1, 0.5))
        machines = ((sending(), s_near, s_far), (receiving(may_offer=offers), r_near, r_far))
        for machine, near, far in machines:
            near, far = (cast("socket.socket", Moody(one, chance, often)) for one in (near, far))
            account = bank.opened("source")
            connection = Connection(
                turns, turns.poller, cast("Any", self), cast("Any", machine), FLOW, "id", near, far, account
            )
            connection.start()

    def step(self) -> None:
        parties = [self.sender, self.receiver]
        self._chance.shuffle(parties)
        for party in parties:
            heard = party.step(self._chance)
            if party is self.sender:
                self.s_server.heard += heard
                party.wants(*self.s_server.wants())
            else:
                self.r_server.hears(heard)
                party.wants(self.r_server.to_say, self.r_server.ends)
                self.r_server.to_say = b""

    @property
    def is_over(self) -> bool:
        return self.over == 2 and self.sender.is_gone and self.receiver.is_gone

    # --- What its connections tell ------------------------------------------------------------------------

    def note_decision(self, connection: Connection, note: c.NoteDecision) -> None:
        self.decisions.append(note)

    def connection_over(self, connection: Connection) -> None:
        self.over += 1
        self._bank.closed("source")

    def session_failed(self, connection: Connection, error: Exception) -> None:
        self.errors.append(error)

    def redial(self, connection: Connection) -> None:
        connection.redial_failed()

    def ignored(self, connection: Connection, *_: object) -> None:
        """Nobody remembers anything here."""

    remember_peer = note_source = note_fact = held_back = ignored


def _steps(chance: random.Random) -> list[tuple[int, bytes]]:
    """EHLO, a mail, QUIT: each step once so many replies have come."""
    body = BODY * chance.choice((0, 1, 300, 3000))
    envelope = b"MAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\n"
    at = chance.choice((0, 2))  # behind the EHLO unasked, or when its reply has come
    if chance.random() < 0.5:
        mail = [(at, envelope + b"BDAT %d LAST\r\n" % len(body) + body)]
        return [(1, b"EHLO mail.a.example\r\n"), *mail, (5, b"QUIT\r\n")]
    mail = [(at, envelope + b"DATA\r\n"), (5, body + b"\r\n.\r\n")]
    return [(1, b"EHLO mail.a.example\r\n"), *mail, (6, b"QUIT\r\n")]


@pytest.mark.parametrize("seed", SEEDS)
def test_what_arrives_is_what_was_said_and_nothing_is_left(seed: int) -> None:
    chance, turns = random.Random(seed), Turns()
    failures: list[Exception] = []
    turns.on_failure = failures.append
    bank = Bank(most_per_source=chance.choice((1 << 26, 100_000)))
    offers = chance.random() < 0.8
    sessions = [Session(turns, bank, chance, offers=offers) for _ in range(chance.choice((1, 3)))]
    until = time.monotonic() + PATIENCE
    while not all(session.is_over for session in sessions):
        assert time.monotonic() < until, "it never ends"
        for session in sessions:
            session.step()
        turns.call_later(0.0, turns.stop)
        turns.run_forever()
    turns.call_soon(turns.stop)
    turns.run_forever()
    for session in sessions:
        _check(session, upgrades=offers)
    assert not failures
    assert (turns.poller.watched, bank.held) == (0, 0)
    assert all(timer.is_cancelled for _, _, timer in turns._timers)
    turns.close()


def _check(session: Session, *, upgrades: bool) -> None:
    assert not session.errors
    told = session.sender.heard
    session.sender.heard = told.removesuffix(TRY_AGAIN)  # which is S's own word, where R has gone
    for heard, said in ((session.receiver, session.sender), (session.sender, session.receiver)):
        assert said.said.startswith(heard.heard)
        if heard.heard_end and not told.endswith(TRY_AGAIN):
            assert said.has_ended
            assert heard.heard == said.said
    if session.is_left_alone:
        assert len(session.r_server.delivered) == 1
        assert session.sender.heard_end
        assert [decision.upgraded for decision in session.decisions] == [upgrades] * 2
