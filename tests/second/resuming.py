"""Two of the second implementation that meet again and again, and R as a test wants it. For tests only."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.playbook import EHLO, GREETING, REPLY
from tests.second import lines
from tests.second.dressed import (
    HERE,
    Dressed,
    second_r,
    second_s,
)
from tests.second.line import Line
from tests.second.memory import Pin
from tests.second.receiving import Receiving
from tests.second.sending import Sending
from tests.second.tickets import (
    KEEPS_TICKET,
    ResumingInitiator,
    TicketsOfR,
    TicketsOfS,
)

SOURCE = b"the sender's address"
PAIR = SOURCE, HERE
FULL, SHORT, RESUMED = (lines.FULL_OCTETS, lines.SHORT_OCTETS, lines.RESUMED_OCTETS)


class Pairing:
    """What S and R remember of each other from session to session."""

    def __init__(self) -> None:
        self.of_s, self.of_r = TicketsOfS(), TicketsOfR()
        self.pin = Pin()
        self.now = 1000.0
        self._sessions = 0

    def s(self, **more: Any) -> Dressed:
        return second_s(**{"tickets": self.of_s, "pin": self.pin, **more})

    def r(self, **more: Any) -> Dressed:
        self._sessions += 1
        label = f"resumed {self._sessions}"
        return second_r(**{"label": label, "tickets": self.of_r, "source": SOURCE, **more})

    def line(
        self,
        s: dict[str, Any] | None = None,
        r: dict[str, Any] | None = None,
        reply: bytes = REPLY,
        **more: Any,
    ) -> Line:
        """Up to the stripped reply."""
        return Line(self.s(**s or {}), self.r(**r or {}), reply, now=self.now, **more)

    def met(
        self, s: dict[str, Any] | None = None, r: dict[str, Any] | None = None, reply: bytes = REPLY
    ) -> Pairing:
        """A whole session."""
        line = self.line(s, r, reply).opened().closed()
        assert line.r.near == EHLO + b"MAIL\r\n"
        assert line.s.dials == 1
        return self

    def count(self) -> tuple[int, int]:
        return len(self.of_s), len(self.of_r)


def offer_of(line: Line) -> bytes:
    taken = lines.take_offer(line.replied)
    assert taken is not None
    return taken[1]


def s_of(line: Line) -> Sending:
    assert isinstance(line.s.machine, Dressed)
    assert isinstance(line.s.machine.gateway, Sending)
    return line.s.machine.gateway


def r_of(line: Line) -> Receiving:
    assert isinstance(line.r.machine, Dressed)
    assert isinstance(line.r.machine.gateway, Receiving)
    return line.r.machine.gateway


def is_protected(line: Line) -> bool:
    """Over the connection that stands: what S says next reaches the receiver, and is not to be read."""
    line.s.from_near(b"RCPT TO:<b@b.example>\r\n")
    said = line.forth()
    line.back()
    line.r.from_near(b"250 Ok\r\n")
    line.back()
    heard = line.r.near.endswith(b"RCPT TO:<b@b.example>\r\n") and line.s.near.endswith(b"250 Ok\r\n")
    return heard and bool(said) and b"RCPT" not in said


def crafted(
    pairing: Pairing,
    offer: bytes | None = None,
    flags: int = KEEPS_TICKET,
    said: bytes = GREETING + REPLY,
    **more: Any,
) -> Line:
    """An R of its own makes `offer`, or the one with S's ticket. Only S's side of it is of interest."""
    (ticket,) = pairing.of_s._kept.values()
    pairing.of_s.keep(replace(ticket, **more))
    if offer is None:
        offer = ResumingInitiator(lines.prologue(said, EHLO), ticket, b"crafted e".ljust(32)).offer(flags)
    line = pairing.line(r={"tickets": None}, changed=lambda reply: lines.add_offer(REPLY, offer))
    assert line.s.near == GREETING + REPLY
    return line


def is_refused(line: Line, check: str) -> bool:
    """Before the verb: S has dialled again, and nothing of it is on the wire."""
    line.s.from_near(b"MAIL\r\n")
    return (line.s.dials, line.s.far, s_of(line).failures) == (2, b"", [check])


def honest_offer(pairing: Pairing) -> bytes:
    (ticket,) = pairing.of_s._kept.values()
    said = lines.prologue(GREETING + REPLY, EHLO)
    return ResumingInitiator(said, ticket, b"crafted e".ljust(32)).offer(KEEPS_TICKET)


def restarted(pairing: Pairing) -> None:
    """S knows no ticket any more."""
    pairing.of_s = TicketsOfS()
