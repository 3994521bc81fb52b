"""Verbs and answers that R refuses: each check, in both implementations."""

from __future__ import annotations

import pytest

from gateway.session.events import Side
from tests.playbook import (
    EHLO,
    GREETING,
    TODAY,
    octets,
)
from tests.second import lines
from tests.second.crafted import (
    FORMS,
    LOW_ED25519,
    MAIL,
    NEUTRAL_SIGNATURE,
    ORDER_8,
    UNREDUCED_ED25519,
    WHO,
    ZEROS,
    AnswerCase,
    FarS,
    flip,
    offering,
    product_keys,
    r_of,
    refused,
)
from tests.second.curve25519 import x25519_public
from tests.second.dressed import (
    HERE,
    NEW_IDENTITY,
    SEED_S,
    STATIC_R,
)
from tests.second.messages import (
    tlv,
    u16,
)
from tests.second.records import (
    ANSWER,
    DATA,
    PARAMS,
    RECORD,
)

ANSWERS = [
    AnswerCase("e of order 8", "X25519 result of zeros", e=ORDER_8),
    AnswerCase("e of zeros", "X25519 result of zeros", e=ZEROS),
    AnswerCase("s of order 8", "X25519 result of zeros", s=ORDER_8),
    AnswerCase(
        "identity of small order", "identity of S", identity=LOW_ED25519, endorsement=NEUTRAL_SIGNATURE
    ),
    AnswerCase("identity not reduced", "identity of S", identity=UNREDUCED_ED25519),
    AnswerCase("somebody else's identity", "endorsement", identity=NEW_IDENTITY),
    AnswerCase("another label", "endorsement", label=b"nightmail offer\0"),
    AnswerCase("endorsement of another key", "endorsement", endorsed=x25519_public(STATIC_R)),
    AnswerCase("ended yesterday", "dates of the endorsement", days=(TODAY - 10, TODAY - 1)),
    AnswerCase("begins in two days", "dates of the endorsement", days=(TODAY + 2, TODAY + 10)),
    AnswerCase("ends after 15 days", "dates of the endorsement", days=(TODAY, TODAY + 15)),
    AnswerCase("another greeting", "tag of the handshake", greeting=flip(GREETING, 8)),
    *(
        AnswerCase(f"{name} is changed", "tag of the handshake", flipped=name)
        for name in ("e", "ekem1", "ekem1 tag", "s", "s tag", "payload", "tag")
    ),
]
GOOD_ANSWERS = [
    AnswerCase("today", ""),
    AnswerCase("ends today", "", days=(TODAY - 14, TODAY)),
    AnswerCase("begins tomorrow", "", days=(TODAY + 1, TODAY + 15)),
]


@WHO
@FORMS
@pytest.mark.parametrize("case", ANSWERS, ids=lambda case: case.name)
def test_r_refuses_an_answer(who: str, form: str, case: AnswerCase) -> None:
    r = r_of(who)
    s = FarS(offering(r, form), case)
    r.from_far(s.said + s.writer.seal(DATA, MAIL, 0))
    assert refused(r)
    if who == "second":
        assert r.refused == case.check


@WHO
@FORMS
@pytest.mark.parametrize("case", GOOD_ANSWERS, ids=lambda case: case.name)
def test_and_takes_what_is_within_its_dates(who: str, form: str, case: AnswerCase) -> None:
    r = r_of(who)
    s = FarS(offering(r, form), case)
    r.from_far(s.said + s.writer.seal(DATA, MAIL, 0))
    assert r.near == EHLO + MAIL
    r.from_near(b"250 2.1.0 Ok\r\n")  # the product's first record goes with that
    assert s.heard(r.far)[0] == (PARAMS, tlv(2, b"\1"))


@WHO
def test_r_refuses_its_own_identity(who: str) -> None:
    r = r_of(who, **({"keys": product_keys(SEED_S)} if who == "product" else {"seed": SEED_S}))
    s = FarS(offering(r, "full"), AnswerCase("own", ""))
    r.from_far(s.said)
    assert refused(r)


@WHO
@pytest.mark.parametrize("dialled", [(HERE[0], 26), (bytes(15) + b"\1", 25)])
def test_r_says_that_another_address_was_dialled(who: str, dialled: tuple[bytes, int]) -> None:
    r = r_of(who)
    s = FarS(offering(r, "full"), AnswerCase("", ""), dialled)
    r.from_far(s.said + s.writer.seal(DATA, MAIL, 0))
    r.from_near(b"250 2.1.0 Ok\r\n")
    assert s.heard(r.far)[0] == (PARAMS, tlv(2, b"\0"))
    assert r.near == EHLO + MAIL


@WHO
def test_an_answer_cannot_be_used_again(who: str) -> None:
    """On another connection, and on its own one."""
    first = r_of(who)
    s = FarS(offering(first, "full"), AnswerCase("", ""))
    first.from_far(s.said)
    again = r_of(who, label="another connection")
    offering(again, "full")
    again.from_far(s.said)
    assert refused(again)
    first.from_far(s.said[len(lines.VERB) :])
    assert first.was_reset == set(Side)


BEHIND_VERB = {
    "clear octets": b"MAIL FROM:<a@a.example>\r\n",
    "a record": bytes([RECORD]) + u16(19) + bytes(19),
    "another frame": b"\x83" + u16(220) + bytes(220),
    "the answer to a short offer": bytes([ANSWER]) + u16(220) + bytes(220),
    "one octet less": bytes([ANSWER]) + u16(1323) + bytes(1323),
    "one octet more": bytes([ANSWER]) + u16(1325) + bytes(1325),
    "random octets": bytes([ANSWER]) + u16(1324) + octets("noise", 1324),
}


@WHO
@pytest.mark.parametrize("name", BEHIND_VERB)
def test_behind_the_verb_r_takes_nothing_but_the_answer(who: str, name: str) -> None:
    r = r_of(who)
    offering(r, "full")
    r.from_far(lines.VERB + BEHIND_VERB[name])
    assert refused(r)


@WHO
@pytest.mark.parametrize("missing", [1, 100, 1323, 1326])
def test_r_waits_for_a_whole_answer_and_no_longer_than_20_s(who: str, missing: int) -> None:
    for ends in (False, True):
        r = r_of(who)
        s = FarS(offering(r, "full"), AnswerCase("", ""))
        r.from_far(s.said[: len(s.said) - missing])
        assert (r.near, r.far) == (EHLO, b"")
        if ends:
            r.far_ends()
            assert refused(r)
        else:
            began = r.now
            r.time_passes()
            assert refused(r)
            assert r.now - began == 20


@WHO
@pytest.mark.parametrize("said", [b"xnightmail\r\n", b"XNIGHTMAIL \r\n", b"XNIGHTMAIL\n", b" XNIGHTMAIL\r\n"])
def test_what_is_not_exactly_the_verb_passes(who: str, said: bytes) -> None:
    r = r_of(who)
    offering(r, "full")
    for at in range(len(said)):
        r.from_far(said[at : at + 1])
    assert r.near == EHLO + said
    assert r.far == b""


@WHO
@pytest.mark.parametrize("spoken", [b"", b"421 4.4.2 Timeout\r\n"], ids=["silent", "spoken"])
def test_r_closes_without_a_word_where_the_receiver_has_ended(who: str, spoken: bytes) -> None:
    """Its end has passed: a word behind it would be none, and the verb must not reach the receiver."""
    for at in (0, 1, len(lines.VERB) - 1):
        r = r_of(who)
        s = FarS(offering(r, "full"), AnswerCase("", ""))
        if spoken:
            r.from_near(spoken)
        r.near_ends()
        assert (r.near, r.far, r.ended) == (EHLO, spoken, {Side.FAR})
        for part in (s.said[:at], s.said[at:]):
            r.from_far(part)
        assert (r.near, r.far, r.ended) == (EHLO, spoken, set(Side))


@WHO
@pytest.mark.parametrize("said", [b"QUIT\r\n", b"XNIGHTMAIL\n"])
def test_a_client_that_is_no_gateway_speaks_on_behind_the_receivers_end(who: str, said: bytes) -> None:
    r = r_of(who)
    offering(r, "full")
    r.near_ends()
    for at in range(len(said)):
        r.from_far(said[at : at + 1])
    assert (r.near, r.far, r.ended) == (EHLO + said, b"", {Side.FAR})


@WHO
def test_what_may_become_the_verb_passes_with_the_clients_end(who: str) -> None:
    r = r_of(who)
    offering(r, "full")
    r.near_ends()
    r.from_far(lines.VERB[:-1]).far_ends()
    assert (r.near, r.far, r.ended) == (EHLO + lines.VERB[:-1], b"", set(Side))


@WHO
def test_r_takes_no_verb_once_the_receiver_has_spoken(who: str) -> None:
    r = r_of(who)
    s = FarS(offering(r, "full"), AnswerCase("", ""))
    r.from_near(b"250 more\r\n")
    assert r.far == b"250 more\r\n"
    r.far = b""
    r.from_far(s.said)
    assert refused(r)
