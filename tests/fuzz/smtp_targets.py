"""The smtp room: replies, commands, both at once, offers, where content begins."""

from __future__ import annotations

import re

from gateway.smtp.capability import (
    VERB_LINE,
    OfferSize,
    append_offer,
    carries_keyword,
    host_name,
    match_verb,
    offer_fits,
    room_for,
    split_offer,
)
from gateway.smtp.dialogue import Stage
from gateway.smtp.events import EhloReply, Observation, Passed, Role
from gateway.smtp.firstflight import ContentScan
from gateway.smtp.observer import Observer
from tests.fuzz.target import Cursor, Target, pieces
from tests.playbook import EHLO, GREETING, REPLY

_WORDS = (
    b"220 ",
    b"220-",
    b"250 ",
    b"250-",
    b"\r\n",
    b"421 ",
    b"EHLO ",
    b"HELO ",
    b"XNIGHTMAIL",
    b"XNIGHTMAIL\r\n",
)
_OFFER_OCTETS = {size.octets for size in OfferSize}
_MOST_HELD = 16 * 1024 + 64 * 1024
"""An observer stops being fed at its limits; one input is far below this."""


class _Watched:
    """An observer, with the books: what came in and what came out, by direction."""

    def __init__(self, role: Role) -> None:
        self.observer = Observer(role)
        self.said = {True: b"", False: b""}
        self.passed = {True: b"", False: b""}
        self.reply = b""

    def speak(self, sender: bool, octets: bytes) -> None:
        observer = self.observer
        if observer.stage is Stage.DECIDED or not octets:
            return
        self.said[sender] += octets
        feed = observer.sender_octets if sender else observer.receiver_octets
        for one in feed(octets):
            self._book(one)
        assert len(observer.held_from_sender) <= _MOST_HELD

    def _book(self, one: Observation) -> None:
        if isinstance(one, Passed):
            assert one.octets, "an empty pass"
            self.passed[one.to_receiver] += one.octets
        elif isinstance(one, EhloReply):
            self.reply = one.octets
            self.passed[False] += one.octets
            assert one.octets.startswith(b"250") and one.octets.endswith(b"\r\n")
            assert b"\0" not in one.octets and one.octets.count(b"\n") == one.octets.count(b"\r\n")

    def check(self) -> None:
        """Nothing lost, doubled, altered or reordered; what is held comes back."""
        for one in self.observer.give_up():
            self._book(one)
        assert self.passed == self.said


def replies(octets: bytes) -> None:
    """The receiver speaks, cut in some way, at one of three places of the dialogue."""
    at = Cursor(octets)
    choice, size = at.u8(), at.u8()
    watched = _Watched(Role.SENDING if choice & 1 else Role.RECEIVING)
    place = choice >> 1 & 3
    if place in (1, 2):
        watched.speak(True, EHLO)
    if place in (2, 3):
        watched.speak(False, GREETING)
    for piece in pieces(at.rest(), size):
        watched.speak(False, piece)
    watched.check()


def commands(octets: bytes) -> None:
    """The sender speaks, before the greeting or behind it; then the receiver replies."""
    at = Cursor(octets)
    choice, size = at.u8(), at.u8()
    watched = _Watched(Role.SENDING if choice & 1 else Role.RECEIVING)
    if choice & 2:
        watched.speak(False, GREETING)
    said = at.rest()
    for piece in pieces(said, size):
        watched.speak(True, piece)
    watched.speak(False, REPLY)
    watched.check()
    _verb(said)
    _content(said, size)


def _verb(said: bytes) -> None:
    whole = match_verb(said)
    assert whole is (True if said.startswith(VERB_LINE) else None if VERB_LINE.startswith(said) else False)


_CONTENT_LINE = re.compile(
    rb"(?:^|[\r\n])[ \t]*(?:(BDAT|BURL)|DATA[^\r\n]*(?:\r\n|\n|\r(?!\Z)))", re.IGNORECASE
)


def content_may_not_follow(sent: bytes) -> None:
    """What left before the peer was confirmed holds no BDAT or BURL, and nothing behind a DATA line."""
    found = _CONTENT_LINE.search(sent)
    assert found is None or (found.end() == len(sent) and not found.group(1)), sent


def _content(said: bytes, size: int) -> None:
    scan, sent, held = ContentScan(), b"", b""
    for piece in pieces(said, size):
        may_send, held = scan.feed(piece)
        sent += may_send
    assert sent + held == said
    content_may_not_follow(sent)


def dialogue(octets: bytes) -> None:
    """Both speak by turns."""
    at = Cursor(octets)
    watched = _Watched(Role.SENDING if at.u8() & 1 else Role.RECEIVING)
    while at.more:
        choice = at.u8()
        said = at.take(at.u8()) if choice & 2 else (EHLO, REPLY, GREETING, b"QUIT\r\n")[choice >> 2 & 3]
        watched.speak(bool(choice & 1), said)
    watched.check()


def offers(octets: bytes) -> None:
    """A reply, with whatever stands in its last lines."""
    at = Cursor(octets)
    choice = at.u8()
    reply = at.rest()
    if choice & 1:  # a true layout around any octets
        offer = reply[: (1350, 166, len(reply), 66)[choice >> 1 & 3]]
        if offer and room_for(REPLY, len(offer)):
            made = append_offer(REPLY, offer)
            split = split_offer(made)
            known = len(offer) in _OFFER_OCTETS
            assert (split.stripped, split.offer) == ((REPLY, offer) if known else (made, None))
        reply = REPLY + reply
    split = split_offer(reply)
    carries_keyword(reply), host_name(reply), offer_fits(reply)
    if split.offer is None:
        assert split.stripped == reply
        return
    assert not carries_keyword(split.stripped)
    assert len(split.offer) in _OFFER_OCTETS
    last = split.stripped.rfind(b"\n", 0, len(split.stripped) - 1) + 1
    assert reply.startswith(split.stripped[:last] + b"250-" + split.stripped[last + 4 :])
    if room_for(split.stripped, len(split.offer)):
        assert append_offer(split.stripped, split.offer) == reply


TARGETS = (
    Target(
        "reply",
        replies,
        ("gateway.smtp.observer", "gateway.smtp.buffer", "gateway.smtp.grammar"),
        words=_WORDS,
    ),
    Target(
        "command",
        commands,
        ("gateway.smtp.observer", "gateway.smtp.grammar", "gateway.smtp.firstflight"),
        words=(*_WORDS, b"BDAT ", b"BURL ", b"DATA\r\n", b"\nDATA", b"\r\nBDAT"),
    ),
    Target("dialogue", dialogue, ("gateway.smtp.observer", "gateway.smtp.dialogue"), words=_WORDS),
    Target(
        "offer",
        offers,
        ("gateway.smtp.capability",),
        words=(*_WORDS, b"250-XNIGHTMAIL 1 1/4 ", b"250 XNIGHTMAIL 1 1/1 ", b"250 XNIGHTMAIL 1 4/4 "),
    ),
)
