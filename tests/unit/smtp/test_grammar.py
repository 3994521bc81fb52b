"""Every judge of the grammar: what it accepts, what it waits for, and the reason with which it refuses."""

from __future__ import annotations

import pytest

from gateway.errors import PeerProtocolError, Reason
from gateway.smtp import grammar


def judge(head: bytes) -> None:
    grammar.check_reply_head(head, b"250", Reason.EHLO_REFUSED, Reason.ODD_REPLY)


@pytest.mark.parametrize("head", [b"250 ", b"250-", b"", b"2", b"250", b"xyz"])
def test_reply_head_that_is_good_or_too_short_to_tell(head: bytes) -> None:
    judge(head)


@pytest.mark.parametrize("head", [b"500 ", b"421-", b"554\r", b"220 ", b"251-"])
def test_another_code_is_a_refusal_and_tells_it(head: bytes) -> None:
    with pytest.raises(PeerProtocolError) as caught:
        judge(head)
    assert caught.value.reason is Reason.EHLO_REFUSED
    assert caught.value.detail == head[:3].decode()


@pytest.mark.parametrize("head", [b"250\r", b"250\t", b"250A", b"xyz ", b"600 ", b"120 ", b"500\n", b"2 50"])
def test_no_reply_at_all_is_odd(head: bytes) -> None:
    with pytest.raises(PeerProtocolError) as caught:
        judge(head)
    assert caught.value.reason is Reason.ODD_REPLY


@pytest.mark.parametrize("head", [b"", b"E", b"eHl", b"EHLO", b"H", b"hel"])
def test_what_could_still_become_ehlo_or_helo_waits(head: bytes) -> None:
    assert grammar.check_ehlo_head(head) is None


@pytest.mark.parametrize("head", [b"EHLO ", b"ehlo ", b"eHLo "])
def test_ehlo_in_any_case(head: bytes) -> None:
    assert grammar.check_ehlo_head(head) is True


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (b"HELO", Reason.HELO),
        (b"helo ", Reason.HELO),
        (b"M", Reason.NOT_EHLO),
        (b"LHLO ", Reason.NOT_EHLO),
        (b" EHLO", Reason.NOT_EHLO),
        (b"\r\n", Reason.NOT_EHLO),
        (b"EH\r\n", Reason.NOT_EHLO),
        (b"\x16\x03\x01\x02\x00", Reason.NOT_EHLO),
        (b"EHLO\r", Reason.ODD_COMMAND),
        (b"EHLO\t", Reason.ODD_COMMAND),
        (b"EHLOX", Reason.ODD_COMMAND),
    ],
)
def test_other_first_octets_are_refused(head: bytes, reason: Reason) -> None:
    with pytest.raises(PeerProtocolError) as caught:
        grammar.check_ehlo_head(head)
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    "line",
    [b"EHLO a\r\n", b"EHLO [192.0.2.1]\r\n", b"EHLO [IPv6:2001:db8::1]\r\n", b"EHLO my_host of mine\r\n"],
)
def test_ehlo_with_a_name(line: bytes) -> None:
    grammar.check_ehlo_line(line)


@pytest.mark.parametrize("line", [b"EHLO \r\n", b"EHLO  \t \r\n"])
def test_ehlo_without_a_name_is_odd(line: bytes) -> None:
    with pytest.raises(PeerProtocolError) as caught:
        grammar.check_ehlo_line(line)
    assert caught.value.reason is Reason.ODD_COMMAND


@pytest.mark.parametrize(
    ("octets", "word"),
    [
        (b"220 mx.example.org ESMTP\r\n", b"mx.example.org"),
        (b"220-mx.example.org\r\n220 wait\r\n", b"mx.example.org"),
        (b"250 mx\tthere\r\n", b"mx"),
        (b"220 \r\n", b""),
        (b"", b""),
    ],
)
def test_first_word(octets: bytes, word: bytes) -> None:
    assert grammar.first_word(octets) == word


@pytest.mark.parametrize(
    ("greeting", "names"),
    [
        (b"220 mx.example.org ESMTP Postfix\r\n", True),
        (b"220-mx.example.org\r\n220 esmtp\r\n", True),
        (b"220 mx.example.org SMTP\r\n", False),
        (b"220 ***************\r\n", False),
        (b"220 mx.example.org NoESMTP -ESMTP-\r\n", False),
        (b"220 \r\n", False),
    ],
)
def test_whether_a_greeting_names_esmtp(greeting: bytes, names: bool) -> None:
    """As a word alone, as senders look for it."""
    assert grammar.names_esmtp(greeting) is names
