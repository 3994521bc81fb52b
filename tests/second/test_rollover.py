"""Statements, from one implementation to the other."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.crypto.handshake import OfferForm
from gateway.crypto.statement import make_statement
from gateway.peers.pins import MetPeer, Pin, is_accepted, updated
from gateway.session import commands as c
from tests.pair import Pair, Sender
from tests.playbook import EHLO, GREETING, OTHER_KEYS, R_KEYS, TODAY, octets, receiving, sending
from tests.second.crafted import AT, FORMS, MAIL, NOW, WHO, FarR, confirming, flip, pinned, s_of
from tests.second.curve25519 import ed25519_public
from tests.second.dressed import NEW_IDENTITY, SEED_NEW, SEED_R, Alone, Dressed, second_r, second_s
from tests.second.memory import Pin as SecondPin
from tests.second.memory import Seen
from tests.second.messages import STATEMENT_FOLLOWS, write_statement
from tests.second.records import CLOSE, DATA, PARAMS, RESET, STATEMENT
from tests.spoken import MAIL as STEPS

SEED_THIRD = octets("second seed third", 32)
THIRD_IDENTITY = ed25519_public(SEED_THIRD)
GOOD = write_statement(SEED_R, SEED_NEW, 7)


def accepts(s: Alone, identity: bytes, pin: dict[str, Any]) -> bool:
    """Whether the memory accepts `identity` now."""
    if isinstance(s.machine, Dressed):
        after: SecondPin = pin["pin"]
        return after.accepts(identity)
    known: Pin | None = pin["pin"]
    for one in s.remembered:
        peer = MetPeer(one.peer.identity.octets, one.peer.epoch, one.peer.form is OfferForm.FULL)
        known = updated(known, AT, peer, NOW, one.statement)
    return is_accepted(known, identity)


STATEMENTS: dict[str, tuple[bytes, bool]] = {
    "good": (GOOD, True),
    "bad signature of the old": (flip(GOOD, 70), False),
    "bad signature of the new": (flip(GOOD, 135), False),
    "another serial": (flip(GOOD, 67), False),
    "serial 0": (write_statement(SEED_R, SEED_NEW, 0), False),
    "to somebody else": (write_statement(SEED_R, SEED_THIRD, 7), False),
    "from somebody else": (write_statement(SEED_THIRD, SEED_NEW, 7), False),
    "the wrong way round": (write_statement(SEED_NEW, SEED_R, 7), False),
    "cut off": (GOOD[:-1], False),
    "too long": (GOOD + b"\0", False),
    "empty": (b"", False),
}


@WHO
@FORMS
@pytest.mark.parametrize("name", STATEMENTS)
def test_s_waits_for_the_statement_and_judges_it(who: str, form: str, name: str) -> None:
    content, counts = STATEMENTS[name]
    pin = pinned(who)
    far_r = FarR(SEED_NEW, STATEMENT_FOLLOWS, form)
    s = s_of(who, **pin)
    s.from_far(GREETING).from_near(EHLO).from_far(far_r.reply).from_near(MAIL)
    assert DATA not in [type_ for type_, _ in far_r.takes(s.far[len(EHLO) :])]
    s.far = b""
    s.from_far(far_r.writer.seal(PARAMS, b"", 0) + far_r.writer.seal(0x40, b"", 3))
    s.from_near(b"RCPT\r\n")
    assert s.far == b""
    s.from_far(far_r.writer.seal(STATEMENT, content, 100))
    said = b"".join(content for type_, content in far_r.hears(s.far) if type_ == DATA)
    assert said == MAIL + b"RCPT\r\n"
    assert s.dials == 1
    assert accepts(s, NEW_IDENTITY, pin) == counts


@WHO
def test_without_a_statement_it_goes_on_and_without_anything_it_dials(who: str) -> None:
    for ends_with in (DATA, CLOSE, RESET, None):
        pin = pinned(who)
        far_r = FarR(SEED_NEW, STATEMENT_FOLLOWS)
        s = s_of(who, **pin)
        s.from_far(GREETING).from_near(EHLO).from_far(far_r.reply).from_near(MAIL)
        far_r.takes(s.far[len(EHLO) :])
        s.far = b""
        s.from_far(far_r.writer.seal(PARAMS, b"", 0))
        if ends_with is None:
            s.time_passes()
            assert s.dials == 2
            assert s.far == b""
        else:
            s.from_far(far_r.writer.seal(ends_with, b"220 x\r\n" if ends_with == DATA else b"", 0))
            assert (DATA, MAIL) in far_r.hears(s.far)
            assert s.dials == 1
        assert not accepts(s, NEW_IDENTITY, pin)


@WHO
def test_the_next_identity_is_learnt_ahead(who: str) -> None:
    pin = pinned(who)
    s, far_r = confirming(who, FarR(SEED_R, STATEMENT_FOLLOWS), **pin)
    s.from_far(far_r.writer.seal(PARAMS, b"", 0) + far_r.writer.seal(STATEMENT, GOOD, 0))
    assert accepts(s, NEW_IDENTITY, pin)
    assert not accepts(s, THIRD_IDENTITY, pin)


def test_each_shows_statements_as_the_other_expects_them() -> None:
    """R's statements in whole sessions, both ways."""
    made = make_statement(R_KEYS.key, OTHER_KEYS.key, 9)
    pin = SecondPin({R_KEYS.identity.octets: Seen(True, TODAY, True)})
    Pair(
        Sender(STEPS),
        make_s=lambda: second_s(pin=pin),  # type: ignore[arg-type,return-value]
        make_r=lambda dial: receiving(keys=OTHER_KEYS, statements=(made,)),
    ).run()
    assert pin.accepts(OTHER_KEYS.identity.octets)

    product_pin: Pin = pinned("product")["pin"]
    pair = Pair(
        Sender(STEPS),
        make_s=lambda: sending(pin=product_pin),
        make_r=lambda dial: second_r(seed=SEED_NEW, statements=(GOOD,)),  # type: ignore[arg-type,return-value]
    ).run()
    (remembered,) = [one for one in pair.commands if isinstance(one, c.RememberPeer)]
    assert remembered.statement is not None
    assert remembered.statement.new == NEW_IDENTITY
    assert pair.delivered == [b"hello"]
