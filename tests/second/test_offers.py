"""Offers that S refuses, or does not take for any: each check, in both implementations."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.playbook import (
    EHLO,
    GREETING,
    LONG_REPLY,
    REPLY,
)
from tests.second import lines, mlkem
from tests.second.crafted import (
    FORMS,
    LOW_ED25519,
    MAIL,
    NEUTRAL_SIGNATURE,
    ORDER_8,
    REPLIES,
    UNREDUCED_ED25519,
    WHO,
    ZEROS,
    OfferCase,
    crafted_offer,
    flip,
    offered,
    product_keys,
    s_of,
)
from tests.second.dressed import (
    NEW_IDENTITY,
    SEED_R,
)


def unreduced_kem_key() -> bytes:
    """The first coefficient is q itself."""
    ek = mlkem.keys(bytes(64))[0]
    number = int.from_bytes(ek[:3], "little") & ~0xFFF | mlkem.Q
    return number.to_bytes(3, "little") + ek[3:]


OFFERS = [
    OfferCase("e of order 8", "X25519 result of zeros", e=ORDER_8),
    OfferCase("e of zeros", "X25519 result of zeros", e=ZEROS),
    OfferCase("s of order 8", "X25519 result of zeros", s=ORDER_8),
    OfferCase("an ML-KEM key that is not reduced", "ML-KEM key", e1=unreduced_kem_key(), full_only=True),
    OfferCase("identity of small order", "identity of R", identity=LOW_ED25519, signature=NEUTRAL_SIGNATURE),
    OfferCase("neutral identity", "identity of R", identity=b"\1" + bytes(31), signature=NEUTRAL_SIGNATURE),
    OfferCase("identity not reduced", "identity of R", identity=UNREDUCED_ED25519),
    OfferCase("somebody else's identity", "signature of the offer", identity=NEW_IDENTITY),
    OfferCase("another label", "signature of the offer", label=b"nightmail static\0"),
    OfferCase("another greeting", "signature of the offer", greeting=flip(GREETING, 8)),
    OfferCase("a keyword was added", "signature of the offer", reply_ahead=lambda r: b"250-X\r\n" + r),
    *(
        OfferCase(f"{name} is changed", "signature of the offer", flipped=at)
        for name, at in (
            ("e", 0),
            ("the end of e", 30),
            ("e1 or s", 40),
            ("s", -110),
            ("epoch", -70),
            ("flags", -65),
            ("R of the signature", -64),
            ("S of the signature", -32),
        )
    ),
]


@WHO
@FORMS
@pytest.mark.parametrize("case", OFFERS, ids=lambda case: case.name)
def test_s_refuses_an_offer(who: str, form: str, case: OfferCase) -> None:
    """Before the verb: nothing of ours is on the wire, the sender has its reply, and S dials again."""
    if case.full_only and form == "short":
        return
    s = offered(s_of(who), crafted_offer(case, form), form)
    assert s.dials == 2
    assert s.far == EHLO
    assert s.near == GREETING + REPLIES[form]
    s.from_near(MAIL)
    assert s.far == EHLO
    if who == "second":
        assert s.refused == case.check


@WHO
@FORMS
def test_and_takes_the_same_offer_unspoilt(who: str, form: str) -> None:
    s = offered(s_of(who), crafted_offer(OfferCase("honest", ""), form), form)
    s.from_near(MAIL)
    assert s.far.startswith(EHLO + lines.VERB)
    assert s.dials == 1


@WHO
@FORMS
def test_s_strips_its_own_offer_and_stays_in_clear(who: str, form: str) -> None:
    own = {"keys": product_keys(SEED_R)} if who == "product" else {"seed": SEED_R}
    s = offered(s_of(who, **own), crafted_offer(OfferCase("honest", ""), form), form)
    assert (s.near, s.dials) == (GREETING + REPLIES[form], 1)
    s.from_near(MAIL)
    assert s.far == EHLO + MAIL


UNLIKE: dict[str, Callable[[bytes], bytes]] = {
    "another version": lambda reply: reply.replace(b"XNIGHTMAIL 1 4/4", b"XNIGHTMAIL 2 4/4"),
    "out of order": lambda reply: reply.replace(b" 1 1/4 ", b" 1 9/4 ").replace(b" 1 2/4 ", b" 1 1/4 "),
    "a padding character": lambda reply: reply[:-3] + b"=\r\n",
    "another alphabet": lambda reply: reply[:-10] + b"+" + reply[-9:],
    "one character less": lambda reply: reply[:-3] + b"\r\n",
    "a line between": lambda reply: reply.replace(b"250-XNIGHTMAIL 1 2/4", b"250-X\r\n250-XNIGHTMAIL 1 2/4"),
    "one line missing": lambda reply: b"\r\n".join(
        line for line in reply.split(b"\r\n") if b"1 2/4" not in line
    ),
    "lower case": lambda reply: reply.replace(b"XNIGHTMAIL", b"xnightmail"),
    "a second keyword": lambda reply: b"250-XNIGHTMAIL 1 1/1 abc\r\n" + reply,
    "nothing left": lambda reply: reply[reply.index(b"250-XNIGHTMAIL") :],
}


@WHO
@pytest.mark.parametrize("name", UNLIKE)
def test_what_is_not_exactly_an_offer_passes_unchanged(who: str, name: str) -> None:
    reply = UNLIKE[name](lines.add_offer(REPLY, crafted_offer(OfferCase("honest", ""), "full")))
    s = s_of(who)
    s.from_far(GREETING).from_near(EHLO)
    s.from_far(reply)
    assert s.near == GREETING + reply
    assert s.dials == 1


@WHO
def test_spare_bits_are_zero(who: str) -> None:
    honest = lines.add_offer(LONG_REPLY, crafted_offer(OfferCase("honest", ""), "short"))
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.index(honest[-3])
    assert last % 16 == 0
    for spare in range(1, 16):
        reply = honest[:-3] + alphabet[last + spare : last + spare + 1] + b"\r\n"
        s = s_of(who)
        s.from_far(GREETING).from_near(EHLO)
        s.from_far(reply)
        assert s.near == GREETING + reply
