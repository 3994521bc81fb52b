"""What the demo claims, and whether the evidence bears it: one verdict for each claim. Pure.

A verdict never holds for want of evidence: a mail that did not come, or a hole in the listener's capture,
makes the verdicts that rest on it fail. Counterpart: `demo`, which gathers the evidence.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from gateway.eyes.transcript import Transcript
from gateway.eyes.wire import WireSession, found_words, round_trips
from gateway.lab.mail import Mail, without_traces

GAP_LIMIT_MS: Final = 500.0
"""Half of the first retransmission of a lost SYN: nothing may wait for a timer."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One claim, whether it holds, and the figure that says so."""

    claim: str
    holds: bool
    figure: float
    unit: str


@dataclass(slots=True)
class Trip:
    """One mail's way: what was stored, and the sessions that carried it over the wire."""

    sender: str
    recipient: str
    mail: Mail
    began: float
    stored: bytes | None = None
    seconds: float = 0.0
    failure: str = ""
    sessions: list[WireSession] = field(default_factory=list)

    @property
    def words(self) -> set[str]:
        """The kinds of words that the listener found."""
        return {kind for session in self.sessions for kind in found_words(session, self.mail.words)}

    @property
    def seen_whole(self) -> bool:
        """Whether the listener has seen it, without a hole."""
        return bool(self.sessions) and all(session.complete for session in self.sessions)

    @property
    def round_trips(self) -> int:
        """Of TCP's own handshake one for each connection: one that says nothing costs as much."""
        return sum(1 + round_trips(session) for session in self.sessions)

    @property
    def is_sealed(self) -> bool:
        """Whether no word of the mail can be read, and octets in plenty went by that cannot."""
        sealed = sum(line.sealed for session in self.sessions for line in _lines(session))
        return self.seen_whole and not self.words and sealed > self.mail.attachment_octets


@dataclass(slots=True)
class Kill:
    """What happened around the gateway's death."""

    processes: int = 0
    mid_work: bool = False
    gap_ms: float = float("inf")
    next_mail_came: bool = False
    interrupted: bool = False
    """The large mail did not come through: its mail server had to send it again."""
    copies: int = 0


@dataclass(slots=True)
class Evidence:
    """Everything that the verdicts rest on."""

    direct: list[Trip] = field(default_factory=list)
    protected: list[Trip] = field(default_factory=list)
    killed: Kill = field(default_factory=Kill)
    after_restart: Trip | None = None


def judge(evidence: Evidence) -> list[Verdict]:
    """The verdicts, in the order in which they are told."""
    direct, protected = evidence.direct, evidence.protected
    between = [trip for trip in protected if (trip.sender, trip.recipient) == ("a", "b")]
    return [
        _delivered(direct, protected),
        _same_octets(direct, protected),
        _control(direct),
        _hidden(between),
        _readable("a", "c", protected),
        _readable("c", "b", protected),
        _sealed(between),
        _no_extra_round_trips(direct, protected),
        *_survives(evidence.killed),
        Verdict(
            "sealed again after the restart",
            evidence.after_restart is not None and evidence.after_restart.is_sealed,
            int(evidence.after_restart is not None and evidence.after_restart.is_sealed),
            "of 1 mail",
        ),
    ]


def _delivered(direct: list[Trip], protected: list[Trip]) -> Verdict:
    trips = direct + protected
    came = sum(trip.stored is not None for trip in trips)
    return Verdict("delivered", came == len(trips) > 0, came, f"of {len(trips)} mails")


def _same_octets(direct: list[Trip], protected: list[Trip]) -> Verdict:
    same = sum(
        one.stored is not None
        and other.stored is not None
        and without_traces(one.stored) == without_traces(other.stored)
        for one, other in zip(direct, protected, strict=True)
    )
    holds = same == len(protected) > 0
    return Verdict("octets as without gateways", holds, same, f"of {len(protected)} mails equal")


def _control(direct: list[Trip]) -> Verdict:
    found, sought = _count_words(direct)
    return Verdict("words on the wire without gateways", found == sought > 0, found, f"of {sought}")


def _hidden(between: list[Trip]) -> Verdict:
    found, sought = _count_words(between)
    holds = bool(between) and found == 0 and all(trip.seen_whole for trip in between)
    return Verdict("words on the wire, a to b", holds, found, f"of {sought}")


def _readable(sender: str, recipient: str, protected: list[Trip]) -> Verdict:
    trips = [trip for trip in protected if (trip.sender, trip.recipient) == (sender, recipient)]
    found, sought = _count_words(trips)
    claim = f"words on the wire, {sender} to {recipient} (one gateway)"
    return Verdict(claim, found == sought > 0, found, f"of {sought}")


def _count_words(trips: list[Trip]) -> tuple[int, int]:
    return sum(len(trip.words) for trip in trips), sum(len(trip.mail.words) for trip in trips)


def _sealed(between: list[Trip]) -> Verdict:
    sealed = sum(trip.is_sealed for trip in between)
    return Verdict("sealed, a to b", sealed == len(between) > 0, sealed, f"of {len(between)} mails")


def _no_extra_round_trips(direct: list[Trip], protected: list[Trip]) -> Verdict:
    pairs = list(zip(direct, protected, strict=True))
    extra = max((other.round_trips - one.round_trips for one, other in pairs), default=0)
    seen = bool(pairs) and all(one.seen_whole and other.seen_whole for one, other in pairs)
    return Verdict("extra round trips", seen and extra <= 0, extra, "at most for a mail")


def _survives(kill: Kill) -> list[Verdict]:
    killed = kill.processes > 0
    holds = killed and kill.mid_work and kill.gap_ms <= GAP_LIMIT_MS
    came = killed and kill.next_mail_came
    once = killed and kill.interrupted and kill.copies == 1
    gap = round(kill.gap_ms, 1) if kill.gap_ms != float("inf") else -1.0
    return [
        Verdict("gateway killed: next greeting after", holds, gap, "ms"),
        Verdict("gateway killed: next mail comes", came, int(kill.next_mail_came), "of 1 mail"),
        Verdict("gateway killed: interrupted mail, once", once, kill.copies, "copies"),
    ]


def _lines(session: WireSession) -> list[Any]:
    reader = Transcript()
    lines = [line for p in session.packets if p.fresh for line in reader.feed(p.to_server, p.fresh)]
    return lines + reader.finish()


def side_by_side(evidence: Evidence) -> dict[str, list[str]]:
    """The plain mail by IPv4 from a, as the listener saw it on its way to c and to b."""
    views = {}
    for recipient in ("c", "b"):
        trip = next((t for t in evidence.protected if (t.sender, t.recipient) == ("a", recipient)), None)
        sessions = trip.sessions if trip is not None else []
        views[f"to_{recipient}"] = [
            f"{'>' if line.to_server else '<'} {line.text}"
            for session in sessions
            for line in _lines(session)
        ]
    return views
