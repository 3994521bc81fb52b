"""The receiving gateway's first record: with the receiver's first answer, or alone where that takes long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gateway.crypto.messages import STATEMENT
from gateway.crypto.padding import padme
from gateway.crypto.records import RecordType
from gateway.policy import limits
from tests.playbook import EHLO, FarSendingGateway, flip
from tests.unit.session.receiving_steps import MAIL, far_s, offered

OK = b"250 2.1.0 Ok\r\n"


class Answered:
    """A playbook whose S has sent its answer, and behind it, in the same read, these records."""

    def __init__(
        self,
        *,
        flight: bytes = MAIL,
        then: Callable[[FarSendingGateway], bytes] = lambda _: b"",
        **surroundings: Any,
    ) -> None:
        self.book = offered(**surroundings)
        self.mark = len(self.book.to_far)
        self.s = far_s(self.book)
        self.book.far(self.s.answer + (self.s.says(flight) if flight else b"") + then(self.s))

    @property
    def sent(self) -> bytes:
        return self.book.to_far[self.mark :]

    @property
    def kinds(self) -> list[RecordType]:
        return self.s.take(self.sent).kinds


def test_it_leaves_with_what_the_receiver_answers_in_one_padded_write() -> None:
    met = Answered()
    assert met.book.to_near == EHLO + MAIL
    assert met.sent == b""
    met.book.near(OK)
    assert len(met.sent) == 512
    assert met.kinds == [RecordType.PARAMS, RecordType.DATA]
    assert met.s.data == OK
    assert met.book.machine.deadline is None


def test_a_receiver_that_takes_long_is_not_waited_for() -> None:
    met = Answered()
    assert met.book.machine.deadline == met.book.now + limits.FIRST_RECORD_SECONDS
    met.book.deadline()
    assert (met.kinds, len(met.sent)) == ([RecordType.PARAMS], 512)
    assert met.book.machine.deadline is None
    met.book.near(OK)
    assert (met.kinds, len(met.sent)) == ([RecordType.PARAMS, RecordType.DATA], 1024)


def test_where_the_receiver_was_asked_nothing_nobody_is_waited_for() -> None:
    met = Answered(flight=b"")
    assert met.kinds == [RecordType.PARAMS]


def test_a_statement_does_not_wait() -> None:
    """S may have to see it before it says anything at all."""
    met = Answered(statements=(bytes(STATEMENT.octets),))
    assert sorted(met.kinds) == sorted([RecordType.PARAMS, RecordType.STATEMENT])


def test_it_leaves_at_once_when_s_says_more() -> None:
    met = Answered()
    met.book.far(met.s.says(b"RCPT TO:<b@b.example>\r\n"))
    assert met.kinds == [RecordType.PARAMS]
    met.book.near(OK * 2)
    assert met.kinds == [RecordType.PARAMS, RecordType.DATA]


def test_it_leaves_in_front_of_the_end_of_a_receiver_that_answers_nothing() -> None:
    met = Answered()
    met.book.near_end()
    assert met.kinds == [RecordType.PARAMS, RecordType.CLOSE]


def test_a_large_answer_does_not_wait_for_longer_than_any_other() -> None:
    met = Answered()
    said = bytes(20_000)
    met.book.near(said)
    assert met.kinds == [RecordType.PARAMS, RecordType.DATA]
    begun = met.book.now
    while met.book.machine.deadline is not None:
        met.book.deadline()
    assert met.book.now - begun <= limits.FLIGHT_SILENCE_SECONDS + limits.FLIGHT_LOOK_SECONDS
    assert met.s.take(met.sent).data == said
    assert len(met.sent) == padme(len(met.sent))


def test_a_large_answer_that_comes_in_drops_does_not_put_it_off() -> None:
    """Each begins the silence anew that ends a large flight, but not the time for the first record."""
    met = Answered()
    said, begun = bytes(16_384), met.book.now
    met.book.near(said)
    while not met.sent:
        until = met.book.now + 0.6 * limits.FLIGHT_SILENCE_SECONDS
        while not met.sent and met.book.machine.deadline is not None and met.book.machine.deadline <= until:
            met.book.deadline()
        if not met.sent:
            met.book.now, said = until, said + b"x"
            met.book.near(b"x")
    assert met.book.now - begun <= limits.FIRST_RECORD_SECONDS
    assert met.kinds[0] is RecordType.PARAMS
    assert met.s.data == said


@pytest.mark.parametrize(
    "then",
    [lambda s: s.layer.seal(RecordType.RESET), lambda s: flip(s.says(b"RSET\r\n"), -1)],
    ids=["reset", "bad"],
)
def test_nothing_is_said_behind_the_end_of_the_channel(then: Callable[[FarSendingGateway], bytes]) -> None:
    met = Answered(then=then)
    assert met.book.to_near == EHLO + MAIL
    assert met.sent == b""
    assert met.book.state == "over"
