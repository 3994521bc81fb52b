"""The sending gateway's channel: what leaves how padded, and each way in which it ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.crypto.frames import FrameKind, frame
from gateway.crypto.handshake import OfferForm
from gateway.crypto.padding import padme
from gateway.crypto.records import RecordType
from gateway.errors import Reason
from gateway.session import commands as c
from gateway.session.events import (
    Side,
)
from gateway.smtp.capability import VERB_LINE
from tests.playbook import (
    EHLO,
    FarReceivingGateway,
    Playbook,
    flip,
    octets,
)
from tests.unit.session.sending_steps import (
    MAIL,
    RCPT,
    channelled,
    confirming,
    ready,
)

# --- Padding ------------------------------------------------------------------------------------------------


def writes(commands: list[c.Command]) -> list[int]:
    return [len(x.octets) for x in commands if isinstance(x, c.SendOctets) and x.side is Side.FAR]


@pytest.mark.parametrize("flight", [b"RSET\r\n", MAIL, b"MAIL FROM:<a@a.example>\r\n" * 15])
def test_the_first_flight_looks_alike_whatever_it_says(flight: bytes) -> None:
    """Verb and answer are of a known length; the records behind them are padded by themselves."""
    r = FarReceivingGateway()
    book = ready(r)
    assert writes(book.near(flight)) == [len(VERB_LINE) + 3 + OfferForm.FULL.answer_octets + 512]
    assert r.take(book.to_far).data == flight


def test_more_of_the_first_flight_is_padded_too() -> None:
    book = confirming(FarReceivingGateway())
    assert writes(book.near(b"RCPT TO:<b@b.example>\r\n")) == [512]


def test_commands_look_alike() -> None:
    r = FarReceivingGateway()
    book = channelled(r)
    for command in (b"DATA\r\n", b"RCPT TO:<somebody.with.a.long.name@b.example>\r\n", b"QUIT\r\n"):
        assert writes(book.near(command)) == [512]
        book.far(r.says(b"250 Ok\r\n"))
    assert writes(book.near_end()) == [512]


def test_the_end_of_a_large_mail_is_held_for_five_milliseconds_and_then_leaves_padded() -> None:
    r = FarReceivingGateway()
    book = channelled(r)
    book.near(b"DATA\r\n")
    book.far(r.says(b"354 go on\r\n"))
    mail = octets("mail", 50_000)
    first = writes(book.near(mail))
    assert first == [2 * (16_384 + 22)], "50,000 octets are 50,088 on the wire; steps there are of 2,048"
    assert book.machine.deadline is not None
    begun = book.now
    end: list[int] = []
    while not end:
        end = writes(book.deadline())
    assert book.now - begun == pytest.approx(0.005)
    assert sum(first + end) == padme(sum(first + end))
    assert r.take(book.to_far).data.endswith(mail)
    assert book.machine.deadline is None


def test_the_receivers_word_releases_what_is_held() -> None:
    r = FarReceivingGateway()
    book = channelled(r)
    book.near(octets("mail", 50_000))
    book.far(r.says(b"552 too large\r\n"))
    assert r.take(book.to_far).data.endswith(octets("mail", 50_000))
    assert book.machine.deadline is None


def test_a_channel_that_breaks_takes_its_deadline_along() -> None:
    r = FarReceivingGateway()
    book = channelled(r)
    book.near(octets("mail", 50_000))
    book.far(flip(r.says(b"250 Ok\r\n"), 20))
    assert (book.state, book.machine.deadline) == ("over", None)


def test_content_that_was_held_leaves_when_r_is_confirmed_and_ends_padded() -> None:
    r = FarReceivingGateway()
    content = octets("pipelined", 30_000)
    book = confirming(r, MAIL + b"BDAT 30000 LAST\r\n" + content)
    assert b"BDAT" not in r.data
    book.far(r.params())
    book.deadline()
    book.deadline()
    assert r.take(book.to_far).data.endswith(content)
    records = len(book.to_far) - len(EHLO) - len(VERB_LINE) - 3 - OfferForm.FULL.answer_octets
    assert records == padme(records)


def test_native_starttls_travels_in_the_channel() -> None:
    """Octets are octets: from the first record on nothing is read for its meaning."""
    r = FarReceivingGateway()
    book = channelled(r, b"STARTTLS\r\n")
    book.far(r.says(b"220 2.0.0 Ready\r\n"))
    hello = b"\x16\x03\x01BDAT\x82\x00" + bytes(range(256))
    book.near(hello)
    book.far(r.says(hello[::-1]))
    assert r.take(book.to_far).data == b"STARTTLS\r\n" + hello
    assert book.to_near.endswith(b"220 2.0.0 Ready\r\n" + hello[::-1])


# --- In the channel -----------------------------------------------------------------------------------------


def test_close_both_ways() -> None:
    r = FarReceivingGateway()
    book = channelled(r, b"QUIT\r\n")
    book.near_end()
    assert r.take(book.to_far).kinds[-1] is RecordType.CLOSE
    assert book.ended == {Side.FAR}
    book.far(r.says(b"221 Bye\r\n") + r.layer.seal(RecordType.CLOSE))
    assert book.to_near.endswith(b"221 Bye\r\n")
    assert book.ended == {Side.NEAR, Side.FAR}
    assert book.closed


def test_a_close_of_the_far_side_lets_the_near_side_go_on() -> None:
    r = FarReceivingGateway()
    book = channelled(r)
    book.far(r.layer.seal(RecordType.CLOSE))
    assert book.ended == {Side.NEAR}
    book.far_end()
    book.near(RCPT)
    assert r.take(book.to_far).data == MAIL + RCPT
    book.near_end()
    assert r.take(book.to_far).kinds[-1] is RecordType.CLOSE
    assert book.closed


@pytest.mark.parametrize("behind", [b"", b"\x82", b"\x82\x00\x40abc"])
def test_an_end_without_close_is_a_reset(behind: bytes) -> None:
    r = FarReceivingGateway()
    book = channelled(r)
    if behind:
        book.far(behind)
    book.far_end()
    assert Side.NEAR in book.reset
    assert Side.NEAR not in book.ended
    assert ("channel-failed", Reason.END_WITHOUT_CLOSE) in book.facts


def test_a_reset_of_the_far_side_is_a_reset() -> None:
    book = channelled(FarReceivingGateway())
    book.far_reset()
    assert Side.NEAR in book.reset


def test_a_reset_of_the_sender_travels_authenticated() -> None:
    r = FarReceivingGateway()
    book = channelled(r)
    book.near_reset()
    assert r.take(book.to_far).kinds[-1] is RecordType.RESET


def test_a_reset_of_a_sender_that_had_ended() -> None:
    """It sent QUIT, closed, and the receiver's 221 met nobody. CLOSE was the last record: no RESET now."""
    r = FarReceivingGateway()
    book = channelled(r, b"QUIT\r\n")
    book.near_end()
    book.far(r.says(b"221 Bye\r\n"))
    book.near_reset()
    assert book.state == "over"
    assert r.take(book.to_far).kinds[-1] is RecordType.CLOSE
    assert book.closed or Side.FAR in book.reset


def test_a_reset_record_resets_the_sender() -> None:
    r = FarReceivingGateway()
    book = channelled(r)
    book.far(r.says(b"4") + r.layer.seal(RecordType.RESET))
    assert Side.NEAR in book.reset
    assert Side.NEAR not in book.ended


def test_a_reset_as_the_first_record() -> None:
    r = FarReceivingGateway()
    book = confirming(r)
    book.far(r.layer.seal(RecordType.RESET))
    assert Side.NEAR in book.reset
    assert book.state == "over"


CHANNEL_FAILURES: dict[str, Callable[[FarReceivingGateway], bytes]] = {
    "clear octets": lambda r: b"250 2.0.0 Ok: queued\r\n",
    "clear behind a record": lambda r: r.layer.seal(RecordType.PAD) + b"250 Ok\r\n",
    "tampered": lambda r: flip(r.says(b"250 2.0.0 Ok: queued\r\n"), -3),
    "tampered header": lambda r: flip(r.says(b"250 2.0.0 Ok: queued\r\n" * 20), 2, 0x40) + bytes(100),
    "reordered": lambda r: (r.says(b"1"), r.says(b"2"))[1],
    "message 2": lambda r: frame(FrameKind.ANSWER, bytes(1324)),
    "octets behind CLOSE": lambda r: r.layer.seal(RecordType.CLOSE) + frame(FrameKind.RECORD, bytes(40)),
}


@pytest.mark.parametrize("how", CHANNEL_FAILURES)
def test_what_is_not_the_peers_resets_the_sender(how: str) -> None:
    r = FarReceivingGateway()
    book = channelled(r)
    seen = book.to_near
    book.far(CHANNEL_FAILURES[how](r))
    assert book.to_near == seen, "not an octet of it"
    assert book.reset == {Side.NEAR, Side.FAR}
    assert [event for event, _ in book.facts] == ["channel-failed"]


def test_a_replayed_record_resets_the_sender() -> None:
    r = FarReceivingGateway()
    book = channelled(r)
    record = r.says(b"250 Ok\r\n")
    book.far(record)
    seen = book.to_near
    book.far(record)
    assert (book.to_near, book.reset) == (seen, {Side.NEAR, Side.FAR})


def test_records_without_content_show_nothing() -> None:
    r = FarReceivingGateway()
    book = channelled(r)
    seen = book.to_near
    book.far(r.layer.seal(RecordType.PAD, inner_pad=300) + r.layer._seal(0x7E, b"future", 0) + r.params())
    book.far(r.layer.seal(RecordType.DATA))
    assert book.to_near == seen
    assert book.state == "channel"


# --- Whether something between the gateways has ended it ----------------------------------------------------


def _closed_by_both(book: Playbook, r: FarReceivingGateway) -> None:
    book.near_end()
    book.far(r.layer.seal(RecordType.CLOSE))


@pytest.mark.parametrize(
    ("end", "broke"),
    [
        (_closed_by_both, False),
        (lambda book, r: book.far(r.layer.seal(RecordType.RESET)), False),
        (lambda book, r: book.far_reset(), True),
        (lambda book, r: book.far_end(), True),
        (lambda book, r: book.far(flip(r.says(b"250 Ok\r\n"), 20)), True),
        (lambda book, r: book.near_reset(), None),
        (lambda book, r: (book.far(r.layer.seal(RecordType.CLOSE)), book.far_reset()), None),
    ],
    ids=["closed", "reset-by-receiver", "cut", "cut-in-order", "damaged", "sender-left", "cut-when-closed"],
)
def test_what_has_ended_a_channel(
    end: Callable[[Playbook, FarReceivingGateway], None], broke: bool | None
) -> None:
    r = FarReceivingGateway()
    book = channelled(r)
    assert book.machine.channel_broke is None
    end(book, r)
    assert book.machine.channel_broke is broke


def test_where_there_was_no_channel_none_has_broken() -> None:
    book = ready(FarReceivingGateway())
    book.far_reset()
    assert book.machine.channel_broke is None
