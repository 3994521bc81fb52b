"""What the receiving gateway's session learns and tells of its client (docs/protocol.md, "R's side")."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.errors import Reason
from gateway.peers.sources import Sender, Source, SourceSeen, after_drop, after_upgrade
from gateway.session import commands as c
from tests.playbook import EHLO, GREETING, REPLY, S_KEYS, TODAY, FarSendingGateway, Playbook, receiving

NAME = EHLO.split()[1].lower()
BLANK = Source("192.0.2.1")
KNOWN = after_upgrade(BLANK, NAME, TODAY)
DROPPED = after_drop(BLANK, TODAY * 86400)
S = S_KEYS.identity.octets
MAIL = b"MAIL FROM:<alice@a.example>\r\n"


def offered(ehlo: bytes = EHLO, **surroundings: object) -> Playbook:
    book = Playbook(receiving(**surroundings))  # type: ignore[arg-type]
    book.near(GREETING)
    book.far(ehlo)
    book.near(REPLY)
    return book


def upgraded(**surroundings: object) -> Playbook:
    book = offered(**surroundings)  # type: ignore[arg-type]
    s = FarSendingGateway(book.to_far[len(GREETING) :])
    book.far(s.answer + s.says(MAIL))
    return book


def learnt(book: Playbook) -> list[c.NoteSource]:
    return book.all_of(c.NoteSource)


# --- Who upgrades -------------------------------------------------------------------------------------------


def test_an_upgrade_is_told_once_a_day() -> None:
    sender = Sender(S, TODAY, TODAY)
    news = c.NoteSource(SourceSeen.UPGRADED, NAME, S, TODAY)
    assert learnt(upgraded(source=BLANK)) == [news]
    assert learnt(upgraded(source=KNOWN, sender_of=lambda _: sender)) == []
    assert learnt(upgraded(source=KNOWN)) == [news], "another identity"
    yesterday = replace(KNOWN, upgraded_day=TODAY - 1)
    assert learnt(upgraded(source=yesterday, sender_of=lambda _: sender)) == [news]


def test_an_endorsement_with_a_lower_epoch_is_told_and_upgraded() -> None:
    book = upgraded(sender_of=lambda identity: Sender(identity, TODAY + 1, TODAY))
    assert (book.decision.upgraded, book.decision.reason) == (True, Reason.UPGRADED_OLD_EPOCH)
    assert not book.decision.alarm
    assert (
        upgraded(sender_of=lambda identity: Sender(identity, TODAY, TODAY)).decision.reason is Reason.UPGRADED
    )


# --- Who used to ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ehlo", "alarm", "cause"),
    [(EHLO, True, "offer-unanswered"), (b"EHLO printer.a.example\r\n", False, "other-machine")],
)
def test_one_that_used_to_upgrade_comes_in_clear(ehlo: bytes, alarm: bool, cause: str) -> None:
    book = offered(ehlo, source=KNOWN)
    book.far(MAIL)
    assert book.relayed
    assert (book.decision.reason, book.decision.alarm) == (Reason.SOURCE_IN_CLEAR, alarm)
    assert (book.decision.detail, book.decision.likely) == ("cause=no-verb", Reason(cause))
    assert book.to_near == ehlo + MAIL


def test_one_that_used_to_upgrade_says_helo() -> None:
    book = Playbook(receiving(source=KNOWN))
    book.near(GREETING)
    book.far(EHLO.replace(b"EHLO", b"HELO"))
    assert (book.decision.reason, book.decision.alarm) == (Reason.SOURCE_IN_CLEAR, True)
    assert (book.decision.detail, book.decision.likely) == ("cause=helo", Reason.EHLO_TURNED_INTO_HELO)


def test_one_that_never_did_is_nobodys_business() -> None:
    book = offered(source=BLANK)
    book.far(MAIL)
    assert (book.decision.reason, book.decision.alarm) == (Reason.NO_VERB, False)


def test_what_our_own_operator_or_server_wants_is_no_alarm() -> None:
    book = offered(source=KNOWN, may_offer=False)
    assert (book.decision.reason, book.decision.alarm) == (Reason.NEVER_OFFER, False)
    book = Playbook(receiving(source=KNOWN))
    book.near(b"554 no service\r\n")
    assert (book.decision.reason, book.decision.alarm) == (Reason.GREETING_REFUSED, False)


def test_one_that_goes_away_unused_did_not_come_in_clear() -> None:
    book = offered(source=KNOWN)
    book.far_end()
    assert (book.decision.reason, book.decision.alarm) == (Reason.NO_VERB, False)
    assert learnt(book) == []


# --- Who drops --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_reset", [True, False])
def test_a_drop_right_behind_the_offer_is_told(by_reset: bool) -> None:
    book = offered(source=BLANK)
    (book.far_reset if by_reset else book.far_end)()
    assert learnt(book) == [c.NoteSource(SourceSeen.DROPPED)]


def test_the_receivers_end_is_no_drop() -> None:
    book = offered(source=BLANK)
    book.near_end()
    assert learnt(book) == []


def test_an_end_in_the_middle_of_a_word_is_no_drop() -> None:
    """It read the offer, and began to speak."""
    book = offered(source=BLANK)
    book.far(b"X")
    book.far_end()
    assert learnt(book) == []


def test_an_end_without_an_offer_is_no_drop() -> None:
    book = Playbook(receiving(source=BLANK))
    book.near(GREETING)
    book.far_end()
    assert learnt(book) == []


def test_one_that_dropped_before_and_goes_on_is_told() -> None:
    book = offered(source=DROPPED)
    book.far(MAIL)
    assert learnt(book) == [c.NoteSource(SourceSeen.WENT_ON)]
    other = offered(source=BLANK)
    other.far(MAIL)
    assert learnt(other) == []


def test_a_source_that_rests_gets_the_reply_as_it_is() -> None:
    book = offered(source=DROPPED, source_rests=True)
    assert (book.to_far, book.relayed) == (GREETING + REPLY, True)
    assert book.decision.reason is Reason.SOURCE_RESTS


# --- Who ignores offers -------------------------------------------------------------------------------------


def test_a_source_that_ignores_offers_gets_the_reply_as_it_is() -> None:
    book = offered(offers_ignored=lambda: True)
    assert book.to_far == GREETING + REPLY
    assert (book.decision.upgraded, book.decision.reason) == (False, Reason.OFFERS_IGNORED)
    assert not book.decision.alarm


def test_a_turn_is_taken_only_where_an_offer_would_be_made() -> None:
    """Once for each, and not by a session that would have had none anyway."""
    asked: list[str] = []

    def ask() -> bool:
        asked.append("asked")
        return False

    offered(offers_ignored=ask)
    assert asked == ["asked"]
    offered(offers_ignored=ask, may_offer=False)
    offered(offers_ignored=ask, overloaded=True)
    offered(offers_ignored=ask, source_rests=True)
    no_room = Playbook(receiving(offers_ignored=ask))
    no_room.near(GREETING)
    no_room.far(EHLO)
    no_room.near(
        b"250-" + b"x" * 400 + b"\r\n" + b"".join(b"250-" + b"y" * 400 + b"\r\n" for _ in range(5)) + REPLY
    )
    assert no_room.decision.reason is Reason.NO_ROOM_FOR_OFFER
    helo = Playbook(receiving(offers_ignored=ask))
    helo.near(GREETING)
    helo.far(b"HELO a.example\r\n")
    assert asked == ["asked"]
