"""Records that break a channel or a handshake, and ones that do not, in both implementations."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.session.events import Side
from tests.playbook import (
    EHLO,
    GREETING,
    REPLY,
)
from tests.second import chacha
from tests.second.crafted import (
    FORMS,
    MAIL,
    REPLIES,
    WHO,
    FarR,
    channel,
    confirming,
    flip,
    s_of,
)
from tests.second.messages import (
    tlv,
    u16,
)
from tests.second.records import (
    ANSWER,
    CLOSE,
    DATA,
    PAD,
    PARAMS,
    RECORD,
    RESET,
    STATEMENT,
    Key,
)


def sealed(inner: bytes) -> Callable[[Key], bytes]:
    """A record with any inner plaintext at all."""

    def seal(key: Key) -> bytes:
        header = bytes([RECORD]) + u16(len(inner) + 16)
        return header + chacha.seal(key.k, key._next(), header, inner)

    return seal


def twice(key: Key) -> bytes:
    frame = key.seal(DATA, b"once", 0)
    return frame + frame


def swapped(key: Key) -> bytes:
    first = key.seal(DATA, b"a", 0)
    return key.seal(DATA, b"b", 0) + first


def changed(at: int) -> Callable[[Key], bytes]:
    return lambda key: flip(key.seal(DATA, b"not to be seen", 5), at)


BAD_RECORDS: dict[str, Callable[[Key], bytes]] = {
    "length changed": changed(2),
    "type of the frame changed": changed(0),
    "first octet changed": changed(3),
    "content changed": changed(8),
    "padding changed": changed(22),
    "tag changed": changed(-1),
    "replayed": twice,
    "reordered": swapped,
    "another frame type": lambda key: b"\x83" + key.seal(DATA, b"x", 0)[1:],
    "a second answer": lambda key: bytes([ANSWER]) + u16(1324) + bytes(1324),
    "shorter than any record": lambda key: bytes([RECORD]) + u16(18) + bytes(18),
    "clear octet": lambda key: b"2",
    "clear octet behind a record": lambda key: key.seal(PAD, b"", 0) + b"250 ok\r\n",
    "OPEN": lambda key: key.seal(6, b"", 0),
    "END": lambda key: key.seal(7, b"", 0),
    "type 8": lambda key: key.seal(8, b"", 0),
    "type 0x3F": lambda key: key.seal(0x3F, b"", 0),
    "PAD with content": lambda key: key.seal(PAD, b"x", 0),
    "CLOSE with content": lambda key: key.seal(CLOSE, b"x", 0),
    "RESET with content": lambda key: key.seal(RESET, b"x", 0),
    "padding that is not zero": sealed(b"\x01\x00\x01a\x00\x01\x00"),
    "length behind the end": sealed(b"\x01\x00\x02a"),
    "PARAMS cut off": lambda key: key.seal(PARAMS, b"\x02\x00", 0),
    "PARAMS too long": lambda key: key.seal(PARAMS, b"\x09\x00\x02a", 0),
    "PARAMS twice": lambda key: key.seal(PARAMS, tlv(9, b"a") + tlv(9, b"a"), 0),
    "ADDRESS_CONFIRMED of 2": lambda key: key.seal(PARAMS, tlv(2, b"\2"), 0),
    "RECORD_LIMIT of 0": lambda key: key.seal(PARAMS, tlv(3, u16(0)), 0),
    "RECORD_LIMIT of 65,517": lambda key: key.seal(PARAMS, tlv(3, u16(65517)), 0),
    "SOFTWARE of nothing": lambda key: key.seal(PARAMS, tlv(4, b""), 0),
    "SOFTWARE of 65 octets": lambda key: key.seal(PARAMS, tlv(4, b"a" * 65), 0),
    "SOFTWARE with a control": lambda key: key.seal(PARAMS, tlv(4, b"a\nb"), 0),
}
GOOD_RECORDS: dict[str, tuple[Callable[[Key], bytes], bytes]] = {
    "empty DATA": (lambda key: key.seal(DATA, b"", 0), b""),
    "padded DATA": (lambda key: key.seal(DATA, b"abc", 300), b"abc"),
    "the largest content": (lambda key: key.seal(DATA, b"a" * 65516, 0), b"a" * 65516),
    "the largest padding": (lambda key: key.seal(PAD, b"", 65516), b""),
    "unknown types": (lambda key: key.seal(0x40, b"abc", 7) + key.seal(0xFF, b"", 0), b""),
    "unknown PARAMS": (lambda key: key.seal(PARAMS, tlv(1, b"") + tlv(5, b"abc") + tlv(9, b""), 0), b""),
    "PARAMS at their edges": (
        lambda key: key.seal(PARAMS, tlv(2, b"\0") + tlv(3, u16(65516)) + tlv(4, b"~" * 64), 0),
        b"",
    ),
    "a STATEMENT of any form": (lambda key: key.seal(STATEMENT, b"abc", 0), b""),
}
ROLES = pytest.mark.parametrize("role", ["S", "R"])


@WHO
@ROLES
@pytest.mark.parametrize("name", BAD_RECORDS)
def test_a_bad_record_breaks_the_channel(who: str, role: str, name: str) -> None:
    """Both sides are reset, nothing of the record is handed on, and nothing behind it is either."""
    one, key = channel(role, who)
    one.from_far(BAD_RECORDS[name](key))
    if one.was_reset != set(Side):  # a frame that waits for more than has come
        one.from_far(key.seal(DATA, b"behind", 0) * 3)
    assert one.was_reset == set(Side)
    assert one.near in (b"", b"once")
    assert Side.NEAR not in one.ended
    one.from_far(key.seal(DATA, b"behind", 0))
    assert b"behind" not in one.near


@WHO
@ROLES
@pytest.mark.parametrize("name", GOOD_RECORDS)
def test_a_good_one_does_not(who: str, role: str, name: str) -> None:
    one, key = channel(role, who)
    made, content = GOOD_RECORDS[name]
    one.from_far(made(key))
    one.from_far(key.seal(DATA, b"!", 0))
    assert one.near == content + b"!"
    assert not one.was_reset


@WHO
@ROLES
def test_nothing_comes_behind_the_end(who: str, role: str) -> None:
    for end in (CLOSE, RESET):
        for together in (True, False):
            one, key = channel(role, who)
            said = key.seal(end, b"", 3), key.seal(DATA, b"behind", 0)
            for part in [b"".join(said)] if together else said:
                one.from_far(part)
            assert one.near == b""
            assert Side.NEAR in one.was_reset


# --- S, before R is confirmed -------------------------------------------------------------------------------


@WHO
@pytest.mark.parametrize(
    "name",
    [name for name in BAD_RECORDS if name not in ("replayed", "reordered", "clear octet behind a record")],
)
def test_a_bad_first_record_is_a_failed_handshake(who: str, name: str) -> None:
    s, far_r = confirming(who)
    s.from_far(BAD_RECORDS[name](far_r.writer))
    if s.dials == 1 and not s.was_reset:
        s.from_far(bytes(5000))
    if name.startswith(("PARAMS", "ADDRESS", "RECORD_LIMIT", "SOFTWARE")):
        assert s.was_reset == set(
            Side
        )  # the record has verified: so R is confirmed, and the channel is broken
    else:
        assert s.dials == 2
    assert s.near == GREETING + REPLY


@WHO
@pytest.mark.parametrize(
    "said",
    [b"250 2.1.0 Ok\r\n", b"421 4.3.0 x\r\n", b"454 4.7.0 x\r\n", bytes([ANSWER]) + u16(1324) + bytes(1324)],
)
def test_nothing_in_clear_reaches_the_sender_behind_the_verb(who: str, said: bytes) -> None:
    s, _ = confirming(who)
    s.from_far(said)
    assert (s.near, s.dials) == (GREETING + REPLY, 2)


@WHO
def test_s_waits_ten_seconds(who: str) -> None:
    s, _ = confirming(who)
    began = s.now
    s.time_passes()
    assert (s.now - began, s.dials) == (10, 2)


@WHO
@FORMS
def test_what_the_receiver_says_unasked_ends_the_attempt(who: str, form: str) -> None:
    s = s_of(who)
    s.from_far(GREETING).from_near(EHLO).from_far(FarR(form=form).reply).from_far(b"421 bye\r\n")
    assert s.near == GREETING + REPLIES[form] + b"421 bye\r\n"
    s.from_near(MAIL)
    assert s.far == EHLO + MAIL


@WHO
@pytest.mark.parametrize(
    ("said", "now"),
    [
        (b"MAIL x\r\nBDAT 3 LAST\r\nabc", b"MAIL x\r\n"),
        (b"MAIL x\r\n \tbdat 3\r\nabc", b"MAIL x\r\n \t"),
        (b"MAIL x\r\nburl imap://x LAST\r\n", b"MAIL x\r\n"),
        (b"MAIL x\r\nBUR", b"MAIL x\r\n"),
        (b"BURN\r\n", b"BURN\r\n"),
        (b"DATA\r\ncontent", b"DATA\r\n"),
        (b"data\ncontent", b"data\n"),
        (b"DATA x\rcontent", b"DATA x\r"),
        (b"NOOP DATA\r\nBDA\r\nXBDAT\r\n", b"NOOP DATA\r\nBDA\r\nXBDAT\r\n"),
        (b"RSET\r\nBDA", b"RSET\r\n"),
        (b"NOOP\rBDAT 1\r\na", b"NOOP\r"),
    ],
)
@pytest.mark.parametrize("step", [1, 1000])
def test_content_waits_until_r_is_confirmed(who: str, said: bytes, now: bytes, step: int) -> None:
    far_r = FarR()
    s = s_of(who)
    s.from_far(GREETING).from_near(EHLO).from_far(far_r.reply)
    for at in range(0, len(said), step):
        s.from_near(said[at : at + step])
    records = far_r.takes(s.far[len(EHLO) :])
    left = b"".join(content for type_, content in records if type_ == DATA)
    assert left.startswith(now)
    assert left.rstrip(b"dDbB") == now.rstrip(b"dDbB")
    s.far = b""
    s.from_far(far_r.writer.seal(PARAMS, b"", 0))
    rest = b"".join(content for type_, content in far_r.hears(s.far) if type_ == DATA)
    assert left + rest == said
