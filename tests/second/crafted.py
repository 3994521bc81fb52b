"""Peers that the second implementation plays: real keys, and each message as docs/protocol.md says.

But for the one thing that a case is about: so without its check the message would be taken. For tests only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from gateway.crypto.keys import IdentityKey, StaticKey
from gateway.crypto.keys import endorse as endorse_as_product
from gateway.peers.pins import Destination, MetPeer, updated
from gateway.session.events import Side
from tests.holding import HeldKeys
from tests.playbook import (
    EHLO,
    GREETING,
    LONG_REPLY,
    REPLY,
    TODAY,
    entropy_for_testing_only,
    octets,
    receiving,
    sending,
)
from tests.second import lines, mlkem, noise
from tests.second.curve25519 import P, ed25519_public, ed25519_sign, x25519, x25519_public
from tests.second.dressed import (
    HERE,
    R_IDENTITY,
    SEED_R,
    SEED_S,
    STATIC_R,
    STATIC_S,
    Alone,
    second_r,
    second_s,
)
from tests.second.memory import Pin, Seen
from tests.second.messages import (
    Answer,
    answer_payload,
    endorse,
    read_offer,
    u16,
    write_offer,
)
from tests.second.records import (
    ANSWER,
    DATA,
    PARAMS,
    RECORD,
    Frames,
    Key,
)

REPLIES = {"full": REPLY, "short": LONG_REPLY}
FORMS = pytest.mark.parametrize("form", ["full", "short"])
WHO = pytest.mark.parametrize("who", ["product", "second"])
ZEROS = bytes(32)
ORDER_8 = bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800")
"""A point of order 8 of Curve25519: with every private key the result is all zeros."""
LOW_ED25519 = bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a")
"""A point of order 8 of Ed25519."""
UNREDUCED_ED25519 = (P + 3).to_bytes(32, "little")
"""Decodes to a point, but its y is not below p."""
NEUTRAL_SIGNATURE = (1).to_bytes(32, "little") + ZEROS
MAIL = b"MAIL FROM:<a@a.example>\r\n"
AT, NOW = Destination("192.0.2.25", 25), 1_800_000_000


def flip(message: bytes, at: int) -> bytes:
    return message[:at] + bytes([message[at] ^ 1]) + message[at + 1 :]


@dataclass(frozen=True)
class OfferCase:
    """An honest offer but for the parts that are given."""

    name: str
    check: str
    """The second implementation's word for what is wrong."""
    e: bytes | None = None
    e1: bytes | None = None
    s: bytes | None = None
    identity: bytes | None = None
    signature: bytes | None = None
    label: bytes = b"nightmail offer\0"
    greeting: bytes = GREETING
    reply_ahead: Callable[[bytes], bytes] = bytes
    flipped: int | None = None
    """An octet; from the end, where it is below 0."""
    full_only: bool = False


def crafted_offer(case: OfferCase, form: str) -> bytes:
    said = lines.prologue(case.greeting + case.reply_ahead(REPLIES[form]), EHLO)
    state = noise.Symmetric.named(noise.FULL if form == "full" else noise.SHORT, said)
    e = case.e or x25519_public(octets("crafted e", 32))
    e1 = (case.e1 or mlkem.keys(octets("crafted kem", 64))[0]) if form == "full" else b""
    s = case.s or x25519_public(STATIC_R)
    for part in (e, e1, s) if e1 else (e, s):
        state.mix_hash(part)
    payload = (case.identity or R_IDENTITY) + TODAY.to_bytes(4, "big") + bytes(2)
    message = e + e1 + s + payload
    message += case.signature or ed25519_sign(SEED_R, case.label + state.h + payload)
    return message if case.flipped is None else flip(message, case.flipped % len(message))


def pinned(who: str) -> dict[str, Any]:
    """A pin with R's identity accepted."""
    if who == "product":
        return {"pin": updated(None, AT, MetPeer(R_IDENTITY, TODAY, True), NOW)}
    return {"pin": Pin({R_IDENTITY: Seen(True, TODAY, True)})}


def s_of(who: str, **more: Any) -> Alone:
    return Alone(sending(**more) if who == "product" else second_s(**more))


def offered(s: Alone, message: bytes, form: str) -> Alone:
    s.from_far(GREETING).from_near(EHLO)
    return s.from_far(lines.add_offer(REPLIES[form], message))


def product_keys(seed: bytes) -> HeldKeys:
    key = IdentityKey.from_seed(seed)
    return HeldKeys(
        key.public, endorse_as_product(key, StaticKey.draw(entropy_for_testing_only("s"), TODAY), TODAY), key
    )


@dataclass(frozen=True)
class AnswerCase:
    name: str
    check: str
    e: bytes | None = None
    s: bytes | None = None
    identity: bytes | None = None
    endorsement: bytes | None = None
    days: tuple[int, int] = (TODAY, TODAY + 14)
    endorsed: bytes | None = None
    """The static key that the endorsement is for."""
    label: bytes = b"nightmail static\0"
    greeting: bytes = GREETING
    flipped: str | None = None
    """A field or tag whose first octet is changed."""


def at_tag(form: str, name: str) -> int:
    """The first octet of a field or tag of the answer."""
    full = {"e": 0, "ekem1": 32, "ekem1 tag": 1120, "s": 1136, "s tag": 1168, "payload": 1184, "tag": 1308}
    short = {"e": 0, "s": 32, "s tag": 64, "payload": 80, "tag": 204}
    return (full if form == "full" else {**short, "ekem1": 0, "ekem1 tag": 0})[name]


class FarS:
    """S as the case wants it, for the offer that R has made."""

    def __init__(self, reply: bytes, case: AnswerCase, dialled: tuple[bytes, int] = HERE) -> None:
        taken = lines.take_offer(reply)
        assert taken is not None
        ephemeral = octets("crafted S e", 32)
        said = lines.prologue(case.greeting + taken[0], EHLO)
        s = noise.Responder(said, STATIC_S, ephemeral, octets("crafted m", 32))
        full = len(taken[1]) == lines.FULL_OCTETS
        if case.greeting == GREETING:
            read_offer(s, taken[1])
        else:
            s.read(taken[1], full)
        own = case.identity or ed25519_public(SEED_S)
        endorsed = case.endorsed or case.s or x25519_public(STATIC_S)
        endorsement = case.endorsement or _endorsement(case, endorsed)
        payload = answer_payload(Answer(own, *case.days, 0, *dialled), endorsement)
        self.message = _answered(s, case, payload, ephemeral)
        if case.flipped is not None:
            self.message = flip(self.message, at_tag("full" if full else "short", case.flipped))
        to_s, to_r = s.state.split()
        self.writer, self.reader = Key(to_r), Key(to_s)
        self.frames = Frames({RECORD: range(19, 65536)})

    @property
    def said(self) -> bytes:
        return lines.VERB + bytes([ANSWER]) + u16(len(self.message)) + self.message

    def heard(self, octets: bytes) -> list[tuple[int, bytes]]:
        self.frames.feed(octets)
        records = []
        while frame := self.frames.next():
            records.append(self.reader.open(frame[1]))
        return records


def _endorsement(case: AnswerCase, endorsed: bytes) -> bytes:
    if case.label == b"nightmail static\0":
        return endorse(SEED_S, endorsed, *case.days)
    days = b"".join(day.to_bytes(4, "big") for day in case.days)
    return ed25519_sign(SEED_S, case.label + endorsed + days)


def _answered(s: noise.Responder, case: AnswerCase, payload: bytes, ephemeral: bytes) -> bytes:
    """`Responder.answer` with public keys of its own choice: every result with them is zeros at R."""

    def public(private: bytes) -> bytes:
        return (case.e if private == ephemeral else case.s) or x25519_public(private)

    def shared(private: bytes, other: bytes) -> bytes:
        return ZEROS if (case.e if private == ephemeral else case.s) else x25519(private, other)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(noise, "x25519_public", public)
        patch.setattr(noise, "dh", shared)
        return s.answer(payload)


def r_of(who: str, **more: Any) -> Alone:
    return Alone(receiving(**more) if who == "product" else second_r(**more))


def offering(r: Alone, form: str) -> bytes:
    """The reply with its offer."""
    r.from_near(GREETING).from_far(EHLO).from_near(REPLIES[form])
    said, r.far = r.far[len(GREETING) :], b""
    return said


def refused(r: Alone) -> bool:
    """454 in clear, both connections closed, and nothing given to the receiver."""
    return r.far.startswith(b"454 4.7.0 ") and r.near == EHLO and r.ended == set(Side)


class FarR:
    """R, for a product's or second S; `key` seals what it says."""

    def __init__(
        self, seed: bytes = SEED_R, flags: int = 0, form: str = "full", label: str = "", today: int = TODAY
    ) -> None:
        self.form = form
        said = lines.prologue(GREETING + REPLIES[form], EHLO)
        kem = octets(f"far R kem {label}", 64) if form == "full" else None
        self.noise = noise.Initiator(said, STATIC_R, octets(f"far R e {label}", 32), kem)
        self.reply = lines.add_offer(REPLIES[form], write_offer(self.noise, seed, today, flags))
        self.writer = self.reader = Key(bytes(32))
        self.frames = Frames({RECORD: range(19, 65536)})

    def takes(self, said: bytes) -> list[tuple[int, bytes]]:
        """Verb, answer and what follows them."""
        length = 1324 if self.form == "full" else 220
        head = lines.VERB + bytes([ANSWER]) + u16(length)
        assert said.startswith(head)
        self.noise.finish(said[len(head) : len(head) + length])
        to_s, to_r = self.noise.state.split()
        self.writer, self.reader = Key(to_s), Key(to_r)
        return self.hears(said[len(head) + length :])

    def hears(self, octets: bytes) -> list[tuple[int, bytes]]:
        self.frames.feed(octets)
        records = []
        while frame := self.frames.next():
            records.append(self.reader.open(frame[1]))
        return records


def channel(role: str, who: str) -> tuple[Alone, Key]:
    """A gateway in its channel, and the key that its peer seals with."""
    if role == "R":
        r = r_of(who)
        far_s = FarS(offering(r, "full"), AnswerCase("", ""))
        r.from_far(far_s.said)
        r.near = r.far = b""
        return r, far_s.writer
    s = s_of(who)
    far_r = FarR()
    s.from_far(GREETING).from_near(EHLO).from_far(far_r.reply).from_near(MAIL)
    far_r.takes(s.far[len(EHLO) :])
    s.from_far(far_r.writer.seal(PARAMS, b"", 0))
    s.near = s.far = b""
    return s, far_r.writer


def confirming(who: str, far_r: FarR | None = None, **more: Any) -> tuple[Alone, FarR]:
    far_r = far_r or FarR()
    s = s_of(who, **more)
    s.from_far(GREETING).from_near(EHLO).from_far(far_r.reply).from_near(MAIL)
    records = far_r.takes(s.far[len(EHLO) :])
    assert (DATA, MAIL) in records or s.near == GREETING + REPLIES[far_r.form]
    return s, far_r
