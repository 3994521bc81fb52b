"""Greetings and EHLO replies of real mail servers, and what is known of those who strip capabilities."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import Reason
from gateway.smtp.capability import OfferSize, append_offer, carries_keyword, offer_fits, split_offer
from gateway.smtp.events import EhloReply, Passed, Role, Unparsed
from gateway.smtp.observer import Observer

VECTORS = Path(__file__).parents[2] / "vectors"
ENTRIES: list[dict[str, Any]] = json.loads((VECTORS / "ehlo_replies.json").read_text())["entries"]
STRIPTLS: dict[str, Any] = json.loads((VECTORS / "striptls.json").read_text())
GREETING = b"220 mx.example.org\r\n"
EHLO = b"EHLO client.example.org\r\n"

GREETINGS = [
    (entry["id"], bytes.fromhex(entry["greeting_hex"])) for entry in ENTRIES if entry["greeting_hex"]
]
REPLIES = [(entry["id"], bytes.fromhex(entry["ehlo_hex"])) for entry in ENTRIES if entry["ehlo_hex"]]
BOTH = pytest.mark.parametrize("role", list(Role))

# All entries that are not plainly well-formed, with what becomes of them; the others are all understood.
ODD_GREETINGS = {41: "masked", 56: "an empty line behind", 165: "bare LF"}
ODD_REPLIES = {
    17: Unparsed(Reason.ODD_REPLY),  # three last lines
    29: Unparsed(Reason.ODD_REPLY),  # 250AUTH
    60: Unparsed(Reason.ODD_REPLY),  # a line without a code behind the last line
    64: Unparsed(Reason.EHLO_REFUSED, 500),
    65: Unparsed(Reason.EHLO_REFUSED, 220),
    71: Unparsed(Reason.EHLO_REFUSED, 500),
    154: Unparsed(Reason.ODD_REPLY),  # 250 CRLF
    157: Unparsed(Reason.ODD_REPLY),  # 250 TAB
    165: Unparsed(Reason.ODD_REPLY),  # bare LF
    166: Unparsed(Reason.ODD_REPLY),  # bare LF
    167: Unparsed(Reason.ODD_REPLY),  # 251 between
    168: Unparsed(Reason.ODD_REPLY),  # NUL
    169: Unparsed(Reason.ODD_REPLY),  # bare CR
}
UNFINISHED_REPLIES = {69, 160}
NOT_FULL = {162: OfferSize.SHORT, 163: OfferSize.SHORT, 164: None}


def octet_by_octet(octets: bytes) -> list[bytes]:
    return [octets[at : at + 1] for at in range(len(octets))]


def listen(observer: Observer, chunks: list[bytes]) -> tuple[bytes, Unparsed | EhloReply | None]:
    """What got through of the receiver's words (the caller passes the reply), and the verdict."""
    through, verdict = b"", None
    for at, chunk in enumerate(chunks):
        for one in observer.receiver_octets(chunk):
            if isinstance(one, Passed):
                assert not one.to_receiver
                through += one.octets
            else:
                verdict = one
        if isinstance(verdict, EhloReply):
            return through + verdict.octets + b"".join(chunks[at + 1 :]), verdict
    return through, verdict


def after_ehlo(role: Role) -> Observer:
    observer = Observer(role)
    observer.receiver_octets(GREETING)
    observer.sender_octets(EHLO)
    return observer


def test_the_vectors_are_all_there() -> None:
    assert (len(GREETINGS), len(REPLIES)) == (159, 84)


@BOTH
@pytest.mark.parametrize(("number", "greeting"), GREETINGS)
def test_greetings_pass_octet_for_octet(role: Role, number: int, greeting: bytes) -> None:
    for chunks in ([greeting], octet_by_octet(greeting)):
        observer = Observer(role)
        through, verdict = listen(observer, chunks)
        assert through == greeting
        if number in ODD_GREETINGS:
            assert verdict == Unparsed(Reason.ODD_GREETING)
        else:
            assert verdict is None
            assert observer.greeting == greeting


@BOTH
@pytest.mark.parametrize(("number", "reply"), REPLIES)
def test_replies_pass_octet_for_octet_and_are_judged(role: Role, number: int, reply: bytes) -> None:
    observer = after_ehlo(role)
    through, verdict = listen(observer, [reply])
    through += b"".join(one.octets for one in observer.give_up())
    assert through == reply
    if number in UNFINISHED_REPLIES:
        assert verdict is None
    else:
        assert verdict == ODD_REPLIES.get(number, EhloReply(reply))


@BOTH
@pytest.mark.parametrize(("number", "reply"), REPLIES)
def test_replies_pass_octet_by_octet(role: Role, number: int, reply: bytes) -> None:
    observer = after_ehlo(role)
    through, verdict = listen(observer, octet_by_octet(reply))
    through += b"".join(one.octets for one in observer.give_up())
    assert through == reply
    if number in (17, 60):  # complete with the first last line; what follows is the caller's to judge
        assert verdict == EhloReply(reply[: len(verdict.octets)] if isinstance(verdict, EhloReply) else b"")
    elif number not in UNFINISHED_REPLIES:
        assert verdict == ODD_REPLIES.get(number, EhloReply(reply))


@pytest.mark.parametrize(("number", "reply"), REPLIES)
def test_an_offer_behind_every_understood_reply_goes_and_comes_back(number: int, reply: bytes) -> None:
    assert split_offer(reply) == split_offer(reply).__class__(reply, None)
    assert not carries_keyword(reply)
    if number in ODD_REPLIES or number in UNFINISHED_REPLIES:
        return
    size = offer_fits(reply)
    assert size is NOT_FULL.get(number, OfferSize.FULL)
    if size is not None:
        offer = bytes(at % 251 for at in range(size.octets))
        made = append_offer(reply, offer)
        assert listen(after_ehlo(Role.SENDING), [made])[1] == EhloReply(made)
        split = split_offer(made)
        assert (split.stripped, split.offer) == (reply, offer)
        assert offer_fits(split.stripped) is size


# --- Those who strip ----------------------------------------------------------------------------------

OFFERS = {size: bytes(at * 11 % 256 for at in range(size.octets)) for size in OfferSize}
BEFORE = [
    bytes.fromhex(vector["before_hex"]) for vector in STRIPTLS["vectors"] if vector.get("before_hex")
] + [vector["before"].encode() for vector in STRIPTLS["further_tampering"]]


def strip_keyword_lines(reply: bytes) -> bytes:
    """SMTP.StripFromCapabilities, aimed at our keyword."""
    lines = [line for line in reply.splitlines(True) if b"XNIGHTMAIL" not in line]
    if lines[-1].startswith(b"250-"):
        lines[-1] = b"250 " + lines[-1][4:]
    return b"".join(lines)


def add_before_last(reply: bytes) -> bytes:
    """SMTP.StripWithInvalidResponseCode: a line is put before the last line of the reply."""
    lines = reply.splitlines(True)
    return b"".join([*lines[:-1], b"250-STARTTLS\r\n", lines[-1]])


def add_behind(reply: bytes) -> bytes:
    """SMTP.InboundStarttlsProxy, as for a reply of one line: another last line."""
    lines = reply.splitlines(True)
    return b"".join([*lines[:-1], b"250-" + lines[-1][4:], b"250 STARTTLS\r\n"])


def cut_last_line(reply: bytes) -> bytes:
    return b"".join(reply.splitlines(True)[:-1])


def keyword_to_first_line(reply: bytes) -> bytes:
    last = reply.splitlines(True)[-1]
    return b"250-" + last[4:] + strip_keyword_lines(reply)


TAMPERING: dict[str, Callable[[bytes], bytes]] = {
    "strip": strip_keyword_lines,
    "add before last": add_before_last,
    "add behind": add_behind,
    "mask": lambda reply: reply.replace(b"XNIGHTMAIL", b"XXXXXXXXXX"),
    "mask with A": lambda reply: reply.replace(b"XNIGHTMAIL", b"XXXXXXXXXA"),
    "one letter": lambda reply: reply.replace(b"XNIGHTMAIL", b"XNIGHTMAIX"),
    "line joined": lambda reply: reply.replace(b"\r\n250 XNIGHTMAIL", b" 250 XNIGHTMAIL"),
    "first line": keyword_to_first_line,
    "cut": cut_last_line,
    "lower case": lambda reply: reply.replace(b"XNIGHTMAIL", b"xnightmail"),
    "long lines cut": lambda reply: b"".join(line[:200] + b"\r\n" for line in reply.split(b"\r\n")[:-1]),
    "chunk masked": lambda reply: reply[:-40] + b"X" * 41 + b"\r\n",
}


@pytest.mark.parametrize("size", list(OfferSize))
@pytest.mark.parametrize("name", list(TAMPERING))
def test_a_stripped_or_altered_offer_is_no_offer(name: str, size: OfferSize) -> None:
    for before in BEFORE:
        made = append_offer(before, OFFERS[size])
        if name == "add before last" and size is not OfferSize.FULL:
            continue  # its only line is still whole: the next test's case
        if name == "long lines cut" and size is OfferSize.RESUMED:
            continue  # it has no long line
        assert split_offer(made).offer == OFFERS[size]
        tampered = TAMPERING[name](made)
        assert tampered != made
        split = split_offer(tampered)
        assert (split.stripped, split.offer) == (tampered, None)


@pytest.mark.parametrize("size", list(OfferSize))
def test_a_tampered_line_of_the_receivers_own_shows_in_the_stripped_reply(size: OfferSize) -> None:
    """Then the two prologues differ, and the handshake fails."""
    for vector in STRIPTLS["vectors"]:
        if vector.get("after_hex"):
            before, after = (bytes.fromhex(vector[key]) for key in ("before_hex", "after_hex"))
            split = split_offer(append_offer(after, OFFERS[size]))
            assert split.offer == OFFERS[size]
            assert split.stripped == after != before
    for before in BEFORE:
        split = split_offer(add_before_last(append_offer(before, OFFERS[OfferSize.SHORT])))
        assert split.offer == OFFERS[OfferSize.SHORT]
        assert split.stripped != before


@BOTH
def test_refusals_in_the_place_of_the_reply_are_refusals(role: Role) -> None:
    """SMTP.ProtocolDowngradeStripExtendedMode answers the EHLO itself."""
    refused = [
        vector["injected_reply_octets"].encode()
        for vector in STRIPTLS["vectors"]
        if "ProtocolDowngrade" in vector["name"]
    ]
    assert refused
    for reply in refused:
        assert listen(after_ehlo(role), [reply]) == (reply, Unparsed(Reason.EHLO_REFUSED, 502))
