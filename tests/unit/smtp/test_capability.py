"""The offer lines: exact sizes, exact inverse, and everything that is almost an offer stays untouched."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import LocalMisuseError
from gateway.policy import limits
from gateway.smtp.capability import (
    VERB_LINE,
    OfferSize,
    SplitReply,
    append_offer,
    carries_keyword,
    host_name,
    match_verb,
    offer_fits,
    room_for,
    split_offer,
)

REPLY = b"250-mx.example.org\r\n250-SIZE 1000\r\n250 DSN\r\n"
ONE_LINE = b"250 mx.example.org\r\n"
FULL = bytes(at * 7 % 256 for at in range(OfferSize.FULL.octets))
SHORT = FULL[: OfferSize.SHORT.octets]

TEXT = st.text("ABCxyz0189-. =/", max_size=30).map(str.encode)
REPLIES = st.lists(TEXT, min_size=1, max_size=12).map(
    lambda texts: b"".join(b"250-%b\r\n" % text for text in texts[:-1]) + b"250 %b\r\n" % texts[-1]
)


def untouched(reply: bytes) -> bool:
    return split_offer(reply) == SplitReply(reply, None)


# --- Sizes --------------------------------------------------------------------------------------------


def test_the_full_offer_has_four_lines_and_1892_octets() -> None:
    lines = append_offer(REPLY, FULL)[len(REPLY) :].splitlines(keepends=True)
    assert [len(line) for line in lines] == [460, 460, 460, 512]
    assert [line[:21] for line in lines] == [
        b"250-XNIGHTMAIL 1 1/4 ",
        b"250-XNIGHTMAIL 1 2/4 ",
        b"250-XNIGHTMAIL 1 3/4 ",
        b"250 XNIGHTMAIL 1 4/4 ",
    ]


def test_the_short_offer_has_one_line_of_245_octets() -> None:
    line = append_offer(REPLY, SHORT)[len(REPLY) :]
    assert len(line) == 245
    assert line.startswith(b"250 XNIGHTMAIL 1 1/1 ")
    assert line.endswith(b"\r\n")


def test_the_receivers_last_line_becomes_one_of_several() -> None:
    assert append_offer(REPLY, SHORT).startswith(b"250-mx.example.org\r\n250-SIZE 1000\r\n250-DSN\r\n250 XN")
    assert append_offer(ONE_LINE, SHORT).startswith(b"250-mx.example.org\r\n250 XNIGHTMAIL 1 1/1 ")


@pytest.mark.parametrize(
    ("octets", "size"),
    [
        (20, OfferSize.FULL),
        (619, OfferSize.FULL),
        (620, OfferSize.SHORT),
        (1999, OfferSize.SHORT),
        (2000, None),
        (3000, None),
    ],
)
def test_the_size_rule(octets: int, size: OfferSize | None) -> None:
    reply = b"250 " + b"x" * (octets - 6) + b"\r\n"
    assert offer_fits(reply) is size
    for offer in (FULL, SHORT):
        fits = size is not None and len(offer) <= size.octets
        assert room_for(reply, len(offer)) is fits
        if fits:
            begin = append_offer(reply, offer).rfind(b"250 XNIGHTMAIL")
            assert begin < limits.OFFER_MUST_BEGIN_BEFORE_OCTETS
        else:
            with pytest.raises(LocalMisuseError):
                append_offer(reply, offer)


def test_an_offer_of_more_than_nine_lines_never_has_room() -> None:
    assert not room_for(ONE_LINE, 100_000)
    assert not room_for(b"", 489 * 9)


@pytest.mark.parametrize(
    "reply", [b"", b"250-x\r\n", b"250 x", b"250 x\n", b"220 x\r\n", b"250-x\r\n500 y\r\n"]
)
def test_an_offer_only_follows_a_complete_250_reply(reply: bytes) -> None:
    with pytest.raises(LocalMisuseError):
        append_offer(reply, SHORT)


def test_an_empty_offer_is_misuse() -> None:
    with pytest.raises(LocalMisuseError):
        append_offer(REPLY, b"")


# --- The exact inverse --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply", [REPLY, ONE_LINE, b"250 \r\n", b"250-\r\n250 \r\n", b"250-250 x\r\n250 250-\r\n"]
)
@pytest.mark.parametrize("offer", [FULL, SHORT])
def test_there_and_back(reply: bytes, offer: bytes) -> None:
    assert split_offer(append_offer(reply, offer)) == SplitReply(reply, offer)


OFFERS = st.sampled_from(OfferSize).flatmap(
    lambda size: st.binary(min_size=size.octets, max_size=size.octets)
)


@given(REPLIES, st.binary(min_size=1, max_size=2800).filter(lambda offer: len(offer) not in (166, 1350)))
def test_what_has_the_layout_of_an_offer_and_another_length_is_none(reply: bytes, octets: bytes) -> None:
    if room_for(reply, len(octets)):
        assert untouched(append_offer(reply, octets))


@given(REPLIES, OFFERS)
def test_there_and_back_with_any_reply_and_offer(reply: bytes, offer: bytes) -> None:
    if room_for(reply, len(offer)) and not carries_keyword(reply):
        made = append_offer(reply, offer)
        assert split_offer(made) == SplitReply(reply, offer)
        assert all(len(line) <= limits.OFFER_LINE_OCTETS for line in made[len(reply) :].splitlines(True))


@given(REPLIES)
def test_a_reply_without_an_offer_is_untouched(reply: bytes) -> None:
    assert untouched(reply)


@given(st.binary(max_size=80))
def test_any_octets_at_all_are_untouched(octets: bytes) -> None:
    assert untouched(octets)
    assert untouched(b"250 XNIGHTMAIL 1 1/1 " + octets)
    assert untouched(b"250 XNIGHTMAIL 1 3/3 " + octets + b"\r\n")


@given(st.sampled_from([FULL, SHORT]), st.data())
def test_what_is_split_is_always_the_exact_inverse(offer: bytes, data: st.DataObject) -> None:
    """One octet of the reply altered: either no offer, or one that `append_offer` makes just so."""
    made = bytearray(append_offer(REPLY, offer))
    at = data.draw(st.integers(0, len(made) - 1))
    made[at] = data.draw(st.integers(0, 255))
    split = split_offer(bytes(made))
    if split.offer is None:
        assert split.stripped == made
    else:
        assert append_offer(split.stripped, split.offer) == made


def test_every_octet_of_the_offers_frame_counts() -> None:
    """Flip one bit anywhere outside of the chunks, within the offer's lines: no offer."""
    made = append_offer(REPLY, FULL)
    begin = len(REPLY)
    for at in range(begin, len(made)):
        column = at - (made.rfind(b"\n", 0, at) + 1)
        if column < 21 or made[at] in b"\r\n":
            flipped = made[:at] + bytes([made[at] ^ 1]) + made[at + 1 :]
            assert untouched(flipped), at


# --- Almost an offer ----------------------------------------------------------------------------------


def lines_of(offer: bytes) -> list[bytes]:
    return append_offer(REPLY, offer)[len(REPLY) :].splitlines(keepends=True)


OWN = b"250-mx.example.org\r\n250-DSN\r\n"
ONE, TWO, THREE, FOUR = lines_of(FULL)
ONLY = lines_of(SHORT)[0]


def as_more(line: bytes) -> bytes:
    return b"250-" + line[4:]


def as_last(line: bytes) -> bytes:
    return b"250 " + line[4:]


ALMOST = {
    "wrong order": OWN + TWO + ONE + THREE + FOUR,
    "reversed": OWN + as_more(FOUR) + THREE + TWO + as_last(ONE),
    "first missing": OWN + TWO + THREE + FOUR,
    "middle missing": OWN + ONE + THREE + FOUR,
    "last missing": OWN + ONE + TWO + as_last(THREE),
    "line between": OWN + ONE + TWO + b"250-SIZE\r\n" + THREE + FOUR,
    "not last": OWN + ONE + TWO + THREE + as_more(FOUR) + b"250 SIZE\r\n",
    "short one not last": OWN + as_more(ONLY) + b"250 SIZE\r\n",
    "line twice": OWN + ONE + TWO + TWO + THREE + FOUR,
    "last line twice": OWN + ONE + TWO + THREE + as_more(FOUR) + FOUR,
    "offer twice": OWN + as_more(ONLY) + ONLY,
    "short and full": OWN + as_more(ONLY) + ONE + TWO + THREE + FOUR,
    "full and short": OWN + ONE + TWO + THREE + as_more(FOUR) + ONLY,
    "keyword before": OWN + b"250-xnightmail\r\n" + ONLY,
    "keyword first": b"250-XNIGHTMAIL is my name\r\n" + ONLY,
    "nothing before": ONE + TWO + THREE + FOUR,
    "nothing before a short one": ONLY,
    "other version": OWN + ONLY.replace(b" 1 1/1 ", b" 2 1/1 "),
    "version of two digits": OWN + ONLY.replace(b" 1 1/1 ", b" 01 1/1 "),
    "one line of another version": OWN + ONE.replace(b" 1 1/4", b" 2 1/4") + TWO + THREE + FOUR,
    "other total": OWN + ONE + TWO.replace(b"2/4", b"2/5") + THREE + FOUR,
    "number zero": OWN + ONLY.replace(b"1/1", b"0/1"),
    "total zero": OWN + ONLY.replace(b"1/1", b"0/0"),
    "numbers of two digits": OWN + ONLY.replace(b"1/1", b"01/01"),
    "more lines than the reply has": OWN + ONLY.replace(b"1/1", b"9/9"),
    "lower case": OWN + ONLY.replace(b"XNIGHTMAIL", b"xnightmail"),
    "no chunk": OWN + b"250 XNIGHTMAIL 1 1/1 \r\n",
    "keyword alone": OWN + b"250 XNIGHTMAIL\r\n",
    "two blanks": OWN + ONLY.replace(b"XNIGHTMAIL ", b"XNIGHTMAIL  "),
    "tab": OWN + ONLY.replace(b"1/1 ", b"1/1\t"),
    "blank at the end": OWN + ONLY[:-2] + b" \r\n",
    "padding characters": OWN + ONLY[:-2] + b"==\r\n",
    "padding between": OWN + ONLY[:40] + b"=" + ONLY[41:],
    "plain base64": OWN + append_offer(REPLY, b"\xff" * 166)[len(REPLY) :].replace(b"_", b"/"),
    "blank in a chunk": OWN + ONLY[:40] + b" " + ONLY[40:],
    "octet outside of the alphabet": OWN + ONLY[:40] + b"!" + ONLY[41:],
    "cut by a character": OWN + ONLY[:-3] + b"\r\n",
    "cut by three": OWN + ONLY[:-5] + b"\r\n",
    "spare bits": OWN + ONLY[:-3] + bytes([ONLY[-3] + 1]) + b"\r\n",
    "other layout": OWN + ONE[:-3] + b"\r\n" + TWO[:21] + ONE[-3:-2] + TWO[21:] + THREE + FOUR,
    "layout with a short last line": OWN
    + ONE
    + TWO
    + THREE[:-2]
    + FOUR[21:31]
    + b"\r\n"
    + FOUR[:21]
    + FOUR[31:],
    "bare LF": OWN + ONLY[:-2] + b"\n",
    "bare LF between": OWN + ONE[:-2] + b"\n" + TWO + THREE + FOUR,
    "own last line is a last line": b"250-mx\r\n250 DSN\r\n" + ONLY,
    "own last line is no 250 line": b"250-mx\r\nDSN\r\n" + ONLY,
    "own last line ends in a bare LF": b"250-mx\r\n250-DSN\n" + ONLY,
    "masked": OWN + b"250 XXXXXXXXXX" + ONLY[14:],
    "octets behind": OWN + ONLY + b"x",
}


def test_the_pieces_of_the_almost_offers_make_offers() -> None:
    """Else the table below would prove nothing."""
    stripped = OWN[:-9] + b"250 DSN\r\n"
    assert split_offer(OWN + ONE + TWO + THREE + FOUR) == SplitReply(stripped, FULL)
    assert split_offer(OWN + ONLY) == SplitReply(stripped, SHORT)


@pytest.mark.parametrize("name", list(ALMOST))
def test_almost_an_offer_is_untouched(name: str) -> None:
    assert untouched(ALMOST[name])


# --- Keyword, names, verb -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "carries"),
    [
        (b"250-mx\r\n250 XNIGHTMAIL\r\n", True),
        (b"250-mx\r\n250-xNightMail 2 1/1 abc\r\n250 DSN\r\n", True),
        (b"250 XNIGHTMAIL=1\r\n", True),
        (b"250-mx\r\n250-  XNIGHTMAIL\r\n250 DSN\r\n", True),
        (b"250-mx\r\n250 XNIGHTMAILS\r\n", False),
        (b"250-mx\r\n250 XNIGHTMAIL-2\r\n", False),
        (b"250-mx XNIGHTMAIL\r\n250 AUTH XNIGHTMAIL\r\n", False),
        (REPLY, False),
    ],
)
def test_carries_keyword(reply: bytes, carries: bool) -> None:
    assert carries_keyword(reply) is carries


def test_a_made_offer_carries_the_keyword() -> None:
    assert carries_keyword(append_offer(REPLY, FULL))
    assert carries_keyword(append_offer(ONE_LINE, SHORT))


def test_host_name() -> None:
    assert host_name(b"220 mx.example.org ESMTP\r\n") == b"mx.example.org"
    assert host_name(append_offer(ONE_LINE, SHORT)) == b"mx.example.org"


def test_the_verb_octet_by_octet() -> None:
    for at in range(len(VERB_LINE)):
        assert match_verb(VERB_LINE[:at]) is None
    assert match_verb(VERB_LINE) is True
    assert match_verb(VERB_LINE + b"\x81\x00") is True


@pytest.mark.parametrize(
    "data",
    [b"MAIL", b"xnightmail\r\n", b"XNIGHTMAIL\n", b"XNIGHTMAIL \r\n", b"XNIGHTMAIL\r\r\n", b" ", b"XQ"],
)
def test_other_commands_are_no_verb(data: bytes) -> None:
    assert match_verb(data) is False
