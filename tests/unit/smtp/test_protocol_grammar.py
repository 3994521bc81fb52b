"""The grammar that docs/protocol.md prints, read by a parser of ABNF: what the product says and takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from abnf import ParseError, Rule
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.crypto.messages import OfferForm
from gateway.smtp.capability import VERB_LINE, carries_keyword, match_verb, split_offer
from gateway.smtp.events import EhloReply, Role
from gateway.smtp.observer import Observer
from tests.playbook import (
    EHLO,
    GREETING,
    LONG_REPLY,
    REPLY,
    FarReceivingGateway,
    Playbook,
    receiving,
    sending,
)

PROTOCOL = Path(__file__).parents[3] / "docs" / "protocol.md"
_FENCED = re.compile(r"^```abnf\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Grammar(Rule):
    """All the rules of the document, which must fit together in one."""


Grammar.load_grammar("".join(_FENCED.findall(PROTOCOL.read_text())).replace("\n", "\r\n"))


def matches(rule: str, octets: bytes) -> bool:
    try:
        Grammar(rule).parse_all(octets.decode("latin-1"))
    except ParseError:
        return False
    return True


def offered_by_the_product(reply: bytes) -> bytes:
    """The EHLO reply as it leaves a receiving gateway."""
    book = Playbook(receiving())
    book.near(GREETING)
    book.far(EHLO)
    book.near(reply)
    return book.to_far[len(GREETING) :]


FULL = offered_by_the_product(REPLY)[len(REPLY) :]
SHORT = offered_by_the_product(LONG_REPLY)[len(LONG_REPLY) :]
OWN = REPLY.replace(b"250 ", b"250-")


# --- What the product says ------------------------------------------------------------------------------


def test_the_offers_of_the_product() -> None:
    assert matches("full-offer", FULL)
    assert matches("short-offer", SHORT)
    assert not matches("full-offer", SHORT)
    assert not matches("short-offer", FULL)
    assert matches("offered", offered_by_the_product(LONG_REPLY))


@pytest.mark.parametrize(("reply", "form"), [(REPLY, OfferForm.FULL), (LONG_REPLY, OfferForm.SHORT)])
def test_the_verb_of_the_product(reply: bytes, form: OfferForm) -> None:
    book = Playbook(sending())
    book.far(GREETING)
    book.near(EHLO)
    book.far(FarReceivingGateway(reply=reply, form=form).reply)
    book.near(b"MAIL FROM:<a@a.example>\r\n")
    verb = book.to_far[len(EHLO) :].partition(b"\n")[0] + b"\n"
    assert matches("verb", verb)
    assert match_verb(verb) is True


# --- What it takes: the same as the grammar, also where an octet is another ------------------------------

AT = (0, 3, 4, 10, 14, 15, 17, 19, 21, 22, -3, -2, -1)
"""Everywhere in the head of a line, in its text, and at its end."""


@pytest.mark.parametrize("at", AT)
@pytest.mark.parametrize("octet", [b"", b"=", b" ", b"+", b"\r", b"\n", b"\0", b"2"])
def test_an_octet_that_is_another_makes_no_offer_of_either(at: int, octet: bytes) -> None:
    at %= len(SHORT)
    changed = SHORT[:at] + octet + SHORT[at + 1 :]
    is_offer = changed == SHORT or (octet == b"2" and at in (21, 22))
    assert matches("offer", changed) is is_offer
    assert (split_offer(OWN + changed).offer is not None) is is_offer


@pytest.mark.parametrize("line", range(4))
@pytest.mark.parametrize("at", [3, 17, 19, 30, -1])
def test_a_line_of_the_full_offer_that_is_another(line: int, at: int) -> None:
    lines = FULL.splitlines(keepends=True)
    changed = lines[line][:at] + b"!" + lines[line][at:]
    octets = b"".join([*lines[:line], changed, *lines[line + 1 :]])
    assert not matches("offer", octets)
    assert split_offer(OWN + octets).offer is None


@settings(max_examples=200)
@given(st.integers(0, len(SHORT) - 1), st.integers(0, 2), st.integers(0, 255))
def test_grammar_and_product_agree_on_short_offers(at: int, cut: int, octet: int) -> None:
    changed = SHORT[:at] + bytes((octet,)) + SHORT[at + cut :]
    assert matches("offer", changed) is (split_offer(OWN + changed).offer is not None)


@pytest.mark.parametrize("last", b"ABCDEFGHQRSgwx-_")
def test_spare_bits(last: int) -> None:
    changed = SHORT[:-3] + bytes((last,)) + b"\r\n"
    assert matches("offer", changed) is (last in b"AQgw")
    assert (split_offer(OWN + changed).offer is not None) is (last in b"AQgw")


@given(st.binary(max_size=14) | st.integers(0, 12).map(lambda n: VERB_LINE[:n]) | st.just(VERB_LINE.lower()))
def test_grammar_and_product_agree_on_verbs(octets: bytes) -> None:
    assert matches("verb", octets) is (match_verb(octets) is True and octets == VERB_LINE)


# --- The dialogue before --------------------------------------------------------------------------------

WORDS = (b"220-", b"220 ", b"220", b"250-", b"250 ", b"250", b"EHLO ", b"ehlo\t", b"HELO ", b"421 ", b"a")
ENDS = (b"\t \v", b"x.example", b"\r\n", b"\r\n", b"\r\n", b"\r", b"\n", b"\0", b"\xff")
LINES = st.lists(st.sampled_from(WORDS + ENDS), max_size=8).map(b"".join)


def is_understood(greeting: bytes, ehlo: bytes, reply: bytes) -> bool:
    """Whether the product would look for an offer behind this dialogue."""
    observer = Observer(Role.SENDING)
    seen = observer.receiver_octets(greeting)
    seen += observer.sender_octets(ehlo)
    if observer.held_from_sender:
        return False
    seen += observer.receiver_octets(reply)
    return EhloReply(reply) in seen


@given(LINES | st.just(GREETING))
def test_greetings(greeting: bytes) -> None:
    assert matches("greeting", greeting) is is_understood(greeting, EHLO, REPLY)


@given(LINES | st.just(EHLO))
def test_ehlos(ehlo: bytes) -> None:
    assert matches("ehlo", ehlo) is is_understood(GREETING, ehlo, REPLY)


@given(LINES | st.just(REPLY))
def test_replies(reply: bytes) -> None:
    assert matches("reply", reply) is is_understood(GREETING, EHLO, reply)


@given(
    st.lists(
        st.sampled_from(
            [b"250-", b"250 ", b"XNIGHTMAIL", b"xNightMail", b"X", b" ", b"\t", b"-", b"9", b"=\xff"]
        ),
        max_size=5,
    ).map(b"".join)
)
def test_keyword_lines(line: bytes) -> None:
    octets = line + b"\r\n"
    assert matches("keyword-line", octets) is carries_keyword(octets)
