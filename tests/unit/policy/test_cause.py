"""What it likely was, sight by sight: the table that docs/messages.md explains."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Reason
from gateway.peers.looks import Look
from gateway.policy.cause import Sighting, likely, likely_of_source, with_reset

WELL = Look(b"MX.B.EXAMPLE", (b"PIPELINING", b"SIZE", b"8BITMIME"))
ELSEWHERE = Look(b"MX2.B.EXAMPLE", (b"PIPELINING", b"SIZE"))
MASKED = replace(WELL, keywords=(b"PIPELINING", b"SIZE", b"XXXXXXXA"))
FEWER = replace(WELL, keywords=(b"PIPELINING", b"SIZE"))
OTHERS = replace(WELL, keywords=(b"PIPELINING", b"SIZE", b"8BITMIME", b"VRFY"))
BARE = replace(WELL, keywords=())
LOST = Reason.OFFER_MISSING
CLOSED = Reason.FAR_CLOSED_DURING_HANDSHAKE
CLEAR = Reason.CLEAR_OCTETS_IN_CHANNEL

TABLE = [
    (Sighting(LOST, WELL), Reason.PEER_SWITCHED_OFF),
    (Sighting(LOST, MASKED), Reason.KEYWORD_MASKED),
    (Sighting(LOST, replace(WELL, keywords=(b"XXXX",))), Reason.KEYWORD_MASKED),
    (Sighting(LOST, FEWER), Reason.REPLY_CHANGED),
    (Sighting(LOST, OTHERS), Reason.REPLY_CHANGED),
    (Sighting(LOST, replace(WELL, keywords=WELL.keywords[::-1])), Reason.REPLY_CHANGED),
    (Sighting(LOST, BARE), Reason.EHLO_TURNED_INTO_HELO),
    (Sighting(LOST, ELSEWHERE), Reason.OTHER_MACHINE),
    (Sighting(LOST, replace(MASKED, host=b"*******")), Reason.KEYWORD_MASKED),
    (Sighting(LOST), Reason.CAUSE_UNKNOWN),
    (Sighting(Reason.EHLO_REFUSED), Reason.EHLO_BLOCKED),
    (Sighting(Reason.ODD_REPLY), Reason.REPLY_CHANGED),
    (Sighting(Reason.ODD_GREETING), Reason.REPLY_CHANGED),
    (Sighting(Reason.GREETING_REFUSED), Reason.CAUSE_UNKNOWN),
    (Sighting(Reason.BAD_SIGNATURE, WELL), Reason.OFFER_DAMAGED),
    (Sighting(Reason.BAD_OFFER, FEWER), Reason.REPLY_CHANGED),
    (Sighting(Reason.BAD_KEY, MASKED), Reason.KEYWORD_MASKED),
    (Sighting(Reason.BAD_SIGNATURE, ELSEWHERE), Reason.OTHER_MACHINE),
    (Sighting(Reason.BAD_TAG, WELL), Reason.FRAMES_DAMAGED),
    (Sighting(Reason.BAD_FRAME, WELL), Reason.FRAMES_DAMAGED),
    (Sighting(Reason.BAD_RECORD, WELL), Reason.FRAMES_DAMAGED),
    (Sighting(Reason.HANDSHAKE_TIMEOUT, WELL), Reason.VERB_UNANSWERED),
    (Sighting(CLEAR, WELL, said=b"502 5.5.2 Error: command not recognized\r\n"), Reason.VERB_REFUSED),
    (Sighting(CLEAR, WELL, said=b"5"), Reason.VERB_REFUSED),
    (Sighting(CLEAR, WELL, said=b"454 4.7.0 Encrypted channel\r\n"), Reason.FRAMES_DAMAGED),
    (Sighting(CLEAR, WELL, said=b"250 ok\r\n"), Reason.CAUSE_UNKNOWN),
    (Sighting(CLEAR, WELL, said=b"421 closing\r\n"), Reason.CAUSE_UNKNOWN),
    (Sighting(CLOSED, WELL, was_reset=True), Reason.RESET_UNCLEAR),
    (Sighting(CLOSED, WELL), Reason.CAUSE_UNKNOWN),
    (Sighting(Reason.UPGRADED_CHANGED_PEER, WELL), Reason.OTHER_KEY),
    (Sighting(Reason.UPGRADED_CHANGED_PEER, ELSEWHERE), Reason.OTHER_MACHINE),
    (Sighting(Reason.UPGRADED_WEAKER_OFFER, WELL), Reason.CAUSE_UNKNOWN),
]


@pytest.mark.parametrize(("seen", "cause"), TABLE, ids=lambda value: getattr(value, "value", ""))
def test_each_sight_has_its_word(seen: Sighting, cause: Reason) -> None:
    assert likely(seen, (WELL,)) is cause


def test_a_face_of_a_pool_is_no_other_machine() -> None:
    assert likely(Sighting(LOST, ELSEWHERE), (WELL, ELSEWHERE)) is Reason.PEER_SWITCHED_OFF
    assert likely(Sighting(LOST, replace(ELSEWHERE, keywords=())), (WELL, ELSEWHERE)) is (
        Reason.EHLO_TURNED_INTO_HELO
    )


def test_a_server_that_itself_says_x_is_not_masked() -> None:
    odd = replace(WELL, keywords=(b"XXXX", b"SIZE"))
    assert likely(Sighting(LOST, odd), (odd,)) is Reason.PEER_SWITCHED_OFF


def test_without_memory_only_a_mask_and_the_octets_speak() -> None:
    assert likely(Sighting(LOST, MASKED), ()) is Reason.KEYWORD_MASKED
    assert likely(Sighting(LOST, BARE), ()) is Reason.CAUSE_UNKNOWN
    assert likely(Sighting(Reason.BAD_TAG, WELL), ()) is Reason.FRAMES_DAMAGED
    assert likely(Sighting(Reason.BAD_SIGNATURE, WELL), ()) is Reason.OFFER_DAMAGED
    assert likely(Sighting(Reason.UPGRADED_CHANGED_PEER, WELL), ()) is Reason.OTHER_KEY


def test_the_kernel_says_whence_a_reset_came_and_nothing_else() -> None:
    unclear = Reason.RESET_UNCLEAR
    assert with_reset(unclear, True) is Reason.RESET_IN_BETWEEN
    assert with_reset(unclear, False) is Reason.RESET_BY_FAR_END
    assert with_reset(unclear, None) is unclear
    assert with_reset(Reason.VERB_REFUSED, True) is Reason.VERB_REFUSED


@pytest.mark.parametrize(
    ("failure", "other_name", "cause"),
    [
        (Reason.NO_VERB, False, Reason.OFFER_UNANSWERED),
        (Reason.NO_VERB, True, Reason.OTHER_MACHINE),
        (Reason.HELO, False, Reason.EHLO_TURNED_INTO_HELO),
        (Reason.PIPELINED_BEHIND_EHLO, False, Reason.CAUSE_UNKNOWN),
    ],
)
def test_the_receiving_side(failure: Reason, other_name: bool, cause: Reason) -> None:
    assert likely_of_source(failure, other_name=other_name) is cause


KEYWORDS = st.lists(st.sampled_from([b"SIZE", b"XXXX", b"8BITMIME", b"XXXXXXXA", b"VRFY"]), max_size=4)
LOOKS = st.builds(lambda host, keywords: Look(host, tuple(keywords)), st.sampled_from([b"A", b"B"]), KEYWORDS)
CAUSES = {
    Reason.PEER_SWITCHED_OFF,
    Reason.KEYWORD_MASKED,
    Reason.REPLY_CHANGED,
    Reason.EHLO_TURNED_INTO_HELO,
    Reason.EHLO_BLOCKED,
    Reason.OFFER_DAMAGED,
    Reason.VERB_REFUSED,
    Reason.VERB_UNANSWERED,
    Reason.FRAMES_DAMAGED,
    Reason.RESET_UNCLEAR,
    Reason.OTHER_MACHINE,
    Reason.OTHER_KEY,
    Reason.CAUSE_UNKNOWN,
}


@given(
    st.sampled_from(Reason),
    st.none() | LOOKS,
    st.binary(max_size=8),
    st.booleans(),
    st.lists(LOOKS, max_size=4),
)
def test_any_sight_has_one_word_of_the_causes(
    failure: Reason, look: Look | None, said: bytes, was_reset: bool, looks: list[Look]
) -> None:
    seen = Sighting(failure, look, said, was_reset)
    assert likely(seen, tuple(looks)) in CAUSES


@given(LOOKS, st.lists(LOOKS, max_size=3))
def test_a_reply_as_before_is_a_peer_switched_off(look: Look, others: list[Look]) -> None:
    assert likely(Sighting(LOST, look), (look, *others)) is Reason.PEER_SWITCHED_OFF
