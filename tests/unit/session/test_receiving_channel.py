"""The receiving gateway in its channel: octets, ends, resets, and records that are not the peer's."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.crypto.frames import FrameKind, frame
from gateway.crypto.messages import STATEMENT
from gateway.crypto.records import RecordType
from gateway.errors import Reason
from gateway.policy import limits
from gateway.session.events import (
    Side,
)
from gateway.smtp.capability import VERB_LINE
from tests.playbook import EHLO, FarSendingGateway, flip
from tests.unit.session.receiving_steps import MAIL, Channelled, far_s, offered


def test_close_both_ways() -> None:
    channel = Channelled(b"QUIT\r\n")
    book = channel.book
    book.near(b"221 Bye\r\n")
    book.near_end()
    assert channel.heard.kinds[-1] is RecordType.CLOSE
    assert book.ended == {Side.FAR}
    book.far(channel.s.layer.seal(RecordType.CLOSE))
    assert book.ended == {Side.NEAR, Side.FAR}
    assert book.closed


def test_an_end_without_close_never_ends_the_data() -> None:
    """A truncated DATA must not look finished to the receiver."""
    channel = Channelled(MAIL + b"DATA\r\nSubject: cut\r\n")
    channel.book.far_end()
    assert channel.book.ended == set()
    assert channel.book.reset == {Side.NEAR, Side.FAR}
    assert channel.book.facts == [("channel-failed", Reason.END_WITHOUT_CLOSE)]


def test_a_truncated_record_gives_the_receiver_nothing_of_it() -> None:
    channel = Channelled()
    seen = channel.book.to_near
    channel.book.far(channel.s.says(b"RCPT TO:<bob@b.example>\r\n")[:-1])
    channel.book.far_end()
    assert channel.book.to_near == seen
    assert Side.NEAR in channel.book.reset


def test_a_reset_of_the_receiver_travels_authenticated() -> None:
    channel = Channelled()
    channel.book.near_reset()
    assert channel.heard.kinds[-1] is RecordType.RESET


def test_a_reset_of_a_receiver_that_had_ended() -> None:
    channel = Channelled()
    channel.book.near_end()
    channel.book.near_reset()
    assert channel.book.state == "over"
    assert channel.heard.kinds[-1] is RecordType.CLOSE


def test_a_reset_record_resets_the_receiver() -> None:
    channel = Channelled()
    channel.book.far(channel.s.layer.seal(RecordType.RESET))
    assert Side.NEAR in channel.book.reset
    assert Side.NEAR not in channel.book.ended


def test_octets_behind_a_reset_record_are_not_read() -> None:
    """It was the last one: what somebody puts behind it is no failure of the channel."""
    channel = Channelled()
    channel.book.far(channel.s.layer.seal(RecordType.RESET) + frame(FrameKind.RECORD, bytes(40)))
    assert Side.NEAR in channel.book.reset
    assert channel.book.facts == []


CHANNEL_FAILURES: dict[str, tuple[Callable[[FarSendingGateway], bytes], Reason]] = {
    "clear octets": (lambda s: b"RCPT TO:<evil@example>\r\n", Reason.CLEAR_OCTETS_IN_CHANNEL),
    "tampered": (lambda s: flip(s.says(MAIL), -1), Reason.BAD_TAG),
    "reordered": (lambda s: (s.says(b"1"), s.says(b"2"))[1], Reason.BAD_TAG),
    "message 2 again": (lambda s: s.answer[len(VERB_LINE) :], Reason.BAD_FRAME),
    "the verb again": (lambda s: s.answer, Reason.CLEAR_OCTETS_IN_CHANNEL),
    "behind CLOSE": (
        lambda s: s.layer.seal(RecordType.CLOSE) + frame(FrameKind.RECORD, bytes(40)),
        Reason.OCTETS_AFTER_CLOSE,
    ),
    "the beginning of a frame behind CLOSE": (
        lambda s: s.layer.seal(RecordType.CLOSE) + b"\x82",
        Reason.OCTETS_AFTER_CLOSE,
    ),
    "malformed PARAMS": (lambda s: s.layer.seal(RecordType.PARAMS, b"\x04\0\0"), Reason.BAD_PARAMS),
}


@pytest.mark.parametrize("how", CHANNEL_FAILURES)
def test_what_is_not_the_peers_resets_the_receiver(how: str) -> None:
    channel = Channelled()
    act, reason = CHANNEL_FAILURES[how]
    seen = channel.book.to_near
    channel.book.far(act(channel.s))
    assert channel.book.to_near == seen
    assert channel.book.reset == {Side.NEAR, Side.FAR}
    assert channel.book.facts == [("channel-failed", reason)]


def test_no_octet_comes_behind_close_in_a_read_of_its_own_either() -> None:
    """It need not become a frame: nobody but the peer itself, or somebody in between, can have said it."""
    channel = Channelled()
    channel.book.far(channel.s.layer.seal(RecordType.CLOSE))
    assert channel.book.ended == {Side.NEAR}
    channel.book.far(b"\x82")
    assert channel.book.reset == {Side.NEAR, Side.FAR}
    assert channel.book.facts == [("channel-failed", Reason.OCTETS_AFTER_CLOSE)]


def test_a_reflected_record_resets_the_receiver() -> None:
    channel = Channelled()
    channel.book.near(b"250 2.1.0 Ok\r\n")
    channel.book.far(channel.book.to_far[channel.mark :])
    assert channel.book.to_near == EHLO + MAIL
    assert channel.book.reset == {Side.NEAR, Side.FAR}


def test_a_replayed_first_flight_is_refused_by_another_connection() -> None:
    """Everything that S said, said again to a fresh offer: nothing of it reaches the receiver."""
    first = offered(label="first")
    s = far_s(first)
    flight = s.answer + s.says(MAIL)
    first.far(flight)
    assert first.to_near == EHLO + MAIL
    again = offered(label="second")
    again.far(flight)
    assert again.to_near == EHLO
    assert again.closed


def test_the_receiver_gets_what_came_before_a_bad_record_and_nothing_of_it() -> None:
    channel = Channelled()
    good, bad = channel.s.says(b"RSET\r\n"), flip(channel.s.says(b"QUIT\r\n"), -1)
    channel.book.far(good + bad)
    assert channel.book.to_near == EHLO + MAIL + b"RSET\r\n"
    assert Side.NEAR in channel.book.reset


def test_statements_of_s_hold_no_memory() -> None:
    """R ignores them: of thousands of sessions each would else keep two records of 64 KiB."""
    channel = Channelled()
    large = bytes(limits.RECORD_CONTENT_OCTETS)
    channel.book.far(b"".join(channel.s.layer.seal(RecordType.STATEMENT, large) for _ in range(9)))
    assert channel.book.state == "channel"
    kept = channel.book.machine._channel
    assert kept is not None
    assert sum(len(content) for content in kept.statements) <= 2 * STATEMENT.octets
