"""What a listener has learnt: of each session, and of each pair of servers. Pure.

Claims nothing that was not on the wire: a word counts where it could be read there, in order; a session that
was not captured whole says so. Addresses of people are masked unless somebody asks for them.
Counterparts: `wire` gives the octets, `reading` says what can be read, `operator.audit` prints.
"""

from __future__ import annotations

import enum
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.eyes.reading import SEALED, Kind, Piece, Reader
from gateway.eyes.wire import Endpoint, Segment, WirePacket, WireSession

WORD: Final = re.compile(rb"[A-Za-z\x80-\xff][A-Za-z\x80-\xff'-]*[A-Za-z\x80-\xff]")
ENVELOPE: Final = re.compile(rb"\A(MAIL FROM|RCPT TO):[ \t]*<?([^>\s]*)", re.IGNORECASE)
SUBJECT: Final = re.compile(rb"\ASubject:[ \t]*(.*)\Z", re.IGNORECASE | re.DOTALL)
WORDS_KEPT: Final = 200
"""Different words of a session that are kept to be shown; all are counted."""
ADDRESSES_KEPT: Final = 100
SUBJECTS_KEPT: Final = 20


class Sight(enum.Enum):
    """What kind of session a listener saw."""

    CLEAR = "in clear"
    NIGHTMAIL = "sealed by gateways"
    TLS = "sealed by TLS"
    NO_MAIL = "no mail"
    """It ended, or the capture did, before there was any."""


@dataclass(slots=True)
class SessionLearnt:
    """One session as the listener knows it. Times in seconds since 1970, volumes in octets of TCP payload."""

    client: Endpoint
    server: Endpoint
    began: float
    ended: float
    octets_up: int = 0
    octets_down: int = 0
    sealed_up: int = 0
    sealed_down: int = 0
    sealed_by: Kind | None = None
    senders: list[str] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    subjects: list[str] = field(default_factory=list)
    words: int = 0
    """Of content, headers included; that of a session in clear, mostly."""
    kept_words: dict[str, None] = field(default_factory=dict)
    credentials: bool = False
    """Somebody logged in where everybody could read it."""
    whole: bool = True
    """The capture has every octet of it."""

    @property
    def sight(self) -> Sight:
        if self.senders or self.recipients or self.words or self.credentials:
            return Sight.CLEAR
        if self.sealed_by is not None:
            return Sight.TLS if self.sealed_by is Kind.TLS else Sight.NIGHTMAIL
        return Sight.NO_MAIL


class Listener:
    """Feed packets with their sessions; `learnt` has all sessions in the order of their beginnings."""

    def __init__(self) -> None:
        self.learnt: list[SessionLearnt] = []
        self.unplaced: set[tuple[Endpoint, Endpoint]] = set()
        """Connections whose beginning is not in the capture: nothing is claimed of them."""
        self._open: dict[int, tuple[WireSession, Reader, SessionLearnt]] = {}

    def take(self, segment: Segment, found: tuple[WireSession, WirePacket] | None) -> None:
        if found is None:
            if segment.octets:
                ends = sorted((segment.source, segment.destination), key=lambda end: (end.address, end.port))
                self.unplaced.add((ends[0], ends[1]))
            return
        session, packet = found
        if id(session) not in self._open:
            learnt = SessionLearnt(session.client, session.server, packet.time, packet.time)
            self.learnt.append(learnt)
            self._open[id(session)] = session, Reader(), learnt
        _, reader, learnt = self._open[id(session)]
        learnt.ended = max(learnt.ended, packet.time)
        if packet.to_server:
            learnt.octets_up += len(packet.fresh)
        else:
            learnt.octets_down += len(packet.fresh)
        for piece in reader.feed(packet.to_server, packet.fresh):
            _note(learnt, piece)
        # What has been read need not be kept: a listener may sit there for days.
        session.forget()

    def finish(self) -> None:
        """The capture is over: what is left without an end, and which sessions have holes."""
        for session, reader, learnt in self._open.values():
            for piece in reader.finish():
                _note(learnt, piece)
            learnt.whole = session.complete
        self._open.clear()


def _note(learnt: SessionLearnt, piece: Piece) -> None:
    if piece.kind in SEALED:
        learnt.sealed_by = piece.kind
        if piece.to_server:
            learnt.sealed_up += piece.sealed
        else:
            learnt.sealed_down += piece.sealed
    elif piece.kind is Kind.CONTENT:
        _note_content(learnt, piece.octets)
    elif piece.kind is Kind.LINE and piece.to_server:
        envelope = ENVELOPE.match(piece.octets)
        if envelope is not None:
            kept = learnt.senders if envelope[1][:1] in b"Mm" else learnt.recipients
            if len(kept) < ADDRESSES_KEPT:
                kept.append(_text(envelope[2]))
        learnt.credentials |= piece.octets[:5].upper() == b"AUTH "


def _note_content(learnt: SessionLearnt, line: bytes) -> None:
    subject = SUBJECT.match(line)
    if subject is not None and len(learnt.subjects) < SUBJECTS_KEPT:
        learnt.subjects.append(_text(subject[1]))
    words = WORD.findall(line)
    learnt.words += len(words)
    if len(learnt.kept_words) < WORDS_KEPT:
        learnt.kept_words.update(dict.fromkeys(map(_text, words)))


def _text(octets: bytes) -> str:
    """A stranger wrote it: nothing in it may reach a terminal as a command."""
    text = octets.decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else "?" for letter in text)


# --- Pairs of servers, and the sentence ----------------------------------------------------------------


@dataclass(slots=True)
class PairLearnt:
    """All sessions from one address to another."""

    client: str
    server: str
    sessions: list[SessionLearnt] = field(default_factory=list)

    @property
    def sights(self) -> Counter[Sight]:
        return Counter(session.sight for session in self.sessions)

    @property
    def senders(self) -> list[str]:
        return sorted({address for session in self.sessions for address in session.senders})

    @property
    def recipients(self) -> list[str]:
        return sorted({address for session in self.sessions for address in session.recipients})

    @property
    def words(self) -> int:
        return sum(session.words for session in self.sessions)

    @property
    def octets(self) -> tuple[int, int]:
        """To the server, and back."""
        up = sum(session.octets_up for session in self.sessions)
        return up, sum(session.octets_down for session in self.sessions)


def pairs(sessions: Iterable[SessionLearnt]) -> list[PairLearnt]:
    """In the order in which they first met."""
    found: dict[tuple[str, str], PairLearnt] = {}
    for session in sessions:
        key = session.client.address, session.server.address
        found.setdefault(key, PairLearnt(*key)).sessions.append(session)
    return list(found.values())


def masked(address: str) -> str:
    """A person's address with its first letter and its domain: enough to see that it could be read."""
    local, at, domain = address.rpartition("@")
    return f"{local[:1]}***{at}{domain}" if at else (f"{address[:1]}***" if address else "<>")


def sentence(sessions: list[SessionLearnt]) -> str:
    """What it comes to, in one."""
    if not sessions:
        return "The listener learnt nothing: no connection to a mail port began within its hearing."
    clear = [one for one in sessions if one.sight is Sight.CLEAR]
    sealed = [one for one in sessions if one.sight in (Sight.NIGHTMAIL, Sight.TLS)]
    told = []
    if clear:
        senders = {address for one in clear for address in one.senders}
        recipients = {address for one in clear for address in one.recipients}
        told.append(
            f"in {_counted(len(clear), 'session')} of {len(sessions)} the listener read "
            f"{_counted(len(senders), 'sender')}, {_counted(len(recipients), 'recipient')} and "
            f"{_counted(sum(one.words for one in clear), 'word')} of mail"
            + (" and saw passwords pass" if any(one.credentials for one in clear) else "")
        )
    if sealed:
        which = (
            f"of {_counted(len(sealed), 'sealed session')} it"
            if clear
            else f"of {_counted(len(sealed), 'session')} the listener"
        )
        told.append(f"{which} learnt which servers spoke, when, and how much")
    if len(clear) + len(sealed) < len(sessions):
        told.append(f"{_counted(len(sessions) - len(clear) - len(sealed), 'session')} carried no mail")
    text = "; ".join(told)
    return text[:1].upper() + text[1:] + "."


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def as_json(session: SessionLearnt, *, show: bool) -> dict[str, Any]:
    """`show`: with people's addresses, subjects and words; else addresses are masked."""
    hidden = (lambda address: address) if show else masked
    facts: dict[str, Any] = {
        "client": {"address": session.client.address, "port": session.client.port},
        "server": {"address": session.server.address, "port": session.server.port},
        "sight": session.sight.name.lower().replace("_", "-"),
        "began": session.began,
        "ended": session.ended,
        "octets_to_server": session.octets_up,
        "octets_to_client": session.octets_down,
        "sealed_to_server": session.sealed_up,
        "sealed_to_client": session.sealed_down,
        "senders": [hidden(address) for address in session.senders],
        "recipients": [hidden(address) for address in session.recipients],
        "words": session.words,
        "credentials": session.credentials,
        "whole": session.whole,
    }
    return {**facts, "subjects": session.subjects, "readable": list(session.kept_words)} if show else facts
