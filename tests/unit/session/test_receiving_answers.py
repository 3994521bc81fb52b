"""What the receiving gateway makes of message 2: refused where it is none, its address compared."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.crypto.frames import FrameKind, frame
from gateway.crypto.params import Params
from gateway.errors import Reason
from gateway.policy import limits
from gateway.session.events import (
    ResetReceived,
    Side,
)
from gateway.smtp.capability import VERB_LINE
from tests.playbook import EHLO, ELSEWHERE, R_KEYS, TODAY, FarSendingGateway, Playbook, flip, gateway_keys
from tests.unit.session.receiving_steps import MAIL, REFUSAL, Channelled, far_s, offered, the_offer


def _answer(change: Callable[[FarSendingGateway], bytes]) -> Callable[[Playbook], object]:
    return lambda book: book.far(change(far_s(book)))


OLD_S = gateway_keys("S", TODAY - 15)

ANSWERS: dict[str, tuple[Callable[[Playbook], object], Reason]] = {
    "clear behind the verb": (
        _answer(lambda s: VERB_LINE + b"MAIL FROM:<>\r\n"),
        Reason.CLEAR_OCTETS_IN_CHANNEL,
    ),
    "clear behind the verb, then message 2": (
        _answer(lambda s: VERB_LINE + b"RSET\r\n" + s.answer[len(VERB_LINE) :]),
        Reason.CLEAR_OCTETS_IN_CHANNEL,
    ),
    "clear behind message 2": (
        _answer(lambda s: s.answer + b"MAIL FROM:<evil@example>\r\n"),
        Reason.CLEAR_OCTETS_IN_CHANNEL,
    ),
    "a record for message 2": (_answer(lambda s: VERB_LINE + s.says(MAIL)), Reason.BAD_FRAME),
    "message 2 in a record's frame": (
        _answer(lambda s: VERB_LINE + frame(FrameKind.RECORD, s.message)),
        Reason.BAD_FRAME,
    ),
    "another frame": (_answer(lambda s: VERB_LINE + b"\x90\x00\x01x"), Reason.BAD_FRAME),
    "ephemeral tampered": (_answer(lambda s: flip(s.answer, len(VERB_LINE) + 3)), Reason.BAD_TAG),
    "tag tampered": (_answer(lambda s: flip(s.answer, -1)), Reason.BAD_TAG),
    "zeros": (
        _answer(lambda s: VERB_LINE + frame(FrameKind.ANSWER, bytes(len(s.message)))),
        Reason.BAD_KEY,
    ),
    "short form": (_answer(lambda s: VERB_LINE + frame(FrameKind.ANSWER, bytes(220))), Reason.BAD_FRAME),
    "the answer to another offer": (
        lambda book: book.far(far_s(offered(label="another")).answer),
        Reason.BAD_TAG,
    ),
    "our own identity": (lambda book: book.far(far_s(book, answer_as=R_KEYS).answer), Reason.OWN_IDENTITY),
    "another's endorsement": (
        lambda book: book.far(far_s(book, answer_as=gateway_keys("X")).answer),
        Reason.BAD_SIGNATURE,
    ),
    "endorsement expired": (
        lambda book: book.far(FarSendingGateway(the_offer(book), keys=OLD_S).answer),
        Reason.ENDORSEMENT_EXPIRED,
    ),
    "fin": (lambda book: (book.far(VERB_LINE + b"\x81"), book.far_end()), Reason.FAR_CLOSED_DURING_HANDSHAKE),
    "silence": (lambda book: (book.far(VERB_LINE), book.deadline()), Reason.HANDSHAKE_TIMEOUT),
    "cut and silence": (
        lambda book: (book.far(far_s(book).answer[:-1]), book.deadline()),
        Reason.HANDSHAKE_TIMEOUT,
    ),
}


@pytest.mark.parametrize("how", ANSWERS)
def test_what_is_no_answer_is_refused_and_the_receiver_hears_nothing(how: str) -> None:
    book = offered()
    sent = len(book.to_far)
    act, reason = ANSWERS[how]
    act(book)
    assert book.to_far[sent:].startswith(REFUSAL)
    assert book.to_far[sent:].endswith(b"\r\n")
    assert b"\r\n" not in book.to_far[sent:-2]
    assert book.closed
    assert book.to_near == EHLO
    assert (book.decision.upgraded, book.decision.reason) == (False, Reason.HANDSHAKE_FAILED)
    assert reason.value in book.decision.detail


def test_the_deadline_is_for_the_whole_of_message_2() -> None:
    book = offered()
    assert book.machine.deadline is None, "a client may idle behind the reply"
    book.far(VERB_LINE)
    deadline = book.machine.deadline
    assert deadline == book.now + limits.VERB_HANDSHAKE_SECONDS
    book.now += 15
    book.far(b"\x81")
    assert book.machine.deadline == deadline


def test_every_octet_of_message_2_counts() -> None:
    """Ends of its parts, and a sample of the rest: each costs a handshake."""
    length = len(far_s(offered()).answer)
    for at in (*range(len(VERB_LINE), length, 97), *range(length - 5, length)):
        book = offered()
        book.far(flip(far_s(book).answer, at))
        if book.state == "answering":  # a length that waits for more
            book.deadline()
        assert book.state == "over", at
        assert book.to_near == EHLO


@pytest.mark.parametrize("side", list(Side))
def test_a_reset_while_answering_passes(side: Side) -> None:
    book = offered()
    book.far(VERB_LINE)
    book.happens(ResetReceived(side))
    assert book.reset == {side.other}


# --- The dialled address ------------------------------------------------------------------------------------


def confirmed(channel: Channelled) -> bool | None:
    return Params.decode(channel.heard.records[0].content).dialled_address_confirmed


def test_an_address_that_is_not_ours_is_taken_and_noted() -> None:
    channel = Channelled(say_dialled=ELSEWHERE)
    assert channel.book.facts == [("dialled-address-not-confirmed", Reason.WRONG_DIALLED_ADDRESS)]
    assert channel.book.to_near == EHLO + MAIL
    assert confirmed(channel) is False


def test_an_address_listed_behind_nat_is_confirmed() -> None:
    channel = Channelled(say_dialled=ELSEWHERE, nat=(ELSEWHERE,))
    assert channel.book.facts == []
    assert confirmed(channel) is True


def test_our_own_address_is_confirmed() -> None:
    channel = Channelled()
    assert channel.book.facts == []
    assert confirmed(channel) is True
